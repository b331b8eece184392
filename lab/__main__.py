"""`python -m lab`: makes the lab, runs it, proves that KVM was one, and keeps what came out. --direct: on this machine.

Exit codes are those of `weighbridge`.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic
from typing import IO, Any

import click

from harness import backends, cli, host, ledger
from harness.command import find, version_of
from harness.errors import RunError, WeighbridgeError
from harness.ledger import Ledger
from harness.model import Plan
from lab import carried, inside, machine, proof, system
from lab.system import ROOT

RUNS, RESULTS, REPORTS = (ROOT / folder for folder in ("results/runs", "results/lab", "reports/lab"))
BOUND, BOUND_OF_NEW = 25 * 60, 45 * 60
"""Seconds that all of it may take, with the lab's Debian in the cache and without."""
LOG, ABOUT = "lab.log", "lab.json"
OF_REPORT = ("index.html", "report.md", "startup.png", "memory.png", "disk.png")


@dataclass(frozen=True)
class Log:
    """The one log of all that is done and said, here and in the lab: on the terminal, and in a file."""

    file: IO[str]
    began: float

    def say(self, told: str) -> None:
        for out in (sys.stdout, self.file):
            print(f"[{monotonic() - self.began:6.1f}] {told}", file=out, flush=True)


@click.command()
@click.option("--direct", is_flag=True, help="Without a lab, on this machine, whose own KVM works.")
def lab(direct: bool) -> int:
    """Weigh a host, namespaces, Docker and virtual machines under KVM, in a machine that is emulated for it."""
    began = datetime.now(UTC)
    kept = RUNS / f"lab-{began:%Y%m%d-%H%M%S}"
    kept.mkdir(parents=True)
    with _logged(kept) as log:
        log.say(f"all that comes out is in {kept.relative_to(ROOT)}")
        ledger.reap()
        told = _directly(kept, log) if direct else _in_lab(kept, log)
        proven = _proven(kept)
        log.say(f"proven: {proven}")
        commit, dirty = host.commit()
        seconds = round(monotonic() - log.began)
        about = {
            "began": began.isoformat(timespec="seconds"),
            "commit": commit,
            "dirty": dirty,
            "seconds": seconds,
            **told,
            "steps": [asdict(step) for step in inside.done(kept)],
            "proof": asdict(proven),
        }
        (kept / ABOUT).write_text(json.dumps(about, indent=1) + "\n")
        log.say(f"green after {seconds} s")
    if not direct:
        _publish(kept)
    return 0


@contextmanager
def _logged(kept: Path) -> Iterator[Log]:
    with (kept / LOG).open("w", encoding="utf-8") as file:
        log = Log(file, monotonic())
        try:
            yield log
        except WeighbridgeError as error:
            log.say(f"failed: {error}")
            raise


def _in_lab(kept: Path, log: Log) -> dict[str, Any]:
    """Has the lab do it. What it was made of, and what was there instead of being downloaded."""
    debian = system.get()
    log.say(f"the lab's Debian, {len(debian.packages)} packages: {'made anew' if debian.new else 'from the cache'}")
    with Ledger() as held, held.holding_folder() as folder:
        disk, brought = carried.make(debian, folder)
        log.say(f"carried in, where others download: {', '.join(brought)}")
        deadline = log.began + (BOUND_OF_NEW if debian.new else BOUND)
        with machine.ran(debian, disk, held, folder, deadline, log.say) as out:
            machine.take_out(out, kept)
        told = {"emulator": version_of(machine.emulator()), "arguments": machine.arguments(debian, disk)}
    return {**told, "on": host.describe().gating, "preinstalled": {"debian": debian.packages, "carried": brought}}


def _directly(kept: Path, log: Log) -> dict[str, Any]:
    """Does it on this machine. Raises Unavailable where its KVM does not work."""
    with Ledger() as held:
        backend = backends.create(f"{proof.VM},accel=kvm", held, Plan())
        try:
            backend.probe()
        finally:
            backend.close()
    argv = [find("setpriv", "util-linux"), "--pdeathsig", "TERM", sys.executable, "-m", "lab.inside", str(kept)]
    with subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as child:
        assert child.stdout is not None
        for line in child.stdout:
            log.say(line.rstrip())
    return {"on": host.describe().gating}


def _proven(kept: Path) -> proof.Proof:
    failed = [step.name for step in inside.done(kept) if step.status != 0]
    if failed:
        raise RunError(f"of what was to be done, this failed: {', '.join(failed)}; see its .txt in {kept}")
    return proof.of(kept)


def _publish(kept: Path) -> None:
    """What a green lab found is what the documentation shows."""
    for folder in (RESULTS, REPORTS):
        folder.mkdir(parents=True, exist_ok=True)
    for file in (path for path in kept.iterdir() if path.is_file()):
        shutil.copy2(file, RESULTS)
    for name in OF_REPORT:
        shutil.copy2(kept / inside.REPORT / name, REPORTS)


if __name__ == "__main__":
    cli.main(lab)
