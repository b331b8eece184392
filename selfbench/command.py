"""command: the CPU time of `weighbridge --help`, and the time from a campaign's last launch to its table.

Both are promises to a user, so no floor is measured: the figures themselves are held to the limits. The first round,
which is not kept, warms the page cache.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence

from harness.errors import Unavailable, WeighbridgeError
from selfbench.measurement import Measurement, interleaved

HELP, TABLE = "weighbridge --help", "last launch to table"
QUESTION = "How much CPU time does `weighbridge --help` take?"
ROUNDS = 12
HELP_AT_MOST, TABLE_AT_MOST = 0.3, 2.0
WEIGHBRIDGE = (sys.executable, "-P", "-m", "harness")
RUN = ("run", "--targets", "host,namespace", "--workloads", "hello", "--rounds", "1", "--progress", "lines")


def measure(rounds: int) -> Sequence[Measurement]:
    values = interleaved({HELP: help_cpu, TABLE: table_delay}, rounds)
    return [
        Measurement(
            key="command.help",
            question=QUESTION,
            unit="s",
            ours=HELP,
            at_most=HELP_AT_MOST,
            values={HELP: values[HELP]},
        ),
        Measurement(
            key="command.table",
            question="How long after the last launch is the table there?",
            unit="s",
            ours=TABLE,
            at_most=TABLE_AT_MOST,
            values={TABLE: values[TABLE]},
            note="From the line that reports the last launch to the first byte of the table, engines released between.",
        ),
    ]


def help_cpu() -> float:
    """Return the user and system CPU time of `weighbridge --help`, in seconds."""
    child = os.posix_spawn(
        sys.executable,
        [*WEIGHBRIDGE, "--help"],
        os.environ,
        file_actions=[(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)],
    )
    _, status, used = os.wait4(child, 0)
    if status:
        raise WeighbridgeError(f"weighbridge --help ended with status {os.waitstatus_to_exitcode(status)}")
    return used.ru_utime + used.ru_stime


def table_delay() -> float:
    """Return the seconds from the end of the last launch of a campaign to the first byte of its table."""
    with (
        tempfile.TemporaryDirectory() as folder,
        subprocess.Popen(
            [*WEIGHBRIDGE, *RUN, "-o", f"{folder}/r.jsonl"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as run,
    ):
        assert run.stdout is not None and run.stderr is not None
        last, printed = 0.0, ""
        while not last and (line := run.stderr.readline()):
            printed += line
            if line.startswith("4/4 "):
                last = time.monotonic()
        begun = run.stdout.read(1)
        delay = time.monotonic() - last
        printed += run.communicate()[1]
    if run.returncode == 3:
        raise Unavailable("host and namespace cannot be measured here", "see `weighbridge doctor`")
    if run.returncode or not begun:
        raise WeighbridgeError(f"weighbridge run ended with {run.returncode}: {printed}")
    return delay
