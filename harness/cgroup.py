"""Control groups, version 1 and 2, for the engines that have no daemon to make them.

Source: Linux, Documentation/admin-guide/cgroup-v1 and cgroup-v2.rst.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from harness import slices
from harness.errors import EngineError
from harness.ledger import Ledger
from harness.limiting import KERNEL_PARAMETERS, format_root_command, get_current_place
from harness.limiting import Refusal as Refusal
from harness.model import Applied, Limits
from harness.process import kill
from harness.spent import Spent

ROOT = Path("/sys/fs/cgroup")
JOIN = 'while [ "$1" != -- ]; do echo 0 > "$1" || exit; shift; done; shift; exec "$@"'
LIMITED_BY = {"cpus": "cpu", "memory": "memory"}
"""{limit: the controller that applies it}."""
MECHANISMS = {"cpus": "cfs quota", "memory": "memory cgroup"}
V2_KERNEL = ("kernel_stack", "pagetables", "percpu", "sock", "slab")
"""What memory.stat has instead of `kernel`, before Linux 5.18."""
PARTITION = ".partition"
"""What libvirt adds to the name of a partition for the name of its control group."""
PERIOD = 100_000
"""Microseconds of one CPU quota period, the kernel's default."""


@dataclass(frozen=True)
class ControlGroup:
    """folders: {controller: its folder for this group}; refused: {limit: why it cannot be applied}."""

    limits: Limits
    folders: dict[str, Path] = field(default_factory=dict)
    refused: Mapping[str, Refusal] = field(default_factory=dict)

    def applied(self) -> dict[str, Applied]:
        """How each limit was applied, or why not."""
        found = applied(self.folders, self.limits)
        for limit, refusal in self.refused.items():
            found[limit] = Applied(found[limit].asked, None, reason=str(refusal))
        return found

    @property
    def doors(self) -> list[str]:
        """The files to which whoever writes 0 joins the group.

        In version 1 the shell, one thread, joins as a thread: a process that joins waits 10 ms for the kernel's
        threadgroup lock.
        """
        door = "cgroup.procs" if version() == 2 else "tasks"
        return [f"{folder}/{door}" for folder in dict.fromkeys(map(str, self.folders.values()))]

    def joining(self, tree: Path, argv: Sequence[str]) -> list[str]:
        """argv, run from within the group: the bundle's static shell joins, which costs a fraction of another exec.

        argv[0] must be an absolute path: that shell prefers its own applets to programs of the same name.
        """
        doors = self.doors
        return [f"{tree}/bin/busybox", "sh", "-c", JOIN, "join", *doors, "--", *argv] if doors else list(argv)


def find_refusals() -> dict[str, Refusal | None]:
    """Return {limit: why it cannot be applied to a new group, or None if it can}, for "cpus" and "memory".

    An ordinary user can have limits only inside of a `delegation.enter_delegated_group` block.
    """
    tops = {limit: _find_top(controller) for limit, controller in LIMITED_BY.items()}
    return {limit: top if isinstance(top, Refusal) else None for limit, top in tops.items()}


def refusal() -> Refusal | None:
    """Return the first refusal of `find_refusals`; None if all limits can be applied to a new group."""
    return next(filter(None, find_refusals().values()), None)


def _find_top(controller: str) -> Path | Refusal:
    """Return the folder in which this process creates groups with this controller, or why it cannot."""
    if (place := get_current_place()) is not None:
        return place.refused.get(controller) or place.top
    top = hierarchy(controller)
    if top is None:
        enable = f"echo '+cpu +memory' | sudo tee {ROOT}/cgroup.subtree_control"
        command = enable if controller in list_offered_controllers() else KERNEL_PARAMETERS
        return Refusal(f"the {controller} controller is not enabled at {ROOT}", command)
    if not os.access(top, os.W_OK):
        return Refusal(f"uid {os.geteuid()} has no write access to {top}", format_root_command())
    return top


def version() -> int:
    """2 where the unified hierarchy has the controllers, else 1."""
    return 2 if (ROOT / "cgroup.controllers").exists() else 1


