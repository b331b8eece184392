"""Rounds until a precision is reached: when it is, which median is named, and what a campaign says of it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from harness import campaign
from harness.campaign import Campaign, Event
from harness.errors import Unavailable
from harness.model import Failure, Phase, Plan, Run, Sample
from harness.precision import Precision
from harness.schedule import LEAST
from harness.store import Result, read
from tests.ground import LONG, Ground, ground

if TYPE_CHECKING:
    from tests.conftest import EngineOrSkip


def run(
    number: int,
    ready: float | None = 1.0,
    *,
    target: str = "docker",
    phase: Phase = "measured",
    pss: float | None = 2.0**20,
    error: Failure | None = None,
) -> Run:
    marks = [("requested", 0.0)] + ([("ready", ready)] if ready is not None else [])
    samples = [
        Sample("memory.pss", "B", pss, group="workload", reason=None if pss is not None else "no right to ptrace it"),
        Sample("disk.instance", "B", 4096, part="upper"),
        Sample("memory.rss", "B", number * 10**6, group="workload"),  # varies, and is no headline
    ]
    return Run(
        id=f"{target}-{number}",
        seq=number,
        target=target,
        workload="hello",
        round=number,
        phase=phase,
        bundle_sha256="0" * 64,
        ok=error is None,
        error=error,
        marks=marks,
        samples=samples,
        limits={},
        facts={},
    )


def after(runs: Sequence[Run], wanted: float = 0.05) -> Precision:
    precision = Precision(wanted, LEAST)
    for each in runs:
        precision.add(each)
    return precision


def spread(half: float) -> list[float]:
    """Ten values with a median of 1 whose interval is [1 - half, 1 + half]: its bounds are the second and the ninth."""
    return [1 - half, 1 - half, 1 - half, 1, 1, 1, 1, 1 + half, 1 + half, 1 + half]


def test_reached() -> None:
    precision = after([run(number, ready) for number, ready in enumerate(spread(0.04), 1)])
    assert precision.shortfall() is None
    assert precision.reached() == (
        "after 10 rounds every median is within 5 %: the last one was startup.total of docker with hello"
    )


def test_the_bound_itself_is_reached() -> None:
    runs = [run(number, ready) for number, ready in enumerate(spread(0.25), 1)]
    assert after(runs, 0.25).shortfall() is None
    assert after(runs, 0.2499).shortfall() is not None


def test_not_reached_and_why() -> None:
    precision = after([run(number, ready) for number, ready in enumerate(spread(0.073), 1)])
    assert precision.shortfall() == "startup.total of docker with hello is at 7.3 %, 5 % was asked for"


def test_the_widest_of_all_cells_is_named() -> None:
    starts = enumerate(zip(spread(0.1), spread(0.3), strict=True), 1)
    runs = [run(n, at, target=target) for n, (one, two) in starts for target, at in (("host", one), ("docker", two))]
    assert str(after(runs).shortfall()).startswith("startup.total of docker with hello is at 30 %")
    wide = [run(n, target="namespace", pss=2.0**20 * factor) for n, factor in enumerate(spread(0.5), 1)]
    assert str(after([*runs, *wide]).shortfall()).startswith("memory.pss of namespace with hello is at 50 %")


def test_the_last_one_is_the_one_that_held_it_up() -> None:
    precision = Precision(0.05, LEAST)
    for number, (ready, factor) in enumerate(zip(spread(0.3), spread(0.04), strict=True), 1):
        precision.add(run(number, ready, pss=2.0**20 * factor))
    assert precision.shortfall() is not None
    for number in range(LEAST + 1, 40):
        precision.add(run(number))
    assert precision.shortfall() is None
    assert precision.reached() == (
        "after 39 rounds every median is within 5 %: the last one was startup.total of docker with hello"
    )


def test_constant_data_are_exact() -> None:
    precision = after([run(number) for number in range(1, LEAST + 1)], 1e-9)
    assert precision.shortfall() is None
    assert precision.reached() == "after 10 rounds every median is within 1e-07 %: none of them varies"


def test_what_is_null_is_left_out() -> None:
    assert after([run(number, pss=None) for number in range(1, LEAST + 1)]).shortfall() is None


def test_a_value_among_nulls_is_too_few() -> None:
    runs = [run(number, pss=None if number > 3 else 2.0**20) for number in range(1, LEAST + 1)]
    assert after(runs).shortfall() == (
        "memory.pss of docker with hello has only 3 values, too few for an interval, 5 % was asked for"
    )


def test_a_median_of_nothing_has_no_fraction() -> None:
    runs = [run(number, pss=0.0 if 2 < number < 9 else 4096.0 * number) for number in range(1, LEAST + 1)]
    assert "memory.pss of docker with hello has a median of 0" in str(after(runs).shortfall())


def test_too_few_rounds() -> None:
    few = after([run(number) for number in range(1, LEAST)])
    assert few.shortfall() == "9 of at least 10 rounds were begun"
    assert after([]).shortfall() == "0 of at least 10 rounds were begun"
    fewest = after([run(number) for number in range(1, 4)])
    assert str(fewest.shortfall()).startswith("startup.total of docker with hello has only 3 values")


def test_warm_up_and_failures_do_not_count() -> None:
    failure = Failure("waiting", "StartTimeout", "no READY within 1 s")
    odd = [run(0, 50.0, phase="warmup"), *(run(number, None, error=failure) for number in range(1, 4))]
    assert after([*odd, *(run(number) for number in range(4, 14))]).shortfall() is None


IMPORTS = """
import sys
import harness.cli
from harness.campaign import Campaign
from harness.model import Plan
Campaign(Plan(), None, [], print)
assert not {"numpy", "scipy", "pandas"} & set(sys.modules)
Campaign(Plan(precision=0.05), None, [], print)
assert "numpy" in sys.modules and "scipy" not in sys.modules
"""


def test_numpy_is_there_before_the_first_start_or_not_at_all() -> None:
    subprocess.run([sys.executable, "-c", IMPORTS], check=True, timeout=LONG)


# Whole campaigns.


def campaign_of(place: Ground, engine_or_skip: EngineOrSkip, *arguments: str) -> tuple[Result, list[str]]:
    output = place.folder / "result.jsonl"
    said = place.weighbridge("run", "--targets", "host", *arguments, "-o", output)
    result = read(output)
    with engine_or_skip("host"):
        for absent in result.unavailable:
            raise Unavailable(absent.reason, absent.hint)
    assert said.code == 0, said.err
    return result, said.err.splitlines()


@pytest.mark.engine
def test_a_campaign_ends_when_it_is_precise(engine_or_skip: EngineOrSkip) -> None:
    with ground() as place:
        result, told = campaign_of(place, engine_or_skip, "--precision", "90%", "--budget", "60s")
    assert (result.header.plan.precision, result.header.plan.rounds) == (0.9, LEAST)
    assert sum(each.ok and each.phase == "measured" for each in result.runs) >= LEAST
    assert result.footer is not None
    assert (result.footer.complete, result.footer.stopped) == (True, None)
    [line] = [line for line in told if "every median is within 90 %" in line]
    assert line.startswith("weighbridge: after ")


@pytest.mark.engine
def test_a_campaign_that_cannot_be_as_precise_names_why(engine_or_skip: EngineOrSkip) -> None:
    with ground() as place:
        result, told = campaign_of(place, engine_or_skip, "--precision", "0.0001%", "--budget", "6s")
    assert result.footer is not None
    assert not result.footer.complete
    stopped = str(result.footer.stopped)
    assert stopped.startswith("the budget of 6 s was used up after ")
    assert " of host with hello " in stopped
    assert stopped.endswith(", 0.0001 % was asked for")
    assert any(stopped in line for line in told)


@pytest.mark.engine
def test_there_is_an_end_of_rounds(
    engine_or_skip: EngineOrSkip, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(campaign, "MOST", LEAST + 1)
    events: list[Event] = []
    with ground() as place:
        for name, value in place.environment.items():
            monkeypatch.setenv(name, value)
        plan = Plan(targets=("host",), precision=1e-9, rounds=LEAST)
        outcome = Campaign(plan, tmp_path / "result.jsonl", [], events.append).run()
    with engine_or_skip("host"):
        for absent in outcome.unavailable:
            raise Unavailable(absent.reason, absent.hint)
    assert outcome.runs == 1 + LEAST + 1
    assert outcome.stopped is not None
    assert outcome.stopped.startswith("11 rounds were measured, and more never are; ")
    rounds = [event for event in events if event.phase == "round"]
    assert [event.round for event in rounds] == [10, 11]
    assert all("host with hello" in event.outcome for event in rounds)
    assert {event.total for event in events} == {0}
