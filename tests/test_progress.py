"""What a campaign shows of itself while it measures."""

from __future__ import annotations

import re
import threading
from collections.abc import Sequence
from dataclasses import replace
from queue import Queue

import pytest
from rich.console import Console

from harness import progress
from harness.campaign import Event
from harness.elapsed import Elapsed, format_elapsed
from tests.ground import LONG

FAILED = "failed while waiting: it did not ring"


def done(number: int, target: str, ready: float | None, outcome: str = "ok") -> Event:
    return Event("done", target, "hello", number, 1, 6, outcome, ready)


EVENTS = (
    Event("preparing", "docker", ""),
    done(0, "host", None),
    done(0, "docker", None),
    done(1, "host", 0.004),
    done(1, "docker", None, FAILED),
    done(2, "host", 0.006),
    done(2, "docker", 0.2),
)


def told(kind: str, events: Sequence[Event], capsys: pytest.CaptureFixture[str]) -> list[str]:
    with progress.shown(kind) as observe:
        for event in events:
            observe(event)
    out, err = capsys.readouterr()
    assert out == ""
    return err.splitlines()


@pytest.mark.parametrize("kind", ["auto", "rounds"])
def test_where_nobody_watches_a_round_is_a_line(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert told(kind, EVENTS, capsys) == [
        "preparing docker",
        "warm-up: 2 runs, 0 failed",
        f"1/6 docker hello round 1: {FAILED}",
        "round 1: 2 runs, 1 failed",
        "round 2: 2 runs, 0 failed",
    ]


@pytest.mark.parametrize("kind", ["rounds", "lines"])
def test_steps_of_the_preparation_are_lines(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    begun = Event("preparing", "", "hello")
    steps = (begun, replace(begun, step="building the bundle hello"), begun, Event("releasing", "", ""))
    assert told(kind, steps, capsys)[:2] == ["preparing hello", "preparing hello: building the bundle hello"]


def test_step_that_lasts_is_shown_with_its_time_until_it_ends(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: Queue[str] = Queue()
    elapsed = Elapsed(lambda name, seconds: shown.put(format_elapsed(name, seconds)), (0.001,))
    elapsed.begin("building the bundle hello")
    assert [shown.get(timeout=LONG) for _ in range(2)] == ["building the bundle hello (0 s)"] * 2
    elapsed.end()
    while not shown.empty():
        shown.get()
    assert not any(thread.name == elapsed.name for thread in threading.enumerate())


def test_launch_ends_the_thread_that_shows_the_preparation(capsys: pytest.CaptureFixture[str]) -> None:
    """It would wake up in the timed window."""
    with progress.shown("rounds") as observe:
        observe(Event("preparing", "docker", "hello"))
        assert any(thread.name == Elapsed.name for thread in threading.enumerate())
        observe(Event("starting", "docker", "hello"))
        assert not any(thread.name == Elapsed.name for thread in threading.enumerate())


def test_a_round_that_was_cut_short_is_told_too(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(KeyboardInterrupt), progress.shown("rounds") as observe:
        observe(EVENTS[3])
        raise KeyboardInterrupt
    assert capsys.readouterr().err == "round 1: 1 run, 0 failed\n"


def test_a_terminal_shows_the_medians_so_far() -> None:
    medians = progress.Medians()
    for event in EVENTS:
        medians.add(event)
    console = Console(width=80, color_system=None, record=True, quiet=False)
    with console.capture() as captured:
        console.print(medians.table(10))
    rows = [re.split(r"  +", row.strip()) for row in captured.get().splitlines()]
    assert rows[1:] == [["host", "hello", "5.00 ms", "2"], ["docker", "hello", "200 ms", "1", "1 failed"]]
    assert medians.table(1).row_count == 1


def test_a_terminal_is_left_as_it_was(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    shown = "\n".join(told("bar", EVENTS, capsys))
    assert "start-up so far" in shown and "done docker hello" in shown
    assert shown.rstrip().endswith("\x1b[2K") or "\x1b[?25h" in shown