def list_offered_controllers() -> list[str]:
    """Return the controllers that the kernel offers to cgroup version 2."""
    return (_get(ROOT, "cgroup.controllers") or "").split()


def hierarchy(controller: str) -> Path | None:
    """The root folder of the hierarchy that has this controller; None where the kernel offers none."""
    if version() == 2:
        return ROOT if controller in (ROOT / "cgroup.subtree_control").read_text().split() else None
    folder = ROOT / controller
    return folder.resolve() if folder.is_dir() else None


def members(folder: Path) -> list[int]:
    """The pids in a group and in all groups below it; none where the group is gone."""
    pids: list[int] = []
    for below, _, _ in os.walk(folder):
        try:
            pids += map(int, (Path(below) / "cgroup.procs").read_text().split())
        except (FileNotFoundError, OSError):  # removed meanwhile
            continue
    return pids


def cpu_time(folders: Mapping[str, Path]) -> Spent | None:
    """What all that ever ran in a group have used; None where it has no such controller of its own, or is gone."""
    if version() == 2:
        told = _get(folders.get("cpu"), "cpu.stat")
        fields = dict(line.split() for line in told.splitlines()) if told else {}
        return Spent(int(fields["user_usec"]) / 1e6, int(fields["system_usec"]) / 1e6) if fields else None
    names = ("cpuacct.usage", "cpuacct.usage_user", "cpuacct.usage_sys")
    exact, user, system = (_get(folders.get("cpuacct"), name) for name in names)
    return Spent.divided(int(exact) / 1e9, int(user), int(system)) if exact and user and system else None


def memory_charge(folder: Path) -> dict[str, int]:
    """Bytes charged to a group and those below it, by kind; `kernel` is left out where the kernel does not tell.

    The kernel gathers the counters of its CPUs one after the other: none is right to the page while pages come and go.
    Raises EngineError where the group is gone.
    """
    told = _get(folder, "memory.stat")
    if told is None:
        raise EngineError(f"{folder}/memory.stat cannot be read")
    stat = {name: int(value) for name, value in (line.split() for line in told.splitlines())}
    if version() == 2:
        kernel = stat.get("kernel", sum(stat.get(name, 0) for name in V2_KERNEL))
        return {
            "anonymous": stat["anon"],
            "file": max(0, stat["file"] - stat["shmem"]),
            "shmem": stat["shmem"],
            "kernel": kernel,
        }
    kinds = {
        "anonymous": stat["total_rss"],
        "file": max(0, stat["total_cache"] - stat["total_shmem"]),
        "shmem": stat["total_shmem"],
    }
    counted = _get(folder, "memory.kmem.usage_in_bytes")
    return kinds if counted is None else {**kinds, "kernel": int(counted)}


def out_of_memory(folders: Mapping[str, Path]) -> int:
    """How many processes of a group were killed because it was at its limit of memory; 0 where nobody counts."""
    file = "memory.events" if version() == 2 else "memory.oom_control"
    told = re.search(r"^oom_kill (\d+)$", _get(folders.get("memory"), file) or "", re.MULTILINE)
    return int(told[1]) if told else 0


def of_process(pid: int) -> dict[str, Path]:
    """{controller: folder} of a running process, as the host sees it; the unified hierarchy counts for every one."""
    found: dict[str, Path] = {}
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        for controller in controllers.split(","):
            if version() == 2 and not controller:
                found |= dict.fromkeys(("cpu", "memory"), ROOT / path.lstrip("/"))
            elif controller and (top := hierarchy(controller)) is not None:
                found[controller] = top / path.lstrip("/")
    return found


def remove(name: str | None = None, folders: Sequence[str] = ()) -> None:
    """Remove control groups with all groups below them, and end the processes in them.

    folders: absolute paths. name: the groups of that name at the root of every hierarchy, and one level below; with a
    partition (`*.partition`) goes the slice that systemd keeps instead of it.
    A killed process stays a member until the kernel has released it, so this waits. systemd may remove the same
    folders, because a scope disappears with its last process.
    """
    named = (ROOT / name, *ROOT.glob(f"*/{name}")) if name else ()
    for top in (*map(Path, folders), *named):
        while pids := members(top):
            for pid in pids:
                _end(pid)
        for below, _, _ in os.walk(top, topdown=False):
            with suppress(FileNotFoundError):
                Path(below).rmdir()
    if name is not None and name.endswith(PARTITION):
        unit = slices.unit_of(name.removesuffix(PARTITION))
        slices.stop(unit)
        remove(unit)


