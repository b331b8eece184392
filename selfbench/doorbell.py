"""How late the doorbell is: from the write(2) of READY to the time that the mark `ready` bears.

The writer is another process, which reads CLOCK_MONOTONIC right before it writes into the FIFO; nothing is subtracted.
So a figure has in it: the write, the kernel's waking of the doorbell's thread, poll's return, and, where a thread of
the harness computes, the wait for Python's lock. The busy thread is as harness.doorbell.timed_window meets it: every
start is in one. A thread that holds the lock in C for longer than a switch interval delays a mark by as much.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from harness.doorbell import Doorbell, timed_window
from harness.errors import Unavailable
from harness.ledger import Ledger
from selfbench.measurement import SEED, Measurement, interleaved

QUESTION = "From the write of READY to the mark `ready`"
ROUNDS = 200
IDLE, BUSY = "idle", "beside a busy thread"
MOST = {IDLE: 0.0001, BUSY: 0.0005}
"""Seconds that were promised, of the median."""
LONG = 10.0

LONGEST_PAUSE = 0.01
"""Seconds that the harness is left alone at most: a CPU that fell idle just now wakes faster, a start takes longer."""

# Told of a FIFO, of the kernel functions that threads of the harness are to sleep in, and of seconds that it computes
# for once they do, as an instance does before it is ready.
WRITER = """
import json, sys, time
for line in sys.stdin:
    fifo, asleep, pause = json.loads(line)
    with open(fifo, "wb", buffering=0) as bell:
        for place, function in asleep:
            while function not in open(place).read():
                pass
        began = time.monotonic()
        while time.monotonic() < began + pause:
            pass
        at = time.monotonic()
        bell.write(b"READY\\n")
    print(repr(at), flush=True)
"""


def measure(rounds: int) -> Sequence[Measurement]:
    """The two medians that were promised, measured in turn."""
    if not Path("/proc/self/wchan").is_file():
        raise Unavailable("the kernel does not tell where a thread sleeps", "a kernel with CONFIG_KALLSYMS")
    with (
        Ledger() as ledger,
        subprocess.Popen(
            [sys.executable, "-I", "-c", WRITER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as writer,
        ExitStack() as stack,
    ):
        stack.callback(writer.kill)
        chance = random.Random(SEED)
        sides = {
            IDLE: lambda: _delay(ledger, writer, chance.uniform(0, LONGEST_PAUSE), busy=False),
            BUSY: lambda: _delay(ledger, writer, chance.uniform(0, LONGEST_PAUSE), busy=True),
        }
        values = interleaved(sides, rounds)
    return [
        Measurement(
            key=f"doorbell.{'busy' if side == BUSY else 'idle'}",
            question=f"{QUESTION}, {side}",
            unit="s",
            ours=side,
            at_most=MOST[side],
            values={side: values[side]},
        )
        for side in sides
    ]


def _delay(ledger: Ledger, writer: subprocess.Popen[str], pause: float, busy: bool) -> float:
    """Seconds from the writer's time before its write to the mark."""
    assert writer.stdin and writer.stdout
    with ledger.holding_folder() as folder, Doorbell(folder) as bell:
        listener = next(thread for thread in threading.enumerate() if thread.name == "doorbell")
        asleep = [(f"/proc/{os.getpid()}/task/{listener.native_id}/wchan", "poll")]
        if not busy:  # then nobody but the listener is awake
            asleep.append((f"/proc/{os.getpid()}/task/{threading.get_native_id()}/wchan", "futex"))
        with timed_window(), _computing() if busy else ExitStack():
            print(json.dumps([str(bell.fifo), asleep, pause]), file=writer.stdin, flush=True)
            bell.wait_ready(LONG)
        written = float(writer.stdout.readline())
        # Without a mark `requested` marks are times of the clock itself.
        return dict(bell.marks())["ready"] - written


@contextmanager
def _computing() -> Iterator[None]:
    """A thread that computes in Python until the end of the block."""
    over = threading.Event()

    def compute() -> None:
        while not over.is_set():
            sum(range(100))

    thread = threading.Thread(target=compute)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
