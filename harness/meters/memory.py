"""Memory at rest: RSS, PSS and USS of each group of an instance's processes.

Source: Linux, Documentation/filesystems/proc.rst (smaps, smaps_rollup); psutil's memory_full_info.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import psutil

from harness.backends import Instance, Unseen
from harness.model import Group, Sample

KINDS = ("rss", "pss", "uss")


class Weight(NamedTuple):
    """Bytes. pss and uss need the right to ptrace the process; without it they are an Unseen."""

    rss: int
    pss: int | Unseen
    uss: int | Unseen


def weigh(instance: Instance) -> list[Sample]:
    """One reading of all groups of an instance, in bytes."""
    samples: list[Sample] = []
    for group, pids in instance.processes().items():
        if isinstance(pids, Unseen):
            samples += [Sample(f"memory.{kind}", "B", None, group, reason=pids.reason) for kind in KINDS]
        elif group in ("guest", "vmm"):
            samples += _samples(group, _machine(pids, instance.guest_ram, of_guest=group == "guest"))
        else:
            samples += _samples(group, processes(pids))
    return samples


def processes(pids: Sequence[int]) -> Weight:
    """The sum over processes. One that ended meanwhile weighs nothing."""
    weights = []
    for pid in pids:
        try:
            weights.append(_process(psutil.Process(pid)))
        except psutil.NoSuchProcess:
            continue
    return _sum(weights)


def daemons(pids_of: Mapping[str, Sequence[int] | Unseen]) -> list[Sample]:
    """What the daemons of each target weigh: they serve all instances and are weighed once, part = target."""
    return [
        Sample(s.metric, s.unit, s.value, "daemon", target, s.reason)
        for target, pids in pids_of.items()
        for s in _samples("daemon", pids if isinstance(pids, Unseen) else processes(pids))
    ]


def _process(process: psutil.Process) -> Weight:
    try:
        info = process.memory_full_info()
    except psutil.AccessDenied:
        unseen = Unseen(f"not permitted to read /proc/{process.pid}/smaps")
        return Weight(process.memory_info().rss, unseen, unseen)
    return Weight(info.rss, info.pss, info.uss)


def _machine(pids: Sequence[int], guest_ram: str | None, *, of_guest: bool) -> Weight | Unseen:
    """A VMM's mappings of the guest's RAM, or all its others."""
    if guest_ram is None:
        return Unseen("the engine does not tell the guest's RAM from the VMM's own memory")
    weights = []
    for pid in pids:
        try:
            maps = psutil.Process(pid).memory_maps(grouped=True)
        except psutil.AccessDenied:
            return Unseen(f"not permitted to read /proc/{pid}/smaps")
        except psutil.NoSuchProcess:
            continue
        mine = [m for m in maps if m.path.startswith(guest_ram) == of_guest]
        weights += [Weight(m.rss, m.pss, m.private_clean + m.private_dirty) for m in mine]
    return _sum(weights)


def _sum(weights: Sequence[Weight]) -> Weight:
    return Weight(sum(w.rss for w in weights), _total([w.pss for w in weights]), _total([w.uss for w in weights]))


def _total(values: Sequence[int | Unseen]) -> int | Unseen:
    unseen = next((value for value in values if isinstance(value, Unseen)), None)
    return unseen or sum(value for value in values if not isinstance(value, Unseen))


def _samples(group: Group, weight: Weight | Unseen) -> list[Sample]:
    values = (weight,) * len(KINDS) if isinstance(weight, Unseen) else weight
    return [
        Sample(f"memory.{kind}", "B", None, group, reason=value.reason)
        if isinstance(value, Unseen)
        else Sample(f"memory.{kind}", "B", value, group)
        for kind, value in zip(KINDS, values, strict=True)
    ]
