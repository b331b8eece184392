"""Shows a campaign's events on stderr: as a bar, as lines, or as JSON for programs that follow along."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from harness.campaign import Event, Observer

KINDS = ("auto", "bar", "lines", "json", "none")


@contextmanager
def shown(kind: str) -> Iterator[Observer]:
    """An observer of that kind; auto is a bar on a terminal, else lines."""
    if kind == "auto":
        kind = "bar" if Console(stderr=True).is_terminal else "lines"
    match kind:
        case "bar":
            with _bar() as observer:
                yield observer
        case "lines":
            yield _line
        case "json":
            yield _json
        case _:
            yield lambda event: None


@contextmanager
def _bar() -> Iterator[Observer]:
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    # No refreshing by a thread of its own: it would wake up in the timed window.
    with Progress(*columns, console=Console(stderr=True), auto_refresh=False, transient=True) as progress:
        task = progress.add_task("preparing", total=None)

        def observe(event: Event) -> None:
            if event.phase == "round":
                progress.console.print(f"round {event.round}: {event.outcome}", markup=False, highlight=False)
            elif event.phase != "waiting":
                told = " ".join(f"{event.phase} {event.target} {event.workload}".split())
                progress.update(task, description=told, completed=event.done, total=event.total or None, refresh=True)

        yield observe


def _line(event: Event) -> None:
    if event.phase == "preparing":
        print(" ".join(f"preparing {event.target} {event.workload}".split()), file=sys.stderr, flush=True)
    elif event.phase == "done":
        told = f"{event.done}/{event.total or '?'} {event.target} {event.workload} round {event.round}: {event.outcome}"
        print(told, file=sys.stderr, flush=True)
    elif event.phase == "round":
        print(f"round {event.round}: {event.outcome}", file=sys.stderr, flush=True)


def _json(event: Event) -> None:
    print(msgspec.json.encode(event).decode(), file=sys.stderr, flush=True)
