"""memory: what the meter adds to the kernel's own sums of a process, and what smem(8) takes for the same processes.

The floor is open(2) and read(2) of /proc/PID/smaps_rollup, one process after another, in Python, and nothing is made of
what was read. What is more in ours is that the text is split into kinds and summed up. It is measured twice: of
processes of CPython, for which the kernel has many pages to count, and of the smallest, for which it has next to none.

smem reads /proc/PID/smaps, mapping by mapping, and its time is that of the command as users start it: most of that is
its start. It is asked for the same processes, by a word in their arguments.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial

from harness.command import find, run
from harness.errors import WeighbridgeError
from harness.meters import memory
from selfbench.measurement import Measurement, interleaved

QUESTION = "How long does it take to read the memory of ten processes"
ROUNDS = 100
SMEM_ROUNDS = 20
MOST = 2.0
FASTER = 20.0
COUNT = 10
OURS, FLOOR, SMEM = "the meter", "smaps_rollup", "smem"
WORD = "weighbridge-selfbench-memory"
PYTHON = (sys.executable, "-I", "-c", "import http.server, sys; print(flush=True); sys.stdin.read()", WORD)


def measure(rounds: int) -> Sequence[Measurement]:
    smem, cat = find("smem", "smem"), find("cat", "coreutils")
    with processes(PYTHON, ready=True) as pids:
        large = interleaved(sides(pids, FLOOR, bare), rounds)
        beside_smem = interleaved(sides(pids, SMEM, partial(by_smem, smem)), min(rounds, SMEM_ROUNDS))
    with processes((cat,), ready=False) as pids:
        small = interleaved(sides(pids, FLOOR, bare), rounds)
    return [
        _measurement("large", f"{QUESTION} of CPython, beside reading smaps_rollup?", FLOOR, MOST, large),
        _measurement("small", f"{QUESTION} of cat(1), beside reading smaps_rollup?", FLOOR, MOST, small),
        _measurement("smem", f"{QUESTION} of CPython, beside smem?", SMEM, 1 / FASTER, beside_smem),
    ]


def sides(pids: Sequence[int], floor: str, read: Callable[[Sequence[int]], object]) -> dict[str, Callable[[], float]]:
    return {OURS: partial(timed, memory.processes, pids), floor: partial(timed, read, pids)}


def _measurement(key: str, question: str, floor: str, at_most: float, values: dict[str, list[float]]) -> Measurement:
    return Measurement(
        key=f"memory.{key}", question=question, unit="s", ours=OURS, floor=floor, at_most=at_most, values=values
    )


@contextmanager
def processes(argv: Sequence[str], ready: bool) -> Iterator[list[int]]:
    """The pids of COUNT processes that wait on their standard input. ready: each prints a line when it does."""
    with ExitStack() as stack:
        started = []
        for _ in range(COUNT):
            process = stack.enter_context(subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE))
            stack.callback(process.kill)
            started.append(process)
        for process in started if ready else ():
            assert process.stdout
            if not process.stdout.readline():
                raise WeighbridgeError(f"{argv[0]} ended before it was ready")
        yield [process.pid for process in started]


def timed(read: Callable[[Sequence[int]], object], pids: Sequence[int]) -> float:
    """Seconds that one reading takes."""
    began = time.perf_counter()
    read(pids)
    return time.perf_counter() - began


def bare(pids: Sequence[int]) -> None:
    for pid in pids:
        with open(f"/proc/{pid}/smaps_rollup", "rb") as file:  # noqa: PTH123 as the meter opens it
            file.read()


def by_smem(smem: str, pids: Sequence[int]) -> None:
    """Raises WeighbridgeError where smem does not tell of all of them."""
    told = run([smem, "--no-header", "--columns", "pid rss pss uss", "--processfilter", WORD])
    if missing := set(map(str, pids)) - {line.split()[0] for line in told.splitlines()}:
        raise WeighbridgeError(f"smem leaves out {', '.join(sorted(missing))}")
