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
from contextlib import contextmanager
from pathlib import Path

from harness import backends, bundle, workloads
from harness.backends import DOORBELL, environment
from harness.backends.host import Host, HostImage
from harness.errors import WeighbridgeError
from harness.ledger import Ledger
from harness.measure import Cell
from harness.measure import measure as one_run
from harness.model import Plan
from harness.process import NAME_VARIABLE, end_processes
from selfbench.measurement import Measurement, interleaved

QUESTION = "How long does `host` take to be ready, beside a bare posix_spawn and poll of the same argv?"
ROUNDS = 40
AT_MOST = 1.10
TIMEOUT = 30.0
"""Seconds to READY."""


def measure(rounds: int) -> Sequence[Measurement]:
    with Ledger() as ledger, cell("host", ledger) as host:
        values = interleaved(
            {"host": lambda: started(host, ledger), "posix_spawn": lambda: spawned(host, ledger)}, rounds
        )
    return [
        Measurement(
            key="host.start",
            question=QUESTION,
            unit="s",
            ours="host",
            floor="posix_spawn",
            at_most=AT_MOST,
            values=values,
        )
    ]


@contextmanager
def cell(target: str, ledger: Ledger) -> Iterator[Cell]:
    """A target with the workload `hello`, prepared. Raises Unavailable where it cannot run."""
    backend = backends.create(target, ledger, Plan())
    backend.probe()
    with backend.prepare(bundle.build(workloads.load("hello")), Plan().limits) as image:
        yield Cell(target, "hello", backend, image)


def started(cell: Cell, ledger: Ledger) -> float:
    """startup.total in seconds, as a campaign records it. Raises WeighbridgeError where the run fails."""
    run = one_run(cell, ledger, TIMEOUT, 0, 0, "measured", lambda phase: None)
    if run.error is not None:
        raise WeighbridgeError(f"{cell.target} failed while {run.error.phase}: {run.error.message}")
    return dict(run.marks)["ready"]


def spawned(cell: Cell, ledger: Ledger) -> float:
    """Seconds from posix_spawn to READY of what `host` starts."""
    assert isinstance(cell.backend, Host)
    assert isinstance(cell.image, HostImage)
    cell.backend.refresh(cell.image)
    name, ground = ledger.name(), cell.image.ground
    argv = cell.backend.argv(ground)
    told = {**environment(DOORBELL), NAME_VARIABLE: name}
    with ledger.holding(end_processes, name=name), open_fifo(ground.fifo) as bell:
        requested = time.monotonic()
        pid = os.posix_spawn(argv[0], argv, told)
        heard_by = heard(bell, b"READY\n")
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    return heard_by - requested


@contextmanager
def open_fifo(path: Path) -> Iterator[int]:
    """Opened for reading and writing, so that poll(2) waits for a first writer."""
    fd = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def heard(bell: int, line: bytes) -> float:
    """When that line was read, on the clock of time.monotonic(). Raises WeighbridgeError where it does not come."""
    poll = select.poll()
    poll.register(bell, select.POLLIN)
    told = b""
    while line not in told:
        if not poll.poll(TIMEOUT * 1000):
            raise WeighbridgeError(f"no {line.decode().strip()} within {TIMEOUT:g} s")
        told += os.read(bell, 4096)
    return time.monotonic()
