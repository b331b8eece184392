"""A campaign's ends: the budget, the exit code, the deadline of a launch, and the second try of an engine."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import msgspec
import pytest

from harness import backends, campaign, pace, preparation
from harness.backends import Backend
from harness.campaign import Campaign, Event, Outcome
from harness.cli import measuring
from harness.errors import TransientFailure, Unavailable
from harness.ledger import Ledger
from harness.measure import Cell, ready_timeout
from harness.model import Plan, TargetRecord, UnavailableRecord
from harness.report import tables
from harness.report.summary import Summary
from harness.store import read
from tests.ground import Ground, ground

if TYPE_CHECKING:
    from tests.conftest import EngineOrSkip

HEAVY = ("pandas", "scipy", "numpy", "matplotlib", "jinja2", "docker", "libvirt")
"""Modules that take long to import and disturb a measurement."""


# The second try.


@dataclass
class Flaky(Backend):
    """An engine that raises the given failures; `probed` and `closed` count over all backends of a test."""

    failures: list[Exception]
    closed: list[str] = field(default_factory=list)
    probed: int = 0

    def probe(self) -> TargetRecord:
        if self.failures:
            raise self.failures.pop(0)
        return TargetRecord("flaky", "fake", "1", "private")

    def close(self) -> None:
        self.closed.append("closed")

    prepare = launch = cast(Any, None)


def started(flaky: Flaky, monkeypatch: pytest.MonkeyPatch) -> TargetRecord:
    created: list[str] = []

    def create(target: str, ledger: Ledger, plan: Plan) -> Backend:
        created.append(target)
        return flaky

    monkeypatch.setattr(backends, "create", create)
    with ExitStack() as stack:
        _, record = preparation.start_engine("flaky", cast(Ledger, None), Plan(), stack)
    assert flaky.closed == ["closed"] * len(created), "every backend is closed once"
    return record


def test_transient_failure_is_retried_once_and_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    record = started(Flaky([TransientFailure("containerd did not start", "")]), monkeypatch)
    assert record.retried == "containerd did not start"


def test_first_try_that_succeeds_records_no_retry(monkeypatch: pytest.MonkeyPatch) -> None:
    assert started(Flaky([]), monkeypatch).retried is None


def test_two_transient_failures_make_a_target_unavailable_with_both_reasons(monkeypatch: pytest.MonkeyPatch) -> None:
    failures: list[Exception] = [TransientFailure("no containerd", "wait"), TransientFailure("no socket", "look")]
    with pytest.raises(Unavailable) as raised:
        started(Flaky(failures), monkeypatch)
    assert raised.value.reason == "no socket; at first: no containerd (tried twice)" and raised.value.hint == "look"


def test_other_failure_is_not_retried(monkeypatch: pytest.MonkeyPatch) -> None:
    flaky = Flaky([Unavailable("not installed", "install it"), Unavailable("a second try", "")])
    with pytest.raises(Unavailable, match="not installed"):
        started(flaky, monkeypatch)
    assert len(flaky.failures) == 1


# The deadline of a launch.


def cell_with(factor: float) -> Cell:
    backend = Flaky([])
    backend.ready_factor = lambda: factor  # type: ignore[method-assign]
    return Cell("flaky", "hello", backend, cast(Any, None))


def test_ready_timeout_is_a_multiple_of_this_machines_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "_slowest", 1.0)
    assert ready_timeout(msgspec.UNSET, cell_with(1500)) == 1500.0
    assert ready_timeout(msgspec.UNSET, cell_with(1500), slowest=400.0) == 4000.0, "the warm-up took 400 s"
    assert ready_timeout(3.0, cell_with(1500), slowest=400.0) == 3.0, "what the user asks for stands"
    monkeypatch.setattr(pace, "_slowest", 0.001)
    assert ready_timeout(msgspec.UNSET, cell_with(1500), slowest=0.2) == 60.0


# The budget, and the message of a campaign without a measured launch.


@pytest.mark.engine
def test_budget_starts_at_the_first_launch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine_or_skip: EngineOrSkip
) -> None:
    """A preparation that takes a hundred hours on a fake clock uses nothing of a budget of ten minutes."""
    turned_on = 0.0

    def observe(event: Event) -> None:
        nonlocal turned_on
        turned_on += 360_000.0 if event.phase == "preparing" else 0.0

    with ground() as place, monkeypatch.context() as patched:
        for name, value in place.environment.items():
            patched.setenv(name, value)
        patched.setattr(campaign, "time", SimpleNamespace(monotonic=lambda: time.monotonic() + turned_on))
        plan = Plan(targets=("namespace",), rounds=1, budget=600.0)
        outcome = Campaign(plan, tmp_path / "r.jsonl", [], observe).run()
    with engine_or_skip("namespace"):
        for absent in outcome.unavailable:
            raise Unavailable(absent.reason, absent.hint)
    assert (outcome.stopped, outcome.measured, outcome.failed) == (None, 1, 0)
    assert {run.timeout for run in read(tmp_path / "r.jsonl").runs} == {pace.deadline(60.0, 1500)}


@pytest.mark.engine
@pytest.mark.parametrize("command", [["run"], ["run", "--report", "rep"], ["ab", "--head", "memory=128M"]])
def test_campaign_without_a_measured_launch_exits_3_with_a_remedy(
    command: list[str], engine_or_skip: EngineOrSkip
) -> None:
    with ground() as place:
        said = budgeted(place, *command)
        result = read(place.folder / "r.jsonl")
        assert not (place.folder / "rep").exists()
    with engine_or_skip("namespace"):
        for absent in result.unavailable:
            raise Unavailable(absent.reason, absent.hint)
    assert (said.code, said.out) == (3, "")
    assert said.told[-1].startswith("weighbridge: nothing was measured: the budget of 0.001 s was used up after ")
    assert ", before the first measured round was complete" in said.told[-1] and "--budget" in said.told[-1]
    assert result.footer is not None and not result.footer.complete


def budgeted(place: Ground, *arguments: str) -> Any:
    return place.weighbridge(*arguments, "--targets", "namespace", "--budget", "0.001s", "-o", "r.jsonl")


def test_targets_that_are_all_absent_exit_3() -> None:
    absent = [UnavailableRecord("docker", "no socket", "start it")]
    outcome = Outcome("c", unavailable=absent)
    assert measuring._code(outcome, left_behind=False) == 3
    assert "no target can run here" in measuring._why_unmeasured(outcome, Plan())


@pytest.mark.parametrize(
    ("outcome", "code"),
    [
        (Outcome("c", cells=1, runs=2, measured=1), 0),
        (Outcome("c", cells=1, runs=2, measured=1, failed=2), 4),  # every measured launch failed
        (Outcome("c", cells=1, runs=1, failed=1), 3),  # the warm-up alone
        (Outcome("c", cells=1, runs=1, interrupted=130), 130),
    ],
)
def test_exit_code(outcome: Outcome, code: int) -> None:
    assert measuring._code(outcome, left_behind=False) == code


def test_why_unmeasured_names_a_sufficient_budget() -> None:
    outcome = Outcome("c", cells=4, runs=2, failed=1, stopped="the budget of 60 s was used up after 2 runs")
    outcome.seconds, outcome.failure = 61.0, "docker hello: waiting: no READY within 60 s"
    told = measuring._why_unmeasured(outcome, Plan(rounds=7))
    assert "one measured round take about 5m, all 8 rounds about 17m" in told
    assert "the last failure was docker hello: waiting: no READY within 60 s" in told


def test_heading_without_a_reference_is_ratio() -> None:
    assert "Ratio" in tables.headline(Summary(())).columns


# Imports before the last launch.

ONLY = """
import sys
sys.argv = ["weighbridge", *{arguments!r}]
from harness import cli
try:
    cli.main()
