"""One place that turns INT, TERM and HUP into one exception, and keeps it from tearing apart what releases."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(BaseException):
    """A signal asked the program to end. Releasing what was made goes on; a second signal does not stop it.

    No KeyboardInterrupt, of which the command line library would make an error of its own.
    """

    def __init__(self, number: int) -> None:
        super().__init__(f"interrupted by {signal.Signals(number).name}")
        self.number = number


@dataclass
class _Came:
    """The signal that came, and how many blocks hold its exception back."""

    number: int | None = None
    held: int = 0


_came = _Came()


@contextmanager
def interruptible() -> Iterator[None]:
    """The first signal raises Interrupted in the main thread; those after it are passed over."""

    def interrupt(number: int, _: FrameType | None) -> None:
        for each in SIGNALS:
            signal.signal(each, signal.SIG_IGN)
        _came.number = number
        if not _came.held:
            check()

    # What our parent had us ignore (nohup and the hang-up) stays ignored.
    minded = [each for each in SIGNALS if signal.getsignal(each) is not signal.SIG_IGN]
    before = {each: signal.signal(each, interrupt) for each in minded}
    try:
        yield
    finally:
        _came.number = None
        for each, handler in before.items():
            signal.signal(each, handler)


@contextmanager
def held() -> Iterator[None]:
    """A signal that comes inside the block raises Interrupted at its end, unless the block raises on its own."""
    before = _came.number
    _came.held += 1
    try:
        yield
    finally:
        _came.held -= 1
    if _came.number != before and not _came.held:
        check()


def check() -> None:
    """Raises Interrupted, if need be again, once a signal came: an error of a release may have taken its place."""
    if _came.number is not None:
        raise Interrupted(_came.number)
