"""Memory at rest: RSS, PSS and USS of each group of an instance's processes by kind, and what its group is charged.

Source: Linux, Documentation/filesystems/proc.rst (smaps, smaps_rollup, status), admin-guide/cgroup-v1/memory.rst and
cgroup-v2.rst (memory.stat). psutil tells a process's totals; the kinds are only in the files themselves.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

from harness import cgroup
from harness.backends import Instance, Unseen
from harness.model import Group, Sample

METRICS = ("rss", "pss", "uss")
CACHE = "translation cache"
"""Where QEMU keeps the code that it translated for the guest, under TCG: the memory that it both writes and runs."""

Weight = dict[tuple[str, str | None], int | Unseen]
"""{(metric, kind): bytes}: kind is anonymous, file or shmem, or None where it is not told."""


def weigh(instance: Instance) -> list[Sample]:
    """One reading of all groups of an instance, in bytes."""
    samples: list[Sample] = []
    for group, pids in instance.processes().items():
        if isinstance(pids, Unseen):
            samples += _samples(group, _unseen(pids))
        elif group in ("guest", "vmm"):
            guest, vmm = _machine(pids, instance.guest_ram)
            samples += _samples(group, guest if group == "guest" else vmm)
        else:
            samples += _samples(group, processes(pids))
    return samples


def charged(instance: Instance) -> list[Sample]:
    """What the instance's control group is charged, by kind: whoever touched a page of a file first pays for it."""
    folder = instance.cgroups().get("memory")
    if folder is None:
        limit = instance.limits().get("memory")
        why = f": {limit.reason}" if limit and limit.mechanism is None else ""
        return [Sample("memory.charged", "B", None, reason=f"it has no control group of its own{why}")]
    return [Sample("memory.charged", "B", value, part=kind) for kind, value in cgroup.memory_charge(folder).items()]


def daemons(pids_of: Mapping[str, Sequence[int] | Unseen]) -> list[Sample]:
    """What the daemons of each target weigh: they serve all instances and are weighed once, part = target."""
    samples = []
    for target, pids in pids_of.items():
        weight = _unseen(pids) if isinstance(pids, Unseen) else processes(pids)
        for metric in METRICS:
            mine = [value for (name, _), value in weight.items() if name == metric]
            samples.append(_sample(metric, _total(mine), "daemon", target))
    return samples


def processes(pids: Sequence[int]) -> Weight:
    """The sum over processes. One that ended meanwhile weighs nothing.

    PSS and USS need the right to ptrace a process; without it they are an Unseen.
    """
    weights = [_process(pid) for pid in pids]
    keys = dict.fromkeys(key for weight in weights for key in weight) or dict.fromkeys((m, None) for m in METRICS)
    return {key: _total([weight[key] for weight in weights if key in weight]) for key in keys}


def _process(pid: int) -> Weight:
    try:
        rollup = _rollup(pid)
    except PermissionError:
        return _without_rollup(pid)
    except (FileNotFoundError, ProcessLookupError):
        if Path(f"/proc/{pid}").exists() and not Path("/proc/self/smaps_rollup").exists():
            return _unseen(Unseen("the kernel has no smaps_rollup (CONFIG_PROC_PAGE_MONITOR)"))
        return {}
    if "Rss:" not in rollup:  # it has just ended
        return {}
    uss = rollup["Private_Clean:"] + rollup["Private_Dirty:"] + rollup.get("Private_Hugetlb:", 0)
    if "Pss_Anon:" not in rollup:  # before Linux 5.4
        return {("rss", None): rollup["Rss:"], ("pss", None): rollup["Pss:"], ("uss", None): uss}
    # status is off by some pages a CPU: of that only what smaps_rollup does not tell is taken.
    mapped = rollup["Rss:"] - rollup["Anonymous:"]
    shmem = min(_status(pid).get("RssShmem", 0), mapped) if rollup["Pss_Shmem:"] else 0
    return {
        ("rss", "anonymous"): rollup["Anonymous:"],
        ("rss", "file"): mapped - shmem,
        ("rss", "shmem"): shmem,
        ("pss", "anonymous"): rollup["Pss_Anon:"],
        ("pss", "file"): rollup["Pss_File:"],
        ("pss", "shmem"): rollup["Pss_Shmem:"],
        ("uss", None): uss,
    }