finally:
    loaded = {{name.partition(".")[0] for name in sys.modules}} & {{*{heavy!r}}}
    assert not loaded, loaded
"""
MEASURING = """
import sys
from harness import campaign, cli
plain = campaign.measure
def measure(*arguments, **named):
    run = plain(*arguments, **named)
    loaded = {{name.partition(".")[0] for name in sys.modules}} & {{*{heavy!r}}}
    assert not loaded, loaded
    return run
campaign.measure = measure
sys.argv = ["weighbridge", *{arguments!r}]
cli.main()
"""


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["--version"], *([name, "--help"] for name in ("run", "ab", "report", "compare", "doctor", "facts"))],
)
def test_help_imports_no_heavy_module(arguments: list[str]) -> None:
    program = ONLY.format(arguments=arguments, heavy=(*HEAVY, "rich", "psutil", "msgspec", "pytest"))
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.engine
def test_run_imports_no_heavy_module_before_its_last_launch(engine_or_skip: EngineOrSkip) -> None:
    arguments = ["run", "--targets", "namespace", "--rounds", "1", "-o", "r.jsonl"]
    program = MEASURING.format(arguments=arguments, heavy=HEAVY)
    with ground() as place:
        done = subprocess.run(
            [sys.executable, "-c", program],
            cwd=place.folder,
            env={**os.environ, **place.environment},
            capture_output=True,
            text=True,
            check=False,
        )
        absent = read(place.folder / "r.jsonl").unavailable
    with engine_or_skip("namespace"):
        for each in absent:
            raise Unavailable(each.reason, each.hint)
    assert done.returncode == 0, done.stderr
    assert "Start-up" in done.stdout
