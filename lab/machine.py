"""The lab's machine (L1): Debian under QEMU's software emulation, with a CPU that has SVM, and a deadline.

All of QEMU's threads are held to one CPU: on two, its emulation of SVM loses a timer's interrupt every few guests, and
L1 sleeps for ever. docs/LAB.md tells why.
"""

from __future__ import annotations

import os
import selectors
import socket
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import IO, Protocol

from harness import pace
from harness.command import find, run
from harness.errors import EngineError, RunError, StartTimeout
from harness.host import LAB
from harness.ledger import Ledger
from harness.process import END_FACTOR, END_TIMEOUT, Child, tail
from harness.vm import qemu
from harness.wording import plain

NAMED = "nested under emulation"
MEMORY = "4G"
ROOM = 2**30
"""Bytes for what comes out."""
COMMAND_LINE = "console=ttyS0 quiet panic=-1 mitigations=off apparmor=0"
"""apparmor=0: Debian's Docker asks for a profile where there is AppArmor, and would have to compile one."""


@dataclass(eq=False)
class Machine:
    """A machine that was started. out: the disk that it writes. hear: receives each line of its console."""

    console: socket.socket
    out: IO[bytes]
    child: Child
    hear: Callable[[str], None]
    rest: bytes = b""
    """What its console wrote after its last whole line."""

    def read(self) -> bool:
        """Hear what the console wrote. Return False if QEMU has closed it."""
        try:
            written = self.console.recv(65536)
        except ConnectionResetError:
            written = b""
        *lines, self.rest = (self.rest + written).split(b"\n")
        for line in lines:
            self.hear(plain(line.decode(errors="replace")).rstrip())
        return bool(written)

    @property
    def has_written(self) -> bool:
        """Whether there is a tar on the disk `out`."""
        return _is_written(self.out)


@contextmanager
def started(
    argued: Sequence[str], ledger: Ledger, folder: Path, hear: Callable[[str], None], cpu: int = -1
) -> Iterator[Machine]:
    """Start a machine. argued: its arguments, see `arguments`. folder: for its log, of this machine alone.

    cpu: an index into the sorted CPUs that this process may use.
    """
    with ExitStack() as stack:
        out = stack.enter_context(tempfile.TemporaryFile())  # it has no name: whoever is killed leaves nothing
        out.truncate(ROOM)
        inherited = qemu.Inherited(stack)
        console, console_fd = inherited.pair()
        argued = [*argued, "-drive", f"file=/proc/self/fd/{inherited.lend(out)},format=raw,if=virtio,cache=unsafe"]
        argued += ["-chardev", f"socket,id=console,fd={console_fd}", "-serial", "chardev:console"]
        log = folder / "qemu.log"
        argv = [find("taskset", "util-linux"), "--cpu-list", str(sorted(os.sched_getaffinity(0))[cpu])]
        argv += qemu.words(emulator(), argued)
        try:
            with qemu.started(ledger, ledger.name(), argv, inherited, log) as child:
                yield Machine(console, out, child, hear)
        finally:
            for line in tail(log).splitlines():
                hear(plain(line))


def wait(machines: Sequence[Machine], deadline: float) -> None:
    """Listen to the machines until all have ended.

    deadline: on the monotonic clock. Raises StartTimeout if one has not ended by then, EngineError if a QEMU fails.
    """
    with selectors.DefaultSelector() as selector:
        for machine in machines:
            selector.register(machine.console, selectors.EVENT_READ, machine)
        while selector.get_map():
            ready = selector.select(max(0.0, deadline - monotonic()))
            if not ready:
                for key in selector.get_map().values():
                    key.data.hear(plain(key.data.rest.decode(errors="replace")))
                raise StartTimeout("the lab's machine has not come to its end in time")
            for key, _ in ready:
                if not key.data.read():
                    selector.unregister(key.fileobj)
    for machine in machines:
        status = machine.child.popen.wait(pace.deadline(END_TIMEOUT, END_FACTOR))
        if status != 0:
            raise EngineError(f"the lab's QEMU ended with status {status}")


@contextmanager
def ran(
    argued: Sequence[str], ledger: Ledger, folder: Path, deadline: float, hear: Callable[[str], None]
) -> Iterator[IO[bytes]]:
    """The machine has run to its end: the disk that it wrote. Arguments and errors: see `started` and `wait`."""
    with started(argued, ledger, folder, hear) as machine:
        wait([machine], deadline)
        yield machine.out


def take_out(disk: IO[bytes], into: Path) -> None:
    """Unpacks the tar that the machine wrote. Raises RunError where it wrote none."""
    if not _is_written(disk):
        raise RunError("the lab's machine has ended and brought nothing out")
    run(["tar", "--extract", "--no-same-owner", "--file", f"/proc/{os.getpid()}/fd/{disk.fileno()}", "-C", into])


def _is_written(disk: IO[bytes]) -> bool:
    return bool(os.pread(disk.fileno(), 1, 0).strip(b"\0"))


def emulator() -> str:
    """Raises Unavailable."""
    return find("qemu-system-x86_64", "qemu-system-x86")


class Bootable(Protocol):
    """A disk with a Linux, and the kernel and initramfs that boot it."""

    @property
    def disk(self) -> Path: ...
    @property
    def kernel(self) -> Path: ...
    @property
    def initramfs(self) -> Path: ...


def arguments(
    system: Bootable,
    carried: Path,
    named: str = NAMED,
    command_line: str = COMMAND_LINE,
    memory: str = MEMORY,
    devices: Sequence[str] = (),
) -> list[str]:
    """Return QEMU's arguments without the connections. named: the mark of the machine's numbers (harness.host.lab)."""
    return [
        *("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-machine", "q35"),
        *("-accel", "tcg,thread=multi", "-cpu", "EPYC,+svm", "-smp", "1", "-m", memory),
        *("-smbios", f"type=1,product={LAB}{named}", "-device", "virtio-rng-pci"),
        *("-kernel", str(system.kernel), "-initrd", str(system.initramfs), "-append", command_line),
        *("-drive", f"file={system.disk},format=raw,if=virtio,snapshot=on"),
        *("-drive", f"file={carried},format=raw,if=virtio,readonly=on"),
        *devices,
    ]
