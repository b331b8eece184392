"""That it was KVM: by QEMU's own word, by the counters of the kernel that has it, and by how much faster it was."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from harness import store
from harness.errors import RunError
from harness.model import Run
from harness.store import Result
from lab.inside import KVM, TCG

VM = "libvirt/pc"
LEAST_RATIO = 2.0
"""TCG takes at least so many times as long as KVM, wherever KVM is one: 5 in the lab."""


@dataclass(frozen=True)
class Proof:
    """What is claimed of a lab's runs, warm-up and measured ones alike.

    runs: of virtual machines under KVM, for each of which QEMU said that KVM is enabled. exits: the fewest and the most
    that a guest's vCPU left it for the kernel's KVM. kvm, tcg: start-ups of libvirt/pc in seconds. ratio: of their
    medians.
    """

    runs: int
    exits: tuple[int, int]
    kvm: tuple[float, ...]
    tcg: tuple[float, ...]
    ratio: float

    def __str__(self) -> str:
        fewest, most = self.exits
        return (
            f"{self.runs} machines under KVM, each by query-kvm, with {fewest} to {most} exits; {VM} was ready after "
            f"{median(self.kvm):.1f} s under KVM (n={len(self.kvm)}) and {median(self.tcg):.1f} s under TCG "
            f"(n={len(self.tcg)}), {self.ratio:.1f} times as long"
        )


def of(folder: Path) -> Proof:
    """Of what a lab brought out. Raises RunError for what proves nothing, BadInput for results that are not there."""
    kvm, tcg = store.read(folder / KVM), store.read(folder / TCG)
    machines = _machines(kvm, "kvm")
    _machines(tcg, "tcg")
    counted = [_exits(run) for run in machines]
    fast, slow = _starts(kvm, VM), _starts(tcg, f"{VM},accel=tcg")
    ratio = median(slow) / median(fast)
    if ratio < LEAST_RATIO:
        raise RunError(f"{VM} takes {ratio:.2f} times as long under TCG: what was called KVM is none")
    return Proof(len(machines), (min(counted), max(counted)), fast, slow, ratio)


def _machines(result: Result, accelerator: str) -> list[Run]:
    """The runs of its machines, none of which failed, and all of which ran by what is claimed."""
    if result.footer is None or not result.footer.complete:
        raise RunError(f"{result.path.name}: the campaign did not come to its end")
    if result.unavailable:
        absent = result.unavailable[0]
        raise RunError(f"{result.path.name}: {absent.target} could not run: {absent.reason}")
    for run in result.runs:
        if run.error is not None:
            raise RunError(f"{result.path.name}: {run.target} failed while {run.error.phase}: {run.error.message}")
    claimed = {record.target: record.accelerator for record in result.targets if record.accelerator}
    for target, told in claimed.items():
        if told != accelerator:
            raise RunError(f"{result.path.name}: {target} ran by {told}, not by {accelerator}")
    return [run for run in result.runs if run.target in claimed]


def _exits(run: Run) -> int:
    told = run.accelerated
    if told is None or not told.enabled:
        raise RunError(f"run {run.id} of {run.target}: QEMU does not say that KVM is enabled")
    if not told.counters.get("exits"):
        raise RunError(f"run {run.id} of {run.target}: KVM has counted no exits: {told.reason}")
    return told.counters["exits"]


def _starts(result: Result, target: str) -> tuple[float, ...]:
    found: Sequence[float | None] = [
        run.mark("ready") for run in result.runs if run.target == target and run.phase == "measured"
    ]
    return tuple(each for each in found if each is not None)
