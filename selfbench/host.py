"""host: what the harness itself adds to a start. The zero line beside the bare calls that start the same program.

The floor is posix_spawn(3) of the very argv and environment that `host` starts (the shell that joins the control group,
chroot(8), /init), on ground renewed in the same way, and poll(2) of the same doorbell until READY is read. What is more
in ours is the harness: an entry in the ledger, a log, a session of the instance's own, a pidfd, and that another
thread is woken to note the time.
"""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from harness import backends, bundle, pace, workloads
from harness import measure as measuring
from harness.backends import DOORBELL, environment
from harness.backends.host import Host, HostImage
from harness.errors import WeighbridgeError
from harness.ledger import Ledger
from harness.measure import Cell
from harness.model import Plan
from harness.process import NAME_VARIABLE, end_processes
from selfbench.measurement import Measurement, interleaved

QUESTION = "How long does `host` take to be ready, beside a bare posix_spawn and poll of the same argv?"
ROUNDS = 60
AT_MOST = 1.10
OURS, FLOOR = "host", "posix_spawn"
TIMEOUT = pace.deadline(30.0, 750)
"""Seconds to READY."""


def measure(rounds: int) -> Sequence[Measurement]:
    with Ledger() as ledger, cell("host", ledger) as host:
        values = interleaved({OURS: lambda: started(host, ledger), FLOOR: lambda: bare(host, ledger)}, rounds)
    return [
        Measurement(
            key="host.start",
            question=QUESTION,
            unit="s",
            ours=OURS,
            floor=FLOOR,
            at_most=AT_MOST,
            values=values,
        )
    ]


@contextmanager
def cell(target: str, ledger: Ledger) -> Iterator[Cell]:
    """A target with the workload `hello`, prepared. Raises Unavailable where it cannot run."""
    with closing(backends.create(target, ledger, Plan())) as backend:
        backend.probe()
        with backend.prepare(bundle.build(workloads.load("hello")), Plan().limits) as image:
            yield Cell(target, "hello", backend, image)


def started(cell: Cell, ledger: Ledger) -> float:
    """startup.total in seconds, of a run like any of a campaign. Raises WeighbridgeError where it fails."""
    run = measuring.measure(cell, ledger, TIMEOUT, 0, 0, "measured", lambda phase: None)
    if run.error is not None:
        raise WeighbridgeError(f"{cell.target} failed while {run.error.phase}: {run.error.message}")
    return dict(run.marks)["ready"]


def bare(cell: Cell, ledger: Ledger) -> float:
    """Seconds to READY of what `host` starts, from posix_spawn of it."""
    assert isinstance(cell.backend, Host)
    assert isinstance(cell.image, HostImage)
    cell.backend.refresh(cell.image)
    requested, ready = spawned(ledger, cell.backend.argv(cell.image.ground), cell.image.ground.fifo)
    return ready - requested


def spawned(ledger: Ledger, argv: list[str], fifo: Path, output: Path | None = None) -> tuple[float, float]:
    """Starts argv by posix_spawn, and ends it when it is ready: both times, as time.monotonic() has them.

    output: the file that its standard output goes to, if not to ours. Raises WeighbridgeError without READY.
    """
    name = ledger.name()
    told = {**environment(DOORBELL), NAME_VARIABLE: name}
    actions = [(os.POSIX_SPAWN_OPEN, 1, str(output), os.O_WRONLY | os.O_CREAT, 0o600)] if output else []
    with listening(fifo) as bell, ledger.holding(end_processes, name=name):
        requested = time.monotonic()
        pid = os.posix_spawn(argv[0], argv, told, file_actions=actions, setsid=True)
        try:
            return requested, heard_ready(bell)
        finally:
            os.killpg(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


@contextmanager
def listening(fifo: Path) -> Iterator[int]:
    """The doorbell, opened for reading and writing: poll(2) then waits for a writer too."""
    bell = os.open(fifo, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        yield bell
    finally:
        os.close(bell)


def heard_ready(bell: int) -> float:
    """When READY was read, as time.monotonic() has it."""
    poll = select.poll()
    poll.register(bell, select.POLLIN)
    heard = b""
    while b"READY\n" not in heard:
        if not poll.poll(TIMEOUT * 1000):
            raise WeighbridgeError(f"no READY within {TIMEOUT:g} s")
        heard += os.read(bell, 4096)
    return time.monotonic()
