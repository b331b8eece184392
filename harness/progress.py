"""Shows a campaign's events on stderr: as a picture of it on a terminal, as lines, or as JSON for programs."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from statistics import median

import msgspec
from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from harness import host
from harness.campaign import Event, Observer
from harness.elapsed import SECONDLY, Elapsed, format_elapsed
from harness.wording import count_runs, line, quantity


@contextmanager
def shown(kind: str) -> Iterator[Observer]:
    """An observer of that kind; auto is a bar on a terminal, else a line a round."""
    if kind == "auto":
        kind = "bar" if Console(stderr=True).is_terminal else "rounds"
    match kind:
        case "bar":
            with _bar() as observer:
                yield observer
        case "rounds":
            with _show_steps(_Rounds()) as observer:
                yield observer
        case "lines":
            with _show_steps(_Lines()) as observer:
                yield observer
        case "json":
            yield _json
        case _:
            yield lambda event: None


@contextmanager
def _show_steps(lines: _Lines) -> Iterator[Observer]:
    """Print each step of the preparation and, at growing intervals, its elapsed time; then the output of `lines`."""
    elapsed = Elapsed(lambda name, seconds: _print(format_elapsed(name, seconds)))
    last = ""

    def observe(event: Event) -> None:
        nonlocal last
        elapsed.end()
        if (name := _name_step(event)) is None:
            lines(event)
            return
        if event.phase == "releasing":
            lines.end()
        elif name != last:
            _print(name)
        last = name
        elapsed.begin(name)

    try:
        yield observe
    finally:
        elapsed.end()
        lines.end()


def _name_step(event: Event) -> str | None:
    """Return the name of the step that an event begins; None for an event of a launch."""
    if event.phase not in ("preparing", "releasing"):
        return None
    about = "releasing the engines" if event.phase == "releasing" else f"preparing {event.target} {event.workload}"
    return line(f"{about}: {event.step}" if event.step else about)


@contextmanager
def _bar() -> Iterator[Observer]:
    """What is measured now, how much is left, and the medians so far."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left:"),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    progress, medians = Progress(*columns, console=console), Medians()
    task = progress.add_task("preparing", total=None)
    # No refreshing by a thread of its own: it would wake up in the timed window.
    with Live(console=console, auto_refresh=False, transient=True) as live, ExitStack() as stack:

        def show(name: str, seconds: float) -> None:
            progress.update(task, description=format_elapsed(name, seconds))
            live.update(Group(progress, medians.table(console.size.height - 4)), refresh=True)

        elapsed = Elapsed(show, SECONDLY)
        stack.callback(elapsed.end)

        def observe(event: Event) -> None:
            elapsed.end()
            if (name := _name_step(event)) is not None:
                show(name, 0.0)
                elapsed.begin(name)
            elif event.phase == "round":
                console.print(f"round {event.round}: {event.outcome}", markup=False, highlight=False)
            elif event.phase != "waiting":
                told = line(f"{event.phase} {event.target} {event.workload}")
                progress.update(task, description=told, completed=event.done, total=event.total or None)
                medians.add(event)
                live.update(Group(progress, medians.table(console.size.height - 4)), refresh=True)

        yield observe


@dataclass
class Medians:
    """Start-up so far, by target and workload. mark: of a machine whose numbers bear one."""

    cells: dict[tuple[str, str], list[float]] = field(default_factory=dict)
    failed: dict[tuple[str, str], int] = field(default_factory=dict)
    mark: str | None = field(default_factory=lambda: host.describe().lab)

    def add(self, event: Event) -> None:
        cell = (event.target, event.workload)
        if event.phase == "done":
            found = self.cells.setdefault(cell, [])
            if event.ready is not None:
                found.append(event.ready)
            self.failed[cell] = self.failed.get(cell, 0) + (event.outcome != "ok")

    def table(self, most: int) -> Table:
        """At most so many rows: what does not fit on a terminal is not shown."""
        told = ", ".join(filter(None, ("start-up so far", self.mark)))
        table = Table("target", "workload", told, "n", "", box=None, pad_edge=False, header_style="dim")
        for cell, found in list(self.cells.items())[: max(0, most)]:
            failed = f"{self.failed[cell]} failed" if self.failed[cell] else ""
            middle = quantity(median(found), "s") if found else ""
            table.add_row(*map(Text, (*map(line, cell), middle, f"{len(found)}", failed)))
        return table


class _Lines:
    """A line for each launch and each round."""

    def __call__(self, event: Event) -> None:
        _line(event)

    def end(self) -> None:
        """End the last round."""


@dataclass
class _Rounds(_Lines):
    """A line for each round that is over and for each failed launch."""

    round: int | None = None
    runs: int = 0
    failed: int = 0

    def __call__(self, event: Event) -> None:
        if event.phase == "round":
            _line(event)
        elif event.phase == "done":
            if event.round != self.round:
                self.end()
                self.round = event.round
            self.runs += 1
            if event.outcome != "ok":
                self.failed += 1
                _line(event)

    def end(self) -> None:
        """The round that went on until now is over."""
        if self.runs:
            name = f"round {self.round}" if self.round else "warm-up"
            _print(f"{name}: {count_runs(self.runs)}, {self.failed} failed")
        self.runs = self.failed = 0


def _line(event: Event) -> None:
    if event.phase == "done":
        told = f"{event.done}/{event.total or '?'} {event.target} {event.workload} round {event.round}: {event.outcome}"
        _print(line(told))
    elif event.phase == "round":
        _print(f"round {event.round}: {event.outcome}")


def _print(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _json(event: Event) -> None:
    print(msgspec.json.encode(event).decode(), file=sys.stderr, flush=True)
