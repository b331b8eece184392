"""What selfbench makes of values: ratios, verdicts and their table. That the figures are reached is not for a test."""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest

from harness import host
from selfbench.document import Selfbench, table
from selfbench.measurement import Measurement, interleaved
from tests.ground import REPOSITORY, TIMEOUT


def measurement(ours: float, floor: float | None = 1.0, **promised: float) -> Measurement:
    values = {"ours": [ours] * 5} | ({"floor": [floor] * 5} if floor else {})
    return Measurement(
        question="how long",
        unit="s",
        ours="ours",
        floor="floor" if floor else None,
        values=values,
        at_most=promised.get("at_most"),
        at_least=promised.get("at_least"),
        key="x",
    )


@pytest.mark.parametrize(
    ("given", "figure", "reached"),
    [
        (measurement(3.0, at_most=3.0), 3.0, True),
        (measurement(3.1, at_most=3.0), 3.1, False),
        (measurement(3.1), 3.1, None),
        (measurement(19.0, at_least=20.0), 19.0, False),
        (measurement(20.0, at_least=20.0), 20.0, True),
        (measurement(0.00011, floor=None, at_most=0.0001), 0.00011, False),
        (measurement(0.00009, floor=None, at_most=0.0001), 0.00009, True),
    ],
)
def test_a_promise_is_kept_or_not(given: Measurement, figure: float, reached: bool | None) -> None:
    assert given.figure == figure
    assert given.reached is reached


def test_what_was_not_measured_keeps_no_promise() -> None:
    absent = Measurement(key="x", question="how long", unit="s", ours="ours", at_most=1.0, skipped="no compiler")
    assert (absent.figure, absent.reached) == (None, None)
    assert "| how long | not measured: no compiler | at most" in shown(absent)


def test_the_table_says_figure_promise_and_verdict() -> None:
    told = shown(measurement(0.0035, 0.001, at_most=3.0))
    assert "| how long | 3.5 [3.5, 3.5], n=5 | at most 3 | **missed** |" in told
    assert "| ours | 3.5 ms [3.5 ms, 3.5 ms], n=5 |" in told
    assert "| how long | 90 µs [90 µs, 90 µs], n=5 | at most 100 µs | kept |" in shown(
        measurement(0.00009, floor=None, at_most=0.0001)
    )


def test_sides_take_turns_in_random_order_and_the_first_round_is_not_kept() -> None:
    called: list[str] = []

    def side(name: str) -> float:
        called.append(name)
        return float(len(called))

    values = interleaved({"a": lambda: side("a"), "b": lambda: side("b")}, rounds=20)
    rounds = [called[i : i + 2] for i in range(0, 42, 2)]
    assert all(sorted(each) == ["a", "b"] for each in rounds)
    assert any(before != after for before, after in pairwise(rounds))
    assert sorted(values["a"] + values["b"]) == list(range(3, 43))


def shown(*measurements: Measurement) -> str:
    return table(Selfbench(command=[], commit=None, dirty=None, host=host.describe(), measurements=list(measurements)))


@pytest.mark.engine
def test_it_measures_and_keeps_what_it_measured(tmp_path: Path) -> None:
    """Few rounds show that it works, not what comes of it: a promise that is missed is no failure here."""
    if os.geteuid() != 0:
        pytest.skip("selfbench makes control groups and mounts of its own: it needs root")
    output = tmp_path / "selfbench.json"
    argv = [sys.executable, "-m", "selfbench", "host", "namespace", "doorbell", "--rounds", "2", "-o", str(output)]
    done = subprocess.run(argv, cwd=REPOSITORY, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    assert done.returncode in (0, 1), done.stderr
    assert done.stderr.splitlines() == ["selfbench: host", "selfbench: namespace", "selfbench: doorbell"]
    result = msgspec.json.decode(output.read_bytes(), type=Selfbench)
    assert done.stdout.strip() == table(result).strip()
    assert {measurement.key.partition(".")[0] for measurement in result.measurements} == {
        "host", "namespace", "doorbell"
    }  # fmt: skip
    for measurement in result.measurements:
        assert measurement.skipped is None
        assert all(len(values) >= 2 and min(values) > 0 for values in measurement.values.values())
