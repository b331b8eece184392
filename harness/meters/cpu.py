"""CPU time: what a start takes of the host's, and what an instance takes at rest.

Source: Linux, Documentation/admin-guide/cgroup-v1/cpuacct.rst, cgroup-v2.rst (cpu.stat), scheduler/sched-stats.rst
(schedstat), and proc_pid_stat(5).
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from harness import cgroup
from harness.backends import Instance, Unseen
from harness.model import Group, Sample
from harness.spent import Spent

TICK = 1 / os.sysconf("SC_CLK_TCK")
VCPU = re.compile(r"(CPU \d+|ALL CPUs)/")
"""How QEMU calls the threads in which the guest runs, where it is told to name them, which libvirt does."""

DIVIDED_FROM = 20 * TICK
"""Seconds. In less the kernel saw too few ticks to tell user from system time."""

Reading = Mapping[Group, Spent | Unseen]


def read(instance: Instance) -> Reading:
    """Seconds of CPU that each group of an instance has used up to now.

    A control group counts the processes that ended too, and so serves for the workload wherever it has one.
    """
    found: dict[Group, Spent | Unseen] = {}
    groups = instance.processes()
    for group, pids in groups.items():
        if isinstance(pids, Unseen):
            found[group] = pids
        elif group == "guest":
            found[group] = _vcpus(pids)
        elif group == "vmm":
            found[group] = processes(pids) - _vcpus(pids)
        else:
            found[group] = processes(pids)
    folders = instance.cgroups()
    if isinstance(found.get("workload"), Spent) and (counted := cgroup.cpu_time(folders)):
        supervisors = groups.get("supervisor", [])
        members = cgroup.members(next(iter(folders.values())))  # all controllers' groups have the same members
        inside = [] if isinstance(supervisors, Unseen) else [pid for pid in supervisors if pid in members]
        found["workload"] = counted - processes(inside)
    return found


def processes(pids: Sequence[int]) -> Spent:
    """The time of processes and of their children that ended. One that ended meanwhile counts nothing."""
    return sum((_own(Path(f"/proc/{pid}"), _tasks(pid)) + _reaped(pid) for pid in pids), Spent())


def start(before: Reading, after: Reading) -> list[Sample]:
    """CPU seconds by group between two readings, user and system apart where that can be told; from 0 for what was not
    there before."""
    samples = []
    for group, used in _used(before, after).items():
        if isinstance(used, Unseen):
            samples.append(Sample("cpu.start", "s", None, group, reason=used.reason))
        elif used.total < DIVIDED_FROM:
            samples.append(Sample("cpu.start", "s", used.total, group))
        else:
            samples.append(Sample("cpu.start", "s", used.user, group, "user"))
            samples.append(Sample("cpu.start", "s", used.system, group, "system"))
    return samples


def rest(before: Reading, after: Reading, seconds: float) -> list[Sample]:
    """CPUs in use by group: CPU seconds per second between two readings."""
    return [
        Sample("cpu.rest", "1", None, group, reason=used.reason)
        if isinstance(used, Unseen)
        else Sample("cpu.rest", "1", used.total / seconds, group)
        for group, used in _used(before, after).items()
    ]


def _used(before: Reading, after: Reading) -> dict[Group, Spent | Unseen]:
    """Between two readings, of those that are in the later one; Unseen where it was at either end."""
    found: dict[Group, Spent | Unseen] = {}
    for group, now in after.items():
        then = before.get(group, Spent())
        found[group] = now if isinstance(now, Unseen) else then if isinstance(then, Unseen) else now - then
    return found


def _vcpus(pids: Sequence[int]) -> Spent:
    vcpus = [task for pid in pids for task in _tasks(pid) if VCPU.match(_get(task / "comm"))]
    return sum((_own(task, [task]) for task in vcpus), Spent())


def _own(place: Path, tasks: Sequence[Path]) -> Spent:
    """A thread, or a process with its threads: exactly, but for threads that ended, which it keeps in ticks of 10 ms.

    Without schedstat ticks are all there is.
    """
    user, system = _ticks(place, 13)
    exact = sum(int((_get(task / "schedstat").split() or ["0"])[0]) for task in tasks) / 1e9
    return Spent.divided(max(exact, user + system), user, system)


def _tasks(pid: int) -> list[Path]:
    try:
        return list(Path(f"/proc/{pid}/task").iterdir())
    except (FileNotFoundError, ProcessLookupError):
        return []


def _reaped(pid: int) -> Spent:
    """The children that ended, in ticks of 10 ms."""
    return Spent(*_ticks(Path(f"/proc/{pid}"), 15))


def _ticks(place: Path, field: int) -> tuple[float, float]:
    """Two fields of a stat file in seconds, counted from 0 as in proc_pid_stat(5), less one."""
    fields = _get(place / "stat").rpartition(")")[2].split()
    return (int(fields[field - 2]) * TICK, int(fields[field - 1]) * TICK) if fields else (0.0, 0.0)


def _get(file: Path) -> str:
    """What is in a file of a process; nothing once the process is gone."""
    try:
        return file.read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""
