"""The doorbell: one readiness for every engine, and with campaign.py the only place that reads a clock.

A thread polls the doorbell and the instance's death together and reads CLOCK_MONOTONIC the moment poll(2) returns,
whatever the main thread is doing: Docker's start() answers milliseconds after READY. A guest's clock is never used.

What an instance writes, a line each: `MARK <name>`, `READY`, then `FACTS <json>`. One that was saved and restored
answers a nonce instead: `READY <nonce>`. What a machine's serial console says can be marks too.
"""

from __future__ import annotations

import os
import re
import select
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from harness.decode import Undecodable, decode_json
from harness.errors import ExitedBeforeReady, RunError, StartTimeout

CHUNK = 65536
LONGEST_LINE = 2**20
_NAME = re.compile(r"[a-z0-9][a-z0-9.-]{0,39}")
# Names that only the harness gives.
_OURS = frozenset({"requested", "created", "ready", "start-returned", "settled", "unsettled", "stopping", "gone"})

Mark = Callable[[str], None]


@contextmanager
def timed_window() -> Iterator[None]:
    """Lets the doorbell's thread note an event within 0.3 ms beside a busy thread, instead of within 5 ms."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(0.0001)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


class _Console:
    """What a serial console says, kept in a file. Each phase is told once."""

    def __init__(self, phases: dict[bytes, str], log: Path) -> None:
        self._phases = phases
        self._log = log.open("ab", buffering=0)  # once: chunks come a character at a time, while a start is timed
        self._line = b""

    def hear(self, chunk: bytes) -> list[str]:
        """The phases whose lines have come with this chunk."""
        self._log.write(chunk)
        *lines, self._line = (self._line + chunk).split(b"\n")
        self._line = self._line[:LONGEST_LINE]
        begun = [phrase for line in (*lines, self._line) for phrase in self._phases if phrase in line]
        return [self._phases.pop(phrase) for phrase in dict.fromkeys(begun)]

    def close(self) -> None:
        self._log.close()


class Doorbell:
    """One instance's doorbell and clock. Use it as a context manager; the thread listens from then on.

    fifo: where an instance that shares the host's kernel rings; bind-mounted at /run/doorbell by the engine.
    """

    def __init__(self, folder: Path) -> None:
        self.fifo = folder / "doorbell"
        self._marks: list[tuple[str, float]] = []
        self._facts: dict[str, Any] | None = None
        self._broken: str | None = None
        self._ready = self._dead = False
        self._to_read: list[Callable[[], Mapping[Any, Any]]] = []
        self._read_at_ready: dict[Any, Any] = {}
        self._unread: Exception | None = None
        self._changed = threading.Condition()
        self._poll = select.poll()
        self._bells: dict[int, bytes] = {}
        self._nonces: dict[int, str] = {}
        self._consoles: dict[int, _Console] = {}
        self._owned: list[int] = []
        self._thread = threading.Thread(target=self._listen, name="doorbell", daemon=True)
        self._closing = False

    def __enter__(self) -> Self:
        os.mkfifo(self.fifo)
        # The instance may run as any uid, whatever the umask of the one who measures.
        self.fifo.chmod(0o666)
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._poll.register(self._wake, select.POLLIN)
        self.ring_from(self.fifo)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing = True
        os.eventfd_write(self._wake, 1)
        if self._thread.ident is not None:
            self._thread.join()
        for fd in (*self._owned, self._wake):
            os.close(fd)
        for console in self._consoles.values():
            console.close()

    def ring_from(self, fifo: Path) -> None:
        """Listens to a FIFO. It is opened for reading and writing, so that a writer's end is no hang-up storm."""
        self._own(os.open(fifo, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC))

    def attach(self, fd: int, nonce: str = "") -> None:
        """Listens to a connected socket; its end of file is the instance's death. The caller may close it.

        nonce: what only an instance that runs now can know; without it a READY is not believed.
        """
        # A descriptor of ours: the number of one that was closed is the next file's that anybody opens.
        self._own(os.dup(fd), nonce)

    def overhear(self, fd: int, phases: Mapping[str, str], log: Path) -> None:
        """Listens to a machine's serial console, a connected socket, and keeps what it says in `log`.

        phases: what is in a line, and the mark that is noted when it has come.
        """
        mine = os.dup(fd)
        self._owned.append(mine)
        self._consoles[mine] = _Console({phrase.encode(): name for phrase, name in phases.items()}, log)
        self._poll.register(mine, select.POLLIN)
        os.eventfd_write(self._wake, 1)

    def _own(self, fd: int, nonce: str = "") -> None:
        self._owned.append(fd)
        self._bells[fd], self._nonces[fd] = b"", nonce
        self._poll.register(fd, select.POLLIN)
        os.eventfd_write(self._wake, 1)

    def watch(self, fd: int) -> None:
        """Takes a descriptor (a pidfd, a socket) that becomes readable when the instance is dead."""
        self._poll.register(fd, select.POLLIN)
        os.eventfd_write(self._wake, 1)

    def at_ready(self, read: Callable[[], Mapping[Any, Any]]) -> None:
        """Has this called the moment READY is noted, or now if it was: what then runs in an instance is not its start.

        `readings` gives what was told. Of two that tell of the same key, the earlier counts.
        """
        with self._changed:
            if self._ready:
                self._read_now(read)
            else:
                self._to_read.append(read)

    def readings(self) -> dict[Any, Any]:
        """What was read at READY. Raises RunError where it could not be."""
        if self._unread is not None:
            raise RunError(f"what was to be read at READY could not be: {self._unread}") from self._unread
        return self._read_at_ready

    def now(self) -> float:
        """Seconds on the clock that marks are noted by, from an unknown start."""
        return time.monotonic()

    def mark(self, name: str) -> None:
        """Notes now under that name."""
        self._note(name, time.monotonic())

    def marks(self) -> list[tuple[str, float]]:
        """(name, seconds since requested), in the order of time."""
        with self._changed:
            marks = sorted(self._marks, key=lambda mark: mark[1])
        start = next((at for name, at in marks if name == "requested"), 0.0)
        return [(name, at - start) for name, at in marks]

    def wait_ready(self, timeout: float) -> None:
        """Blocks until READY, at most `timeout` seconds after `requested`.

        Raises StartTimeout, or ExitedBeforeReady with an unknown status.
        """
        requested = next((at for name, at in self._marks if name == "requested"), time.monotonic())
        with self._changed:
            self._changed.wait_for(lambda: self._ready or self._dead, max(0.0, requested + timeout - time.monotonic()))
            if self._ready:
                return
            if self._dead:
                raise ExitedBeforeReady(None)
            raise StartTimeout(f"no READY within {timeout:g} s")

    def wait_facts(self, timeout: float) -> dict[str, Any]:
        """Blocks until FACTS. timeout in seconds. Raises RunError where none come, or where they are not JSON."""
        with self._changed:
            self._changed.wait_for(lambda: self._facts is not None or self._dead or self._broken, timeout)
            if self._facts is not None:
                return self._facts
            if self._broken:
                raise RunError(self._broken)
            raise RunError("the instance ended after READY" if self._dead else f"no FACTS within {timeout:g} s")

    def wait_dead(self, timeout: float) -> bool:
        """Whether the instance dies within timeout seconds, or did before."""
        with self._changed:
            return self._changed.wait_for(lambda: self._dead, timeout)

    def _note(self, name: str, at: float) -> None:
        with self._changed:
            self._marks.append((name, at))

    def _listen(self) -> None:
        # Asked after each reading of the eventfd: one reading takes all that was written to it, the last call too.
        while not self._closing:
            events = self._poll.poll()
            now = time.monotonic()
            # Bells before deaths: what an instance wrote last came before its end.
            for fd, _ in sorted(events, key=lambda event: event[0] not in self._bells):
                if fd == self._wake:
                    os.eventfd_read(fd)
                elif fd in self._bells:
                    self._read(fd, now)
                elif fd in self._consoles:
                    self._listen_in(fd, now)
                else:
                    self._died(fd)

    def _read(self, fd: int, now: float) -> None:
        try:
            chunk = os.read(fd, CHUNK)
        except BlockingIOError:
            return
        except ConnectionError:
            chunk = b""
        if not chunk:
            self._died(fd)
            return
        *lines, rest = (self._bells[fd] + chunk).split(b"\n")
        self._bells[fd] = rest[:LONGEST_LINE]
        for line in lines:
            self._take(line.decode(errors="replace").strip(), now, self._nonces[fd])

    def _listen_in(self, fd: int, now: float) -> None:
        """A console that is closed is no death: the doorbell tells of that."""
        try:
            chunk = os.read(fd, CHUNK)
        except ConnectionError:
            chunk = b""
        if not chunk:
            self._poll.unregister(fd)
            return
        for name in self._consoles[fd].hear(chunk):
            self._note(name, now)

    def _take(self, line: str, now: float, nonce: str) -> None:
        word, _, rest = line.partition(" ")
        with self._changed:
            if word == "READY" and rest == nonce and not self._ready:
                self._ready = True
                self._marks.append(("ready", now))
                for read in self._to_read:
                    self._read_now(read)
            elif word == "MARK" and _NAME.fullmatch(rest) and rest not in _OURS:
                self._marks.append((rest, now))
            elif word == "FACTS":
                self._take_facts(rest)
            self._changed.notify_all()

    def _read_now(self, read: Callable[[], Mapping[Any, Any]]) -> None:
        try:
            self._read_at_ready = {**read(), **self._read_at_ready}
        except Exception as error:  # of whatever kind, it must not end the thread that listens
            self._unread = error

    def _take_facts(self, text: str) -> None:
        # Strict and bounded in depth, since FACTS are written into a result file.
        try:
            facts = decode_json(text)
        except Undecodable as error:
            self._broken = f"FACTS are not JSON that can be recorded: {error}"
            return
        if isinstance(facts, dict):
            self._facts = facts
        else:
            self._broken = "FACTS are no JSON object"

    def _died(self, fd: int) -> None:
        self._poll.unregister(fd)
        self._bells.pop(fd, None)
        with self._changed:
            self._dead = True
            self._changed.notify_all()
