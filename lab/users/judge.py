"""Check the records of the users' machine."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from harness import store
from harness.errors import RunError
from harness.store import Result
from lab.users.session import STEPS
from lab.users.steps import PROFILES, USERS, all_steps

SANDBOXES = ("userns-chroot", "namespace")
VIRTUAL = ("libvirt/pc",)
EXPECTED: Mapping[str, tuple[str, ...]] = {
    "alice-run": (*SANDBOXES, *VIRTUAL),
    "alice-again": (*SANDBOXES, "docker", *VIRTUAL),
    "alice-user": ("docker", *VIRTUAL),
    "alice-private": ("namespace",),
    "bob-run": (*SANDBOXES, *VIRTUAL),
    "bob-user": VIRTUAL,
    "bob-private": ("namespace",),
    "root-run": ("host", "namespace", "docker", *VIRTUAL),
    "root-user": ("docker", *VIRTUAL),
    "root-private": ("namespace", "docker"),
}
"""Targets that each step must have measured; every other target must be recorded with its reason."""
REFUSED: Mapping[str, tuple[str, str]] = {
    "alice-run": ("docker", "sudo usermod -aG docker alice"),
    "bob-run": ("docker", "usermod -aG docker bob"),
    "bob-private": ("docker", "root"),
}
"""A target that must be refused, and words of its reason or remedy."""
SAID: tuple[tuple[str, str, str], ...] = (
    ("alice-run", r"^setup: .*sudo usermod -aG docker,kvm alice", "set-up's command that joins her to the groups"),
    ("bob-refused", r"^setup: .*usermod -aG docker,kvm bob", "set-up's command for his administrator"),
    ("bob-refused", r"^docker: not here: .*usermod -aG docker bob", "doctor's remedy for Docker"),
    *(
        ("root-doctor", rf"^{profile} ·.*(\n  .*)*?\n  launch: ready", f"a launch of {profile}")
        for profile in PROFILES.split(",")
    ),
)
"""What the output of a step must contain: a regular expression, and the name of the thing."""


def check(folder: Path, mark: str) -> str:
    """Return a one-line summary of the records in this folder. Raises RunError with every fault, one on each line."""
    faults = [*_find_step_faults(folder), *_find_output_faults(folder)]
    results = {name: store.read(path) for name in EXPECTED if (path := folder / f"{name}.jsonl").exists()}
    for name, targets in EXPECTED.items():
        if name not in results:
            faults.append(f"{name}: it wrote no result")
            continue
        faults += [f"{name}: {fault}" for fault in _find_faults(name, results[name], targets, mark)]
    if faults:
        raise RunError("\n".join(faults))
    runs = [run for result in results.values() for run in result.runs]
    accelerated = sum(bool(run.accelerated and run.accelerated.enabled) for run in runs)
    return f"{len(all_steps())} steps of {len(USERS)} users, {len(runs)} launches, {accelerated} of them under KVM"


def _find_step_faults(folder: Path) -> Iterator[str]:
    done = {each["name"]: each for each in json.loads((folder / STEPS).read_text())}
    for step in all_steps():
        if step.name not in done:
            yield f"{step.name}: it did not run"
            continue
        if done[step.name]["status"] != 0:
            yield f"{step.name}: it ended with {done[step.name]['status']}"
        for line in done[step.name]["left"]:
            yield f"{step.name}: it left {line}"


def _find_output_faults(folder: Path) -> Iterator[str]:
    for step, pattern, thing in SAID:
        path = folder / f"{step}.txt"
        if path.exists() and not re.search(pattern, path.read_text(errors="replace"), re.MULTILINE):
            yield f"{step}: its output lacks {thing}"


def _find_faults(name: str, result: Result, targets: tuple[str, ...], mark: str) -> Iterator[str]:
    if result.header.host.gating.get("lab") != mark:
        yield f"its records lack the mark of the lab, {mark!r}"
    measured = {run.target for run in result.runs if run.phase == "measured" and run.ok}
    yield from (f"{target} was not measured" for target in targets if target not in measured)
    for run in result.runs:
        if run.error is not None:
            yield f"{run.target} failed while {run.error.phase}: {run.error.message}"
        if run.target in SANDBOXES and run.ok:
            for limit, applied in run.limits.items():
                if applied.mechanism is None:
                    yield f"{run.target}: the {limit} limit was not applied: {applied.reason}"
        if run.target == "docker" and run.ok:
            charged = [each.value for each in run.samples if each.metric == "memory.charged"]
            if not charged or None in charged:
                yield "docker: the memory of its control group is missing"
    for record in result.targets:
        wanted = "tcg" if name == "alice-run" else "kvm"
        if record.accelerator not in (None, wanted):
            yield f"{record.target} ran by {record.accelerator}, not {wanted}: {record.accelerator_reason}"
    if name in REFUSED:
        target, words = REFUSED[name]
        refusals = [f"{each.reason} {each.hint}" for each in result.unavailable if each.target == target]
        if not any(words in refusal for refusal in refusals):
            yield f"{target} was not refused with {words!r}: {refusals}"
