"""QEMU by itself: started with open sockets for its doorbell, its console and its monitor, spoken to over QMP.

Source: QEMU, qmp-spec and qemu-qmp-ref; the client is the QEMU project's own, qemu.qmp.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from harness import pace
from harness.command import find
from harness.errors import EngineError
from harness.ledger import Ledger
from harness.process import Child, spawn

MONITOR_TIMEOUT, MONITOR_FACTOR = 60.0, 1500
"""Floor in seconds and factor of pace.deadline, for a response of QEMU and for saving its memory."""
SANDBOX = ("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny")
"""As libvirt has it."""


class Inherited:
    """Sockets and files that QEMU inherits open, by their numbers, until they are handed over."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._theirs: list[socket.socket | IO[bytes]] = []

    @property
    def numbers(self) -> list[int]:
        return [each.fileno() for each in self._theirs]

    def pair(self) -> tuple[socket.socket, str]:
        """Our end of a connection, and the number of QEMU's."""
        ours, theirs = map(self._stack.enter_context, socket.socketpair())
        self._theirs.append(theirs)
        return ours, str(theirs.fileno())

    def file(self, path: Path) -> str:
        """The number of a file that QEMU reads."""
        file = self._stack.enter_context(path.open("rb", buffering=0))
        self._theirs.append(file)
        return str(file.fileno())

    def lend(self, file: IO[bytes]) -> str:
        """The number of an open file that stays ours too."""
        copy = self._stack.enter_context(os.fdopen(os.dup(file.fileno()), "r+b", buffering=0))
        self._theirs.append(copy)
        return str(copy.fileno())

    def close(self) -> None:
        """They are QEMU's alone from now on."""
        for each in self._theirs:
            each.close()


def words(emulator: str, arguments: Sequence[str]) -> list[str]:
    """QEMU's whole command line; it ends with us, however we end."""
    return [find("setpriv", "util-linux"), "--pdeathsig", "KILL", emulator, *SANDBOX, *arguments]


def monitor(number: str) -> list[str]:
    """Arguments that have QEMU listen for QMP on an open socket of that number."""
    return ["-chardev", f"socket,id=qmp,fd={number}", "-mon", "chardev=qmp,mode=control"]


@contextmanager
def started(ledger: Ledger, name: str, argv: Sequence[str], inherited: Inherited, log: Path) -> Iterator[Child]:
    """QEMU as a child of ours, which alone has what it inherits from then on. argv: from `words`."""
    environment = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"}
    with spawn(ledger, name, argv, log, environment, inherited.numbers) as child:
        inherited.close()
        yield child


class Monitor:
    """A QMP session over a connected socket. Raises EngineError for what QEMU refuses."""

    def __init__(self, connection: socket.socket) -> None:
        from qemu.qmp.legacy import QEMUMonitorProtocol

        self._qmp = QEMUMonitorProtocol(connection)
        self._timeout = pace.deadline(MONITOR_TIMEOUT, MONITOR_FACTOR)
        self._qmp.settimeout(self._timeout)
        try:
            self._ask(self._qmp.connect)
        except BaseException:
            self.close()
            raise

    def command(self, name: str, **arguments: Any) -> Any:
        return self._ask(lambda: self._qmp.cmd(name, **arguments))

    def save(self, memory: Path) -> None:
        """Writes the running machine's state to a new file, and returns when it is whole; the machine then stands."""
        capability = [{"capability": "events", "state": True}]
        self.command("migrate-set-capabilities", capabilities=capability)
        with memory.open("wb") as file:
            self._ask(lambda: self._qmp.send_fd_scm(file.fileno()))
            self.command("getfd", fdname="memory")
        self.command("migrate", uri="fd:memory")
        while True:
            event = self._ask(lambda: self._qmp.pull_event(wait=self._timeout))
            if event is None:
                raise EngineError(f"QEMU has not saved the machine within {self._timeout:g} s")
            status = event["data"].get("status") if event["event"] == "MIGRATION" else None
            if status == "completed":
                return
            if status == "failed":
                raise EngineError("QEMU could not save the machine")

    def close(self) -> None:
        from qemu.qmp import QMPError

        with suppress(QMPError, OSError, EOFError):  # a session that broke: whoever asked was told
            self._qmp.close()

    def _ask(self, question: Callable[[], Any]) -> Any:
        from qemu.qmp import QMPError

        try:
            return question()
        except (QMPError, OSError, TimeoutError) as error:
            raise EngineError(f"QEMU's monitor: {error}") from error
