"""That it was KVM: by QEMU's own word, by the counters of the kernel that has it, and by how much faster it was."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from harness import store
from harness.errors import RunError
from harness.model import Accelerated, Run
from harness.store import Result
from harness.vm.machine import Accelerator
from lab.inside import KVM, TARGETS, TCG

VM = "libvirt/pc"
SOFTWARE = f"{VM},accel=tcg"
MACHINES: Mapping[str, Accelerator] = {VM: "kvm", "libvirt/direct": "kvm", SOFTWARE: "tcg"}
LEAST_EXITS = 1000
"""No guest's kernel boots to its doorbell with fewer: 40,000 and more were seen."""
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


def of(folder: Path, mark: str | None) -> Proof:
    """Of what came out. mark: of the machine that it was on, see harness.host.lab; None: of no lab.

    Raises RunError for what proves nothing, BadInput for a result that is not there.
    """
    kvm, tcg = (store.read(folder / name) for name in (KVM, TCG))
    for result, targets in ((kvm, TARGETS), (tcg, (SOFTWARE,))):
        _check(result, targets, mark)
    counted = [_exits(run) for run in kvm.runs if run.target in MACHINES]
    fast, slow = _starts(kvm, VM), _starts(tcg, SOFTWARE)
    ratio = median(slow) / median(fast)
    if ratio < LEAST_RATIO:
        raise RunError(f"{VM} takes {ratio:.2f} times as long under TCG: what was called KVM is none")
    return Proof(len(counted), (min(counted), max(counted)), fast, slow, ratio)


def _check(result: Result, targets: tuple[str, ...], mark: str | None) -> None:
    """All of these were measured in every round without a failure, by what is claimed, and bear the mark."""
    name = result.path.name
    if result.footer is None or not result.footer.complete:
        raise RunError(f"{name}: the campaign did not come to its end")
    if result.header.host.gating.get("lab") != mark:
        raise RunError(f"{name}: its numbers are marked {result.header.host.lab}, and it was on {mark or 'no lab'}")
    for absent in result.unavailable:
        raise RunError(f"{name}: {absent.target} could not run: {absent.reason}")
    rounds = range(result.header.plan.rounds + 1)
    for run in result.runs:
        if run.error is not None:
            raise RunError(f"{name}: {run.target} failed while {run.error.phase}: {run.error.message}")
    for target in targets:
        if [run.round for run in result.runs if run.target == target] != list(rounds):
            raise RunError(f"{name}: {target} has not run once in each round")
    for record in result.targets:
        if record.accelerator != MACHINES.get(record.target):
            raise RunError(f"{name}: {record.target} ran by {record.accelerator}, not {MACHINES.get(record.target)}")
    for run in result.runs:
        _check_said(run)


def _check_said(run: Run) -> None:
    """QEMU's own word is that of the label."""
    chosen = MACHINES.get(run.target)
    said = run.accelerated.enabled if run.accelerated else None
    if said != (None if chosen is None else chosen == "kvm"):
        told = {None: "nothing", True: "that KVM is enabled", False: "that KVM is not enabled"}[said]
        raise RunError(f"run {run.id} of {run.target}: QEMU says {told}")


def _exits(run: Run) -> int:
    said = run.accelerated or Accelerated(False, False)
    exits = said.counters.get("exits", 0)
    if exits < LEAST_EXITS:
        raise RunError(f"run {run.id} of {run.target}: KVM has counted {exits} exits, too few: {said.reason}")
    return exits


def _starts(result: Result, target: str) -> tuple[float, ...]:
    marks = (run.mark("ready") for run in result.runs if run.target == target and run.phase == "measured")
    return tuple(at for at in marks if at is not None)
