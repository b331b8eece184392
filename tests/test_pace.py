"""Deadlines: a floor, a multiple of a measured interpreter start, and no shorter deadline after a quiet moment."""

import os
from collections.abc import Iterator

import pytest

from harness import pace


@pytest.fixture(autouse=True)
def _unmeasured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "_slowest", None)


def _starts(monkeypatch: pytest.MonkeyPatch, *seconds: float) -> Iterator[float]:
    left = iter(seconds)
    monkeypatch.setattr(pace, "_start", lambda: next(left))
    return left


def test_unit_is_a_real_start_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    measured = pace.unit()
    assert measured > 0
    _starts(monkeypatch)
    assert pace.unit() == measured  # another start would have raised StopIteration


def test_deadline_on_a_slow_machine_is_a_multiple(monkeypatch: pytest.MonkeyPatch) -> None:
    _starts(monkeypatch, 2.0, 2.0, 9.0)
    assert pace.deadline(60.0, 600) == 1200.0


def test_deadline_on_a_fast_machine_is_the_floor(monkeypatch: pytest.MonkeyPatch) -> None:
    _starts(monkeypatch, 0.001, 0.001, 0.001)
    assert pace.deadline(60.0, 600) == 60.0


def test_deadline_after_a_quiet_moment_keeps_the_slowest_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    _starts(monkeypatch, *[1.0] * 3, *[0.01] * 3, *[3.0] * 3)
    assert pace.deadline(1.0, 10) == 10.0
    pace.measure()
    assert pace.deadline(1.0, 10) == 10.0
    pace.measure()
    assert pace.deadline(1.0, 10) == 30.0


def test_wait_readable_measures_only_after_the_floor(monkeypatch: pytest.MonkeyPatch) -> None:
    left = _starts(monkeypatch, 0.001, 0.001, 0.001)
    reading, writing = os.pipe()
    try:
        assert pace.wait_readable([reading], 0.001, 0.01) == []
        assert next(left, None) is None  # all three were made
        os.write(writing, b"x")
        assert pace.wait_readable([reading], 60.0, 600) == [reading]
    finally:
        os.close(reading)
        os.close(writing)


def test_wait_readable_past_the_floor_returns_late_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    monkeypatch.setattr(pace, "_start", lambda: os.write(writing, b"x") * 60.0)  # it comes while the floor is over
    try:
        assert pace.wait_readable([reading], 0.001, 1.0) == [reading]
    finally:
        os.close(reading)
        os.close(writing)
