"""A stage of its own on which `weighbridge` is started as a user starts it, and asked what it has left."""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from harness import bundle, pace, workloads
from harness.errors import Unavailable
from harness.places import cache
from harness.store import Result, read
from harness.vm import guest
from tests.ground import REPOSITORY
from tests.inventory import Inventory, Stage, adopting_orphans, descendants, take

TIMEOUT = pace.deadline(120.0, 3000)
"""Seconds for whatever is waited for; what hangs fails."""
PROGRAM = (sys.executable, "-c", "from harness.cli import main; main()")


class Program:
    """A weighbridge that runs, in a process group of its own as a shell starts it."""

    def __init__(self, popen: subprocess.Popen[bytes], output: Path) -> None:
        self.popen = popen
        self.output = output
        self.said = ""
        self._pidfd = os.pidfd_open(popen.pid)
        assert popen.stderr is not None
        self._stderr = popen.stderr.fileno()

    def until(self, phase: str, count: int = 1) -> None:
        """Returns the moment that the program tells of this phase for the count-th time."""
        deadline = time.monotonic() + TIMEOUT
        while [event["phase"] for event in self._events()].count(phase) < count:
            assert self._hear(deadline), f"ended with {self.popen.wait()} before {phase}: {self.said}"

    def end(self) -> int:
        """Waits for its end and returns its exit code."""
        deadline = time.monotonic() + TIMEOUT
        while self._hear(deadline):
            pass
        return self.popen.wait()

    def interrupt(self, number: signal.Signals) -> None:
        """As a terminal does it: to the whole process group."""
        os.killpg(self.popen.pid, number)

    def result(self) -> Result:
        return read(self.output)

    def close(self) -> None:
        self.popen.kill()
        self.popen.wait()
        os.close(self._pidfd)

    def _events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.said.split("\n")[:-1] if line.startswith("{")]

    def _hear(self, deadline: float) -> bool:
        """Reads what it says; False when it has ended. What it left behind may hold its stderr open: no waiting."""
        heard = select.select([self._stderr, self._pidfd], [], [], max(0.0, deadline - time.monotonic()))[0]
        assert heard, f"hangs for {TIMEOUT:g} s: {self.said}"
        if self._stderr in heard and (chunk := os.read(self._stderr, 65536)):
            self.said += chunk.decode()
            return True
        return self._pidfd not in heard


@dataclass(frozen=True)
class Site:
    """A stage, and a folder that is seen from there and from here under the same name."""

    stage: Stage
    folder: Path
    environment: dict[str, str]

    @contextmanager
    def start(self, targets: str, *flags: str, program: tuple[str, ...] = PROGRAM) -> Iterator[Program]:
        """Starts `weighbridge run` there; ends it at the end of the block, if it still runs."""
        output = Path(tempfile.mkdtemp(dir=self.folder / "results")) / "result.jsonl"
        options = ["--targets", targets, "--progress", "json", "--budget", "none", "-o", str(output)]
        argv = self.stage.within(*program, "run", *options, *flags)
        with (
            (output.parent / "stdout").open("w") as stdout,
            subprocess.Popen(
                argv, env=self.environment, stdout=stdout, stderr=subprocess.PIPE, process_group=0
            ) as popen,
        ):
            running = Program(popen, output)
            try:
                yield running
            finally:
                running.close()

    def clean(self) -> str:
        """What `weighbridge clean` says; it must succeed."""
        argv = self.stage.within(*PROGRAM, "clean")
        done = subprocess.run(argv, env=self.environment, capture_output=True, text=True, timeout=TIMEOUT, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.strip()

    def take(self) -> Inventory:
        return take(self.stage, self.folder / "state", self.folder / "docker")


@contextmanager
def set_up() -> Iterator[Site]:
    """Set up as for a user who has run the program before: what it builds once is in the cache."""
    built = bundle.build(workloads.load("hello"))
    with suppress(Unavailable):
        guest.initramfs(built.root / "bin/busybox", guest.kernel(), guest.drivers("pci"))
    known = {process.pid for process in descendants()}
    folder = Path(tempfile.mkdtemp(prefix="wb-", dir="/var/lib"))
    folder.chmod(0o755)
    (folder / "results").mkdir()
    environment = {key: value for key, value in os.environ.items() if key not in ("DOCKER_HOST", "TMPDIR")}
    try:
        with adopting_orphans(), Stage.set_up(REPOSITORY, Path(sys.prefix), cache(), folder) as stage:
            here = Site(stage, folder, environment | {"WEIGHBRIDGE_STATE": str(folder / "state")})
            here.clean()
            yield here
    finally:
        # What a failed test left behind shall not disturb those after it.
        for process in descendants():
            if process.pid not in known:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
        shutil.rmtree(folder, ignore_errors=True)