def _without_rollup(pid: int) -> Weight:
    """What is told of a process to whoever may not ptrace it."""
    try:
        status = _status(pid)
    except PermissionError:  # mounted with hidepid=1
        return _unseen(Unseen(f"not permitted to read /proc/{pid}/status"))
    if "RssAnon" not in status:  # it ended, or waits for its parent to ask
        return {}
    unseen = Unseen(f"not permitted to read /proc/{pid}/smaps_rollup")
    kinds = {"anonymous": "RssAnon", "file": "RssFile", "shmem": "RssShmem"}
    rss: Weight = {("rss", kind): status[name] for kind, name in kinds.items()}
    return rss | {("pss", None): unseen, ("uss", None): unseen}


def _rollup(pid: int) -> dict[str, int]:
    """smaps_rollup in bytes, names with their colon: a range, then `Name:  123 kB` again and again."""
    words = _read(pid, "smaps_rollup").partition("\n")[2].split()
    return {name: int(kib) * 1024 for name, kib in zip(words[::3], words[1::3], strict=True)}


def _status(pid: int) -> dict[str, int]:
    """What status tells of memory, in bytes; nothing of a process that has ended."""
    try:
        text = _read(pid, "status")
    except (FileNotFoundError, ProcessLookupError):
        return {}
    return {name: int(kib) * 1024 for name, kib in re.findall(r"^(\w+):\s+(\d+) kB$", text, re.MULTILINE)}


def _read(pid: int, file: str) -> str:
    with open(f"/proc/{pid}/{file}", "rb") as opened:  # noqa: PTH123 a Path takes as long as the reading
        return opened.read().decode()


def _machine(pids: Sequence[int], guest_ram: str | None) -> tuple[Weight, Weight]:
    """The guest's RAM, and its VMM without that but with the translation cache by name."""
    if guest_ram is None:
        return (_unseen(Unseen("the engine does not tell the guest's RAM from the VMM's own memory")),) * 2
    maps: list[Any] = []
    try:
        for pid in pids:
            maps += psutil.Process(pid).memory_maps(grouped=False)
    except psutil.AccessDenied as error:
        return (_unseen(Unseen(f"not permitted to read /proc/{error.pid}/smaps")),) * 2
    except psutil.NoSuchProcess:
        return {}, {}
    ram = [each for each in maps if each.path.startswith(guest_ram)]
    if not ram:
        return (_unseen(Unseen(f"the VMM has no mapping of the name {guest_ram}")),) * 2
    guest: Weight = {}
    vmm = processes(pids)
    _move(vmm, "shmem", ram, guest, "shmem")
    _move(vmm, "anonymous", [each for each in maps if each.path == "[anon]" and "wx" in each.perms], vmm, CACHE)
    return guest, vmm


def _move(source: Weight, kind: str, maps: Sequence[Any], target: Weight, name: str) -> None:
    """What these mappings weigh, from where it was counted as this kind to where it has a name of its own."""
    for metric in METRICS if maps else ():
        amounts = [m.private_clean + m.private_dirty if metric == "uss" else getattr(m, metric) for m in maps]
        counted = (metric, kind) if (metric, kind) in source else (metric, None)
        before = source[counted]
        if not isinstance(before, Unseen):
            source[counted] = max(0, before - sum(amounts))  # two readings of what is almost at rest
        target[metric, name] = sum(amounts)


def _total(values: Sequence[int | Unseen]) -> int | Unseen:
    unseen = next((value for value in values if isinstance(value, Unseen)), None)
    return unseen or sum(value for value in values if not isinstance(value, Unseen))


def _unseen(why: Unseen) -> Weight:
    return dict.fromkeys(((metric, None) for metric in METRICS), why)


def _samples(group: Group, weight: Weight) -> list[Sample]:
    return [_sample(metric, value, group, kind) for (metric, kind), value in weight.items()]


def _sample(metric: str, value: int | Unseen, group: Group, part: str | None) -> Sample:
    if isinstance(value, Unseen):
        return Sample(f"memory.{metric}", "B", None, group, part, value.reason)
    return Sample(f"memory.{metric}", "B", value, group, part)
