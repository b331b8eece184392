"""`python -m lab`: makes the lab, runs it, and proves that KVM was one. --direct: on this machine, without a lab.

Exit codes are those of `weighbridge`. All that comes out is in results/runs/lab-<time>/, whatever became of it.
"""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic
from typing import IO, Any

import click

from harness import backends, cli, host, ledger, places
from harness.command import find, version_of
from harness.errors import BadInput, RunError
from harness.ledger import Ledger
from harness.model import Plan
from lab import carried, inside, machine, proof, system
from lab.system import ROOT
from lab.users import image as users_image
from lab.users import judge, session

RUNS, PUBLISHED = ROOT / "results/runs", ROOT / "results/lab"
BOUND = 25 * 60
"""Seconds that all of it may take once the lab's Debian is there; making that may take twenty minutes more."""
LOG, ABOUT = "lab.log", "lab.json"


@dataclass
class Trial:
    """One `make lab`: the folder of all that comes out, what is known of how it came to be, and its one log."""

    kept: Path
    log: IO[str]
    about: dict[str, Any] = field(default_factory=dict)
    began: float = field(default_factory=monotonic)

    def say(self, told: str) -> None:
        """On the terminal and in the log, with the seconds since it began."""
        for out in (sys.stdout, self.log):
            print(f"[{monotonic() - self.began:6.1f}] {told}", file=out, flush=True)

    @property
    def seconds(self) -> int:
        return round(monotonic() - self.began)


@click.command()
@click.option("--direct", is_flag=True, help="Without a lab, on this machine, whose own KVM works.")
@click.option(
    "--system",
    type=click.Choice(sorted(users_image.SUITES)),
    help="Run the users' machine instead: this Debian release with systemd, its daemons and three users.",
)
@click.option("--publish", is_flag=True, help="If all goes well, have what came out in results/lab/ too.")
def lab(direct: bool, system: str | None, publish: bool) -> int:
    """Weigh a host, namespaces, Docker and virtual machines under KVM, in a machine that is emulated for it."""
    if direct and publish:
        raise BadInput("--publish keeps what came out of a lab, and --direct has none")
    if direct and system:
        raise BadInput("--system and --direct exclude each other: --system builds a machine, --direct uses this one")
    with _trial() as trial:
        ledger.reap()
        if system:
            _run_as_users(system, trial)
        else:
            _prove(trial, direct)
    if publish:
        _publish(trial.kept, PUBLISHED / system if system else PUBLISHED)
    return 0


def _run_as_users(system: str, trial: Trial) -> None:
    """Run the steps of three users on a machine with systemd, and check their records."""
    trial.about |= session.run(system, trial.kept, trial.say)
    summary = judge.check(trial.kept, session.mark(system))
    trial.about["summary"] = summary
    trial.say(f"no fault was found: {summary}")


def _prove(trial: Trial, direct: bool) -> None:
    """Measure under KVM, and prove that it was KVM."""
    if direct:
        _directly(trial)
    else:
        _in_lab(trial)
    ended = {step.name: step.status for step in inside.done(trial.kept)}
    if failed := [step.name for step in inside.steps(trial.kept) if ended.get(step.name) != 0]:
        raise RunError(f"these steps failed or did not run: {', '.join(failed)}")
    proven = proof.of(trial.kept, None if direct else machine.NAMED)
    trial.about["proof"] = asdict(proven)
    trial.say(f"proven: {proven}")


@contextmanager
def _trial() -> Iterator[Trial]:
    began = datetime.now(UTC)
    kept = places.folder(RUNS) / f"lab-{began:%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"
    kept.mkdir()
    commit, dirty = host.commit()
    with (kept / LOG).open("w", encoding="utf-8") as log:
        trial = Trial(kept, log)
        trial.about |= {"began": began.isoformat(timespec="seconds"), "commit": commit, "dirty": dirty}
        trial.about["on"] = host.describe().gating
        ended = "green"
        try:
            trial.say(f"all that comes out is in {kept.relative_to(ROOT)}")
            yield trial
        except BaseException as error:
            ended = str(error) or type(error).__name__
            raise
        finally:
            steps = kept / inside.STEPS
            trial.about["steps"] = json.loads(steps.read_text()) if steps.exists() else []
            trial.about["seconds"] = trial.seconds
            (kept / ABOUT).write_text(json.dumps({**trial.about, "ended": ended}, indent=1) + "\n")
            trial.say(f"ended after {trial.seconds} s: {ended}")


def _in_lab(trial: Trial) -> None:
    """Has the lab do it, and keeps what it was made of and what was there instead of being downloaded."""
    debian = system.get()
    made = "made anew" if debian.new else "from the cache"
    trial.say(f"the lab's Debian, {len(debian.packages)} packages: {made}")
    deadline = monotonic() + BOUND - (0 if debian.new else trial.seconds)
    with Ledger() as held, held.holding_folder() as folder:
        disk, brought = carried.make(debian, folder)
        trial.say(f"carried in, where others download: {', '.join(brought)}")
        trial.about |= {
            "emulator": version_of(machine.emulator()),
            "arguments": (argued := machine.arguments(debian, disk)),
            "preinstalled": {"made": made, "debian": debian.packages, "carried": brought},
        }
        with machine.ran(argued, held, folder, deadline, trial.say) as out:
            machine.take_out(out, trial.kept)


def _directly(trial: Trial) -> None:
    """Does it on this machine. Raises Unavailable where its KVM does not work."""
    with Ledger() as held:
        backend = backends.create(f"{proof.VM},accel=kvm", held, Plan())
        try:
            backend.probe()
        finally:
            backend.close()
    tied = [find("setpriv", "util-linux"), "--pdeathsig", "TERM", sys.executable, "-m", "lab.inside", str(trial.kept)]
    with subprocess.Popen(tied, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as child:
        assert child.stdout is not None
        try:
            for line in child.stdout:
                trial.say(line.rstrip())
        except BaseException:
            child.terminate()
            child.communicate()  # to its end, whatever it still says
            raise


def _publish(kept: Path, into: Path) -> None:
    """Replace the files of `into`, from which tests/test_docs.py writes the documentation, by those of `kept`."""
    for old in places.folder(into).iterdir():
        if old.is_file():
            old.unlink()
    for file in (path for path in kept.iterdir() if path.is_file()):
        (into / file.name).write_bytes(file.read_bytes())
    print(f"{into.relative_to(ROOT)} was replaced. Now run .venv/bin/python tests/test_docs.py")


if __name__ == "__main__":
    cli.main(lab)