def _end(pid: int) -> None:
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        kill(pidfd)
    finally:
        os.close(pidfd)


def applied(folders: Mapping[str, Path], limits: Limits) -> dict[str, Applied]:
    """How an engine applied these limits to a group of its own making: what the group's files say, not the engine."""
    asked: dict[str, float | int] = {"cpus": limits.cpus, "memory": limits.memory}
    wanted = {"cpus": ("cpu", "cpu limit"), "memory": ("memory", "memory limit")}
    found = {}
    for name, (controller, told) in wanted.items():
        differing = [
            f"{file} is {_get(folders.get(controller), file)}"
            for file, value in settings(limits)[controller].items()
            if _get(folders.get(controller), file) != value
        ]
        reason = f"the engine did not apply the {told}: {'; '.join(differing)}" if differing else None
        found[name] = Applied(
            asked[name], None if reason else f"{MECHANISMS[name]}, cgroup v{version()}", reason=reason
        )
    return found


def _get(folder: Path | None, file: str) -> str | None:
    try:
        return (folder / file).read_text().strip() if folder else None
    except OSError:
        return None


def make_partition(name: str) -> None:
    """Makes an empty group of that name in every hierarchy, for an engine that makes its own groups below it."""
    # Controllers that are mounted together have a link each to one folder.
    tops = [ROOT] if version() == 2 else {top.resolve() for top in ROOT.iterdir() if (top / "cgroup.procs").exists()}
    for top in tops:
        (top / name).mkdir()
        # A cpuset (v1) has no CPUs until it is given some, and takes no process before.
        for file in ("cpuset.cpus", "cpuset.mems") if version() == 1 and (top / "cpuset.cpus").exists() else ():
            _set(top / name / file, (top / file).read_text())


@contextmanager
def limited(ledger: Ledger, name: str, limits: Limits, enforced: bool = True) -> Iterator[ControlGroup]:
    """Create a group with these limits. Where one cannot be applied, `applied` has the reason; nothing is raised.

    enforced: otherwise the group only counts, for an engine that has limits of its own.
    """
    tops = {controller: _find_top(controller) for controller in settings(limits)}
    refused = {limit: top for limit, by in LIMITED_BY.items() if isinstance(top := tops[by], Refusal)}
    folders = {controller: top / name for controller, top in tops.items() if isinstance(top, Path)}
    if len(refused) == len(LIMITED_BY):
        yield ControlGroup(limits, refused=refused)
        return
    with ledger.holding(remove, folders=[*dict.fromkeys(map(str, folders.values()))]):
        for controller, folder in folders.items():
            folder.mkdir(exist_ok=True)
            for file, value in settings(limits)[controller].items() if enforced else ():
                _set(folder / file, value)
        if version() == 2:  # cpu.stat is there without the controller
            folders.setdefault("cpu", next(iter(folders.values())))
        yield ControlGroup(limits, folders, refused)


def settings(limits: Limits) -> dict[str, dict[str, str]]:
    """{controller: {file: what is written to it}} for a group with these limits."""
    quota = str(round(limits.cpus * PERIOD))
    if version() == 2:
        return {"cpu": {"cpu.max": f"{quota} {PERIOD}"}, "memory": {"memory.max": str(limits.memory)}}
    return {
        "cpu": {"cpu.cfs_period_us": str(PERIOD), "cpu.cfs_quota_us": quota},
        "cpuacct": {},
        "memory": {"memory.limit_in_bytes": str(limits.memory)},
    }


def _set(file: Path, value: str) -> None:
    try:
        file.write_text(value)
    except OSError as error:
        raise EngineError(f"cannot set {file} to {value}: {error.strerror}") from error
