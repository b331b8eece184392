"""The pytest plugin: fixtures `campaign`, `target` and `workload`, for bench/ and for suites of users' own.

One campaign a session, of what the selected tests ask for, run by the first of them as `weighbridge run` runs it: in a
process of its own, so that neither a tracer nor a busy thread of the tests is in the timed window. Each test then
replays what was recorded (harness/replay.py).
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from harness import plan, pytest_gate
from harness.command import find
from harness.errors import BadInput

if TYPE_CHECKING:
    from harness.model import Plan
    from harness.replay import RecordedCampaign

FLAGS = ("targets", "workloads", "rounds")
BAD_INPUT = 2
COMPLETE = (0, 3, 4)
"""Exit codes of `weighbridge run` that leave a result: success, nothing was measured, some runs failed."""
OVERLAPPING = (
    "weighbridge is refused under pytest-xdist: launches that overlap disturb each other; run these tests with -n 0"
)
REPLAYED = (
    "pytest-benchmark's figures below are replays: each launch was made and measured once, in the campaign {campaign}, "
    "with all targets in turn. Raw data: {result}"
)
_recorded = pytest.StashKey["RecordedCampaign"]()
_compared = pytest.StashKey[str]()
"""What is said of the comparison with a base."""


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("weighbridge")
    group.addoption("--weighbridge-targets", metavar="A,B", help="What to weigh, as host,namespace/pid,docker.")
    group.addoption("--weighbridge-workloads", metavar="A,B", help="Workloads by name, or folders of your own. [hello]")
    group.addoption("--weighbridge-rounds", metavar="N", type=int, help="Measured launches of each target. [7]")
    group.addoption("--weighbridge-plan", metavar="FILE", type=Path, help="A plan (TOML) for these and all the rest.")
    group.addoption("--weighbridge-output", metavar="FILE", type=Path, help="The result file. [below results/runs]")
    group.addoption("--weighbridge-compare", metavar="BASE", type=Path, help="Results to hold these against.")
    group.addoption("--weighbridge-fail", metavar="METRIC:X%,...", help="What fails the session, as memory.pss:5%%.")
    parser.addini("weighbridge_plan", "The plan where --weighbridge-plan names none, from the root directory.")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    if _overlapping(config) and config.getoption("benchmark_only", False):
        raise pytest.UsageError(OVERLAPPING)
    said = {flag: config.getoption(f"weighbridge_{flag}") for flag in FLAGS}
    try:
        pytest_gate.check(config)
        chosen = plan.make(_plan_file(config), said)
    except BadInput as error:
        raise pytest.UsageError(f"weighbridge: {error}") from error
    config.pluginmanager.register(_parametrized(chosen), "weighbridge-parametrized")


def _parametrized(chosen: Plan) -> object:
    """`target` and `workload` over those of the plan, made when it is known: a fixture's parameters never change."""

    class Parametrized:
        @pytest.fixture(params=chosen.targets)
        def target(self, request: pytest.FixtureRequest, campaign: RecordedCampaign) -> str:
            """The key of each target in turn, as `docker`. Skips the test where it could not run here."""
            key: str = request.param
            campaign.skip_absent(key)
            return key

        @pytest.fixture(params=chosen.workloads)
        def workload(self, request: pytest.FixtureRequest, campaign: RecordedCampaign) -> str:
            """The name of each workload in turn, as `hello`."""
            from harness import workloads

            return workloads.load(request.param).name

    return Parametrized()


