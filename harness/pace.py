"""Deadlines that suit this machine: multiples of a time measured on it, never less than a floor.

A fixed number of seconds is too short on a slow machine (an emulated or overcommitted one, a cold disk) and a campaign
then loses a target that works. The time measured is that of starting a Python interpreter, because every deadline
limits the start or the end of a process.
"""

from __future__ import annotations

import select
import subprocess
import sys
import threading
import time
from collections.abc import Sequence

PROGRAM = (sys.executable, "-I", "-S", "-c", "")
STARTS = 3
"""Starts of PROGRAM in one measurement, which takes 0.05 to 0.2 s on ordinary machines."""

_lock = threading.Lock()
_slowest: float | None = None


def deadline(floor: float, factor: float) -> float:
    """Return a deadline in seconds: `factor` times the start of an interpreter, and at least `floor`.

    The floor serves ordinary machines; the warm page cache that makes a start look cheap cannot shorten it. A factor
    of 25 for each second of the floor gives more time to machines on which a start takes more than 40 ms.

    The first call of a process measures (see `measure`): make it before anything is timed.
    """
    return max(floor, factor * unit())


def unit() -> float:
    """Return the start-up time of an interpreter in seconds: the slowest measurement of this process so far."""
    return measure() if _slowest is None else _slowest


def measure() -> float:
    """Measure the start of an interpreter again and return the slowest measurement so far, in seconds.

    A measurement is the median of STARTS starts. The slowest one counts, so one from a quiet moment shortens no
    deadline of a busy one.
    """
    global _slowest
    found = sorted(_start() for _ in range(STARTS))[STARTS // 2]
    with _lock:
        _slowest = max(found, _slowest or 0.0)
        return _slowest


def wait_readable(descriptors: Sequence[int], floor: float, factor: float) -> list[int]:
    """Wait until a descriptor is readable and return those that are; an empty list after `deadline(floor, factor)`.

    The machine is measured only after the floor has passed, so waits that end in time cost nothing, and the
    measurement shows the machine as it is when it is slow.
    """
    readable = select.select(descriptors, [], [], floor)[0]
    if not readable:
        measure()
        readable = select.select(descriptors, [], [], deadline(floor, factor) - floor)[0]
    return readable


def _start() -> float:
    began = time.monotonic()
    subprocess.run(PROGRAM, stdin=subprocess.DEVNULL, start_new_session=True, check=True)  # Ctrl-C must not reach it
    return time.monotonic() - began
