"""The long steps of a preparation (building a bundle, fetching a kernel), for the progress display."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

Watcher = Callable[[str], None]
"""Takes the name of the current step whenever it changes: `building the bundle hello`, or "" between steps."""

_steps: list[str] = []
_watchers: list[Watcher] = []


@contextmanager
def watch_steps(watcher: Watcher) -> Iterator[None]:
    """Report the steps that the block takes to `watcher`."""
    _watchers.append(watcher)
    try:
        yield
    finally:
        _watchers.remove(watcher)


@contextmanager
def report_step(name: str) -> Iterator[None]:
    """Report the block as a step of that name; a step inside it replaces the name while it lasts."""
    _steps.append(name)
    _report()
    try:
        yield
    finally:
        _steps.pop()
        _report()


def _report() -> None:
    for watcher in _watchers:
        watcher(_steps[-1] if _steps else "")