@pytest.fixture(scope="session")
def campaign(request: pytest.FixtureRequest) -> RecordedCampaign:
    """The campaign that measured all targets and workloads that the selected tests ask for."""
    from harness import store
    from harness.replay import RecordedCampaign

    config = request.config
    if _overlapping(config):
        pytest.fail(OVERLAPPING, pytrace=False)
    output = config.getoption("weighbridge_output") or _unused()
    code, told = _run([*_arguments(request.session), f"--output={output}"], config)
    if code == BAD_INPUT:
        pytest.exit(told, returncode=pytest.ExitCode.USAGE_ERROR)
    if code not in COMPLETE:
        pytest.fail(f"weighbridge run ended with exit code {code}\n{told}", pytrace=False)
    try:
        result = store.read(output)
        config.stash[_recorded] = RecordedCampaign(result)
    except BadInput as error:
        pytest.fail(f"weighbridge: {error}", pytrace=False)
    if result.images and not any(run.phase == "measured" for run in result.runs):
        pytest.fail(told, pytrace=False)  # here a target can run but was not measured; one that cannot run is a skip
    return config.stash[_recorded]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    from harness.replay import recording

    for item in items:
        if {"campaign", "benchmark"} <= set(getattr(item, "fixturenames", ())):
            marker = item.get_closest_marker("benchmark")
            said = dict(marker.kwargs) if marker else {}
            item.add_marker(pytest.mark.benchmark(**{"timer": recording, **said}), append=False)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Holds the campaign against a base: a regression fails a session in which all tests passed."""
    recorded = session.config.stash.get(_recorded, None)
    if recorded is None or session.config.getoption("weighbridge_compare") is None:
        return
    status, told = pytest_gate.judge(session.config, recorded.result)
    session.config.stash[_compared] = told
    if session.exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
        session.exitstatus = status


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """What pytest-benchmark's tables have no column for, and that what they have was recorded, not timed there."""
    recorded = config.stash.get(_recorded, None)
    if recorded is None:
        return
    from io import StringIO

    from rich.console import Console

    from harness.report import terminal
    from harness.report.summary import Summary

    table = StringIO()
    terminal.show(Summary((recorded.summary,)), Console(file=table, width=80, color_system=None))
    terminalreporter.section("weighbridge")
    terminalreporter.write_line(REPLAYED.format(campaign=recorded.summary.id, result=recorded.result.path))
    terminalreporter.write(table.getvalue())
    if (told := config.stash.get(_compared, None)) is not None:
        terminalreporter.section("weighbridge: against the base")
        terminalreporter.write(told)


def _plan_file(config: pytest.Config) -> Path | None:
    named: str = config.getini("weighbridge_plan")
    return config.getoption("weighbridge_plan") or (config.rootpath / named if named else None)


def _overlapping(config: pytest.Config) -> bool:
    """Whether pytest-xdist distributes the tests: in its workers, and in the process that started them."""
    return "PYTEST_XDIST_WORKER" in os.environ or config.getoption("dist", "no") != "no"


def _arguments(session: pytest.Session) -> Iterator[str]:
    """The campaign of the tests that will run, as arguments of `weighbridge run`: of the plan, what they ask for."""
    option = session.config.getoption
    if (file := _plan_file(session.config)) is not None:
        yield str(file)
    asking = [item for item in session.items if "campaign" in _fixtures(item) and not item.get_closest_marker("skip")]
    parameters = [item.callspec.params if hasattr(item, "callspec") else {} for item in asking]
    for name in ("target", "workload"):
        asked = option(f"weighbridge_{name}s")
        if all(name in each for each in parameters):
            asked = ",".join(dict.fromkeys(each[name] for each in parameters))
        if asked:
            yield f"--{name}s={asked}"
    rounds = option("weighbridge_rounds") or (1 if option("benchmark_disable", False) else None)
    if rounds is not None:
        yield f"--rounds={rounds}"


def _fixtures(item: pytest.Item) -> list[str]:
    """The names of the fixtures that a test uses, by itself or by another; none of what is no function."""
    return getattr(item, "fixturenames", [])


def _unused() -> Path:
    """A result file that nobody has written yet, where those of `weighbridge run` are."""
    from harness.campaign import RUNS

    return RUNS / f"pytest-{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}.jsonl"


def _run(arguments: Iterable[str], config: pytest.Config) -> tuple[int, str]:
    """Runs a campaign to its end, and shows its progress: its exit code, and what the program itself said.

    It ends in order, everything released, where the tests are interrupted or killed.
    """
    capture = config.pluginmanager.getplugin("capturemanager")
    argv = [find("setpriv", "util-linux"), "--pdeathsig", "TERM", sys.executable, "-P", "-m", "harness", "run"]
    traced = ("COV_CORE_", "COVERAGE_")
    env = {name: value for name, value in os.environ.items() if not name.startswith(traced)}
    told = []
    with (
        capture.global_and_fixture_disabled() if capture else nullcontext(),
        subprocess.Popen(
            [*argv, *arguments],
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
        ) as child,
    ):
        assert child.stderr is not None
        try:
            for line in child.stderr:
                print(line, end="", file=sys.stderr, flush=True)
                told += [line] if line.startswith("weighbridge: ") else []
            code = child.wait()
        except BaseException:
            child.send_signal(signal.SIGTERM)
            print(child.stderr.read(), end="", file=sys.stderr, flush=True)  # where the result is, and what is left
            child.wait()
            raise
    return code, "".join(told).strip()
