"""Standard output and standard error: neither a reader that is gone nor a full disk may look like a regression.

A message that cannot be written to stderr is dropped. If the reader of stdout is gone, as after `| head`, the command
ends like a program that SIGPIPE kills: with 128 + 13, and without a message. Python ignores SIGPIPE; click and rich
would end with 1, the exit code of a regression.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO, cast

from harness.errors import BadInput

CLOSED = 128 + signal.SIGPIPE
"""Exit code if the reader of stdout is gone."""


class OutputClosed(Exception):
    """The reader of stdout is gone."""


@contextmanager
def guard() -> Iterator[None]:
    """Let writes to stderr fail silently inside the block, and those to stdout raise OutputClosed or BadInput."""
    _open_missing()
    before = sys.stdout, sys.stderr
    sys.stdout = cast(TextIO, _Guarded(sys.stdout, _refuse))
    sys.stderr = cast(TextIO, _Guarded(sys.stderr, lambda error: None))
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


class _Guarded:
    """A text stream that discards its output after the first error, which `handle` receives.

    It has no attribute `buffer`, because click would write to that.
    """

    def __init__(self, stream: TextIO, handle: Callable[[OSError], None]) -> None:
        self._stream = stream
        self._handle = handle

    def write(self, text: str) -> int:
        try:
            self._stream.write(text)
        except OSError as error:
            self._fail(error)
        return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as error:
            self._fail(error)

    def __getattr__(self, name: str) -> object:
        if name == "buffer":
            raise AttributeError(name)
        return getattr(self._stream, name)

    def _fail(self, error: OSError) -> None:
        """Redirect the stream to /dev/null: it may still hold text, which Python writes when it exits."""
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, self._stream.fileno())
        os.close(null)
        self._handle(error)


def _refuse(error: OSError) -> None:
    if isinstance(error, BrokenPipeError):
        raise OutputClosed from error
    raise BadInput(f"cannot write to standard output: {error.strerror}") from error


def _open_missing() -> None:
    """Open /dev/null as each standard stream that is closed (`>&-`): a file of ours would take its number."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this one
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_WRONLY), "w", encoding="utf-8"))
