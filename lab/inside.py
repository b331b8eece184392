"""What is done in the lab, or with DIRECT=1 on this machine: one program after the other, what each says in a file.

python -m lab.inside FOLDER
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from threading import Timer
from time import monotonic

from harness import signals
from harness.signals import Interrupted

ROOT = Path(__file__).parents[1]
KVM, TCG, REPORT, STEPS = "kvm.jsonl", "tcg.jsonl", "report", "steps.json"
TARGETS = ("host", "namespace", "docker", "libvirt/pc", "libvirt/direct")
TESTS = ("tests/test_backends.py", "tests/test_kvm.py::test_the_kvm_of_this_machine_as_it_is")
CONFORMANCE = {
    "WEIGHBRIDGE_ACCELERATOR": "kvm",
    "WEIGHBRIDGE_CONFORM": "libvirt",
    "WEIGHBRIDGE_REQUIRE": "libvirt",
    "WEIGHBRIDGE_SHARED": "kernels,bundles,grub",
}
GRACE = 15.0
"""Seconds from the request to end to the end."""


@dataclass(frozen=True)
class Step:
    """argv: of Python. timeout: seconds; those of all steps are less than what the lab may take."""

    name: str
    argv: tuple[str, ...]
    timeout: float
    environment: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Done:
    """What became of a step. status: its exit status, negative for a signal. seconds: what it took."""

    name: str
    status: int
    seconds: float


def steps(out: Path) -> list[Step]:
    """In their order."""
    kvm, tcg, report = (str(out / name) for name in (KVM, TCG, REPORT))
    weighbridge = ("-m", "harness")
    pytest = ("-m", "pytest", "-p", "no:cacheprovider", "-v", "--durations=0")
    return [
        Step("doctor", (*weighbridge, "doctor", "--targets", ",".join(TARGETS)), 300),
        Step("kvm", (*weighbridge, "run", "lab/kvm.toml", "--progress", "lines", "-o", kvm), 390),
        Step("conformance", (*pytest, *TESTS), 450, CONFORMANCE),
        Step("tcg", (*weighbridge, "run", "lab/tcg.toml", "--progress", "lines", "-o", tcg), 330),
        Step("report", (*weighbridge, "report", kvm, tcg, "-o", report), 100),
    ]


def done(out: Path) -> list[Done]:
    """What was recorded of the steps; none where nothing came out."""
    told = out / STEPS
    return [Done(**each) for each in json.loads(told.read_text())] if told.exists() else []


def main(out: Path) -> int:
    """Does every step, whatever became of those before it: 0 where all went well."""
    out.mkdir(parents=True, exist_ok=True)
    ended: list[Done] = []
    for step in steps(out):
        ended.append(_do(step, out / f"{step.name}.txt"))
        (out / STEPS).write_text(json.dumps([asdict(each) for each in ended], indent=1) + "\n")
    return 0 if all(each.status == 0 for each in ended) else 1


def _do(step: Step, kept: Path) -> Done:
    print(f"lab: {step.name} begins: python {' '.join(step.argv)}", flush=True)
    began = monotonic()
    environment = {**os.environ, **step.environment}
    argv = ["setpriv", "--pdeathsig", "TERM", sys.executable, *step.argv]
    with (
        kept.open("wb") as file,
        subprocess.Popen(
            argv, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        ) as child,
        _ending(child, step.timeout),
    ):
        assert child.stdout is not None
        for line in child.stdout:
            file.write(line)
            sys.stdout.buffer.write(line)
            sys.stdout.buffer.flush()
        ended = Done(step.name, child.wait(), round(monotonic() - began, 1))
    print(f"lab: {ended.name} ended with {ended.status} after {ended.seconds:.0f} s", flush=True)
    return ended


@contextmanager
def _ending(child: subprocess.Popen[bytes], timeout: float) -> Iterator[None]:
    """A child that has not ended after so many seconds is asked to, and then made to. So is one that we leave."""
    ends = [Timer(timeout, child.terminate), Timer(timeout + GRACE, child.kill)]
    for end in ends:
        end.daemon = True
        end.start()
    try:
        yield
    except BaseException:
        child.terminate()
        child.communicate()  # to its end, whatever it still says
        raise
    finally:
        for end in ends:
            end.cancel()


if __name__ == "__main__":
    try:
        with signals.interruptible():
            code = main(Path(sys.argv[1]))
    except Interrupted as interruption:
        code = 128 + interruption.number
    sys.exit(code)
