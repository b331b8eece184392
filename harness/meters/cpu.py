"""CPU time: what a start takes of the host's, and what an instance takes at rest.

Source: Linux, Documentation/admin-guide/cgroup-v1/cpuacct.rst, cgroup-v2.rst (cpu.stat), scheduler/sched-stats.rst
(schedstat), and proc_pid_stat(5).
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from harness import cgroup
from harness.backends import Instance, Unseen
from harness.cgroup import Spent
from harness.model import Group, Sample

TICK = 1 / os.sysconf("SC_CLK_TCK")
VCPU = re.compile(r"(CPU \d+|ALL CPUs)/")
"""How QEMU calls the threads in which the guest runs, where it is told to name them, which libvirt does."""

Reading = Mapping[Group, Spent | Unseen]


def read(instance: Instance) -> Reading:
    """Seconds of CPU that each group of an instance has used up to now.

    A control group counts the processes that ended too, and so serves for the workload wherever it has one.
    """
    found: dict[Group, Spent | Unseen] = {}
    for group, pids in instance.processes().items():
        if isinstance(pids, Unseen):
            found[group] = pids
        elif group == "guest":
            found[group] = _threads(pids, lambda name: VCPU.match(name) is not None)
        elif group == "vmm":
            found[group] = _threads(pids, lambda name: VCPU.match(name) is None)
        else:
            found[group] = processes(pids)
    if isinstance(found.get("workload"), Spent) and (counted := cgroup.cpu_time(instance.cgroups())):
        supervisors = instance.processes().get("supervisor", [])
        members = cgroup.members(instance.cgroups()["memory"])
        inside = [] if isinstance(supervisors, Unseen) else [pid for pid in supervisors if pid in members]
        found["workload"] = counted - _threads(inside)
    return found


def processes(pids: Sequence[int]) -> Spent:
    """The time of processes and of their children that ended. One that ended meanwhile counts nothing."""
    return _threads(pids) + sum((_reaped(pid) for pid in pids), Spent())


def start(before: Reading, after: Reading) -> list[Sample]:
    """CPU seconds by group, user and system apart, between two readings; from 0 for what was not there before."""
    samples = []
    for group, spent in after.items():
        earlier = before.get(group, Spent())
        if isinstance(spent, Unseen) or isinstance(earlier, Unseen):
            reason = next(each.reason for each in (spent, earlier) if isinstance(each, Unseen))
            samples.append(Sample("cpu.start", "s", None, group, reason=reason))
            continue
        used = spent - earlier
        samples += [Sample("cpu.start", "s", used.user, group, "user")]
        samples += [Sample("cpu.start", "s", used.system, group, "system")]
    return samples


def rest(before: Reading, after: Reading, seconds: float) -> list[Sample]:
    """CPUs in use by group: CPU seconds per second between two readings."""
    samples = []
    for group, spent in after.items():
        earlier = before.get(group, Spent())
        if isinstance(spent, Unseen):
            samples.append(Sample("cpu.rest", "1", None, group, reason=spent.reason))
        elif not isinstance(earlier, Unseen):
            samples.append(Sample("cpu.rest", "1", (spent - earlier).total / seconds, group))
    return samples


def _threads(pids: Sequence[int], wanted: Callable[[str], bool] = lambda name: True) -> Spent:
    return sum((_thread(task) for pid in pids for task in _tasks(pid) if wanted(_name(task))), Spent())


def _tasks(pid: int) -> list[Path]:
    return list(Path(f"/proc/{pid}/task").glob("*"))


def _name(task: Path) -> str:
    return _get(task / "comm").strip()


def _thread(task: Path) -> Spent:
    """Exactly, where the kernel keeps schedstat; else in ticks of 10 ms."""
    user, system = _ticks(task, 13)
    exact = int((_get(task / "schedstat").split() or ["0"])[0]) / 1e9
    return Spent.divided(exact, user, system) if exact else Spent(user, system)


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
