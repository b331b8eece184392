"""Child processes: spawned with a name in their environment by which they, and all that they start, can be found."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from harness import pace
from harness.errors import EngineError

if TYPE_CHECKING:
    from harness.ledger import Ledger

NAME_VARIABLE = "WEIGHBRIDGE_INSTANCE"
END_TIMEOUT, END_FACTOR = 10.0, 250
"""Floor in seconds and factor of pace.deadline, for the end of a killed process."""
LOG_TAIL = 4096


@dataclass(frozen=True)
class Child:
    """A running child. pidfd becomes readable when it is dead; log holds what it printed."""

    popen: subprocess.Popen[bytes]
    pidfd: int
    log: Path

    @property
    def pid(self) -> int:
        return self.popen.pid

    def status(self) -> int | None:
        """Its exit status, negative for a signal; None while it runs."""
        return self.popen.poll()


@contextmanager
def spawn(
    ledger: Ledger,
    name: str,
    argv: Sequence[str | Path],
    log: Path,
    environment: dict[str, str] | None = None,
    inherited: Sequence[int] = (),
) -> Iterator[Child]:
    """Starts argv by vfork, in a session of its own, and ends it with everything that it started.

    environment: all that it gets (its name is added). inherited: descriptors that stay open in it.
    Raises EngineError where argv cannot be started.
    """
    env = {**(environment or {}), NAME_VARIABLE: name}
    with ledger.holding(end_processes, name=name), log.open("ab") as output:
        try:
            popen = subprocess.Popen(
                argv,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                pass_fds=inherited,
            )
        except OSError as error:
            raise EngineError(f"cannot start {argv[0]}: {error.strerror}") from error
        with popen:
            pidfd = os.pidfd_open(popen.pid)
            try:
                yield Child(popen, pidfd, log)
            finally:
                popen.kill()
                popen.wait()
                os.close(pidfd)


def named(name: str) -> list[int]:
    """The pids of all processes that carry this name in their environment."""
    variable = f"{NAME_VARIABLE}={name}".encode()
    return [pid for pid in psutil.pids() if variable in told(pid, "environ")]


def told(pid: int, file: str) -> list[bytes]:
    """What /proc/PID/environ or /proc/PID/cmdline holds; nothing of a process that has ended or is somebody else's."""
    try:
        return Path(f"/proc/{pid}/{file}").read_bytes().split(b"\0")
    except OSError:
        return []


def rooted(root: Path) -> list[int]:
    """The pids of all processes whose root directory this is."""
    return [pid for pid in psutil.pids() if _link(pid, "root") == str(root)]


def sharing_mounts(pid: int) -> list[int]:
    """The pids of all processes in the mount namespace of this one, itself among them; none where it is ours too."""
    theirs = _link(pid, "ns/mnt")
    if theirs in (None, _link(os.getpid(), "ns/mnt")):
        return []
    return [other for other in psutil.pids() if _link(other, "ns/mnt") == theirs]


def _link(pid: int, name: str) -> str | None:
    try:
        return str(Path(f"/proc/{pid}/{name}").readlink())
    except OSError:  # ended meanwhile, or somebody else's
        return None


def end_processes(name: str) -> None:
    """Ends every process of that name and returns when they are gone. Raises EngineError where one does not die."""
    end_all(lambda: named(name))


def end_all(find: Callable[[], list[int]]) -> None:
    """Ends the processes that `find` finds until it finds none. Raises EngineError where one does not die."""
    while pids := find():
        for pid in pids:
            _end(pid, find)


def _end(pid: int, find: Callable[[], list[int]]) -> None:
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        # Asked again: between the search and the opening the pid could have been given to somebody else.
        if pid in find():
            kill(pidfd)
    finally:
        os.close(pidfd)


def kill(pidfd: int) -> None:
    """Ends the process and returns when it is dead. Raises EngineError where it does not die."""
    try:
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    except ProcessLookupError:
        return
    wait_for_end(pidfd, "a process that was killed")


def wait_for_end(pidfd: int, subject: str) -> None:
    """Wait until a signalled process has ended. Raises EngineError; subject: the process's name in the message."""
    if not pace.wait_readable([pidfd], END_TIMEOUT, END_FACTOR):
        raise EngineError(f"{subject} has not ended after {pace.deadline(END_TIMEOUT, END_FACTOR):g} s")


def tail(log: Path, size: int = LOG_TAIL) -> str:
    """The last `size` bytes of a log as text; empty where there is none."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - size))
            return file.read().decode(errors="replace").strip()
    except FileNotFoundError:
        return ""


def parents(pids: Sequence[int]) -> dict[int, int]:
    """{pid: its parent} of those that have not ended meanwhile."""
    found = {}
    for pid in pids:
        with suppress(psutil.NoSuchProcess):
            found[pid] = psutil.Process(pid).ppid()
    return found


def process_tree(pid: int) -> list[int]:
    """Return a process and its descendants; an empty list where it has ended."""
    try:
        return [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]
    except psutil.NoSuchProcess:
        return []


def outermost(pids: Sequence[int]) -> tuple[int, int]:
    """A container's first process, and its parent outside, the shim. Raises ProcessLookupError where it has ended.

    The lowest pid will not do: it is a later process's once the kernel has used up all and begins anew.
    """
    for pid, parent in parents(pids).items():
        if parent not in pids:
            return pid, parent
    raise ProcessLookupError
