"""Report the name and the elapsed time of a long step, from a thread that ends with the step.

Never used while an instance is measured, because the thread wakes up and takes CPU time.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import chain, repeat

SECONDLY = (1.0,)
"""Seconds between two reports on a terminal, where each overwrites the last."""
SPARSELY = (10.0, 10.0, 10.0, 30.0, 60.0)
"""Seconds between two reports in a log: after 10, 20, 30 and 60 s, then every minute."""
FIRST = 2.0
"""Seconds before the first report of `show_elapsed`."""

Show = Callable[[str, float], None]
"""Takes the name of a step and the seconds that it has taken."""


class Elapsed:
    """Show one step at a time. Call `end` before anything is timed."""

    name = "weighbridge-elapsed"
    """The thread's name."""

    def __init__(self, show: Show, intervals: Iterable[float] = SPARSELY) -> None:
        """intervals: seconds between two calls of `show`; the last one repeats."""
        self._show = show
        self._intervals = tuple(intervals)
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def begin(self, name: str) -> None:
        """Begin a step; the one before it ends."""
        self.end()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._tick, args=(name, self._over), name=self.name, daemon=True)
        self._thread.start()

    def end(self) -> None:
        """End the step, if there is one; `show` is not called after this returns."""
        if self._thread is not None:
            self._over.set()
            self._thread.join()
            self._thread = None

    def _tick(self, name: str, over: threading.Event) -> None:
        began = time.monotonic()
        for interval in chain(self._intervals, repeat(self._intervals[-1])):
            if over.wait(interval):
                return
            self._show(name, time.monotonic() - began)


@contextmanager
def show_elapsed(name: str) -> Iterator[None]:
    """Print the block's name and its elapsed time to stderr if it takes longer than FIRST seconds."""
    elapsed = Elapsed(_print, (FIRST, *SPARSELY))
    elapsed.begin(name)
    try:
        yield
    finally:
        elapsed.end()


def format_elapsed(name: str, seconds: float) -> str:
    """Return `building the bundle hello (75 s)`."""
    return f"{name} ({seconds:.0f} s)"


def _print(name: str, seconds: float) -> None:
    print(f"weighbridge: {format_elapsed(name, seconds)}", file=sys.stderr, flush=True)
