"""What is on a machine that a campaign could leave behind, as lines that can be compared.

Who else uses the machine must not make a comparison fail. So processes are not searched for by name: the tests' own
process becomes a subreaper (prctl(2)), to which everything that a campaign starts falls, however it detaches itself,
and whatever descends from us is a campaign's. And files, sockets, links and firewalls are looked at where nobody else
makes any: on a Stage, in mount and network namespaces of its own, where the usual folders are empty as on a machine
that never saw an engine. Control groups in which somebody else runs are somebody else's. Loop devices and the
machine's own mounts, links and firewall are compared in full, and where systemd runs its units and user managers.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import psutil

from harness import pace

TIMEOUT = pace.deadline(60.0, 1500)
PR_SET_CHILD_SUBREAPER = 36

EMPTIED = (
    *("/tmp", "/var/tmp", "/run", "/dev/shm", "/var/lib/machines"),
    *("/var/lib/docker", "/var/lib/containerd", "/etc/docker"),
    *("/var/lib/libvirt", "/var/log/libvirt", "/var/cache/libvirt", "/etc/libvirt", "/etc/apparmor.d/libvirt"),
)
MACHINES_OWN = (Path("/etc/apparmor.d/libvirt"),)
"""Folders that are compared outside the stage too: with the stage's processes, a daemon of the machine may use them."""
HOMES = (".cache/libvirt", ".config/libvirt", ".local/share/libvirt", ".docker")

NETWORK = """
    ip -o link | sed 's/ qlen.*//; s/^/link: /'
    for save in iptables-save ip6tables-save; do
        ! command -v $save >/dev/null || $save 2>/dev/null | sed "/^#/d; s/ \\[.*//; s/^/$save: /"
    done
    ! command -v nft >/dev/null || nft list ruleset | sed 's/ packets .*//; s/^/nft: /'
    for sysctl in ipv4/ip_forward ipv4/conf/all/forwarding ipv6/conf/all/forwarding bridge/bridge-nf-call-iptables; do
        [ ! -e /proc/sys/net/$sysctl ] || echo "sysctl: $sysctl $(cat /proc/sys/net/$sysctl)"
    done
"""

SYSTEMD = Path("/run/systemd/system")
UNITS = "--type=slice,scope,service,socket,mount"
ON_DEMAND = frozenset(
    {
        "machine.slice",
        *("libvirtd.service", "virtqemud.service", "virtlogd.service", "virtlockd.service"),
        *("systemd-machined.service", "systemd-hostnamed.service", "systemd-timedated.service", "polkit.service"),
    }
)
"""Units of the machine's own packages that a bus or a socket starts: a running one is not a leftover."""

STAGE = """
    set -e
    for folder; do mount -t tmpfs -o mode=1777 stage "$folder"; done
    ip link set lo up
    echo ready
    exec cat
"""


@dataclass(frozen=True)
class Inventory:
    """Lines as `mount: ...`, `process: ...`."""

    things: frozenset[str]

    def changes(self, after: Inventory) -> list[str]:
        """What came (+) and what went (-) until `after`, readable."""
        came = [f"+ {thing}" for thing in sorted(after.things - self.things)]
        return came + [f"- {thing}" for thing in sorted(self.things - after.things)]


class Stage:
    """Mount and network namespaces of their own, kept by a process that does nothing. Everything else is shared."""

    def __init__(self, pid: int, emptied: Sequence[Path]) -> None:
        self.pid = pid
        self.emptied = emptied

    @classmethod
    @contextmanager
    def set_up(cls, *kept: Path) -> Iterator[Self]:
        """kept: what must be seen there, so that a folder which it lies in is not emptied. Needs root."""
        there = [Path(name) for name in EMPTIED if Path(name).is_dir()]
        emptied = [folder for folder in there if not any(path.is_relative_to(folder) for path in kept)]
        argv = ["unshare", "--mount", "--net", "sh", "-c", STAGE, "sh", *map(str, emptied)]
        with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdin is not None and process.stdout is not None
            assert process.stdout.readline() == "ready\n", "the stage's namespaces cannot be made"
            yield cls(process.pid, emptied)
            process.stdin.close()
            process.wait(TIMEOUT)

    def within(self, *argv: str | Path) -> list[str]:
        """A command that runs there, in the folder /; it becomes argv without another fork."""
        return ["nsenter", f"--target={self.pid}", "--mount", "--net", *map(str, argv)]

    def path(self, path: str | Path) -> Path:
        """Where a path of the stage is seen from here."""
        return Path(f"/proc/{self.pid}/root") / str(path).lstrip("/")


@contextmanager
def adopting_orphans() -> Iterator[None]:
    """Makes this process the parent of every descendant whose own parent ends, which then must be waited for by us.

    libvirt looks whether the QEMU that it ended is gone, which it is not before that. What is in our own session
    is waited for by whoever started it.
    """
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")
    over = threading.Event()
    thread = threading.Thread(target=_wait_for_adopted, args=(over,), name="orphans", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


def _wait_for_adopted(over: threading.Event) -> None:
    mine = os.getsid(0)
    children = Path(f"/proc/self/task/{os.getpid()}/children")
    while not over.wait(0.02):
        for pid in map(int, children.read_text().split()):
            with suppress(ProcessLookupError, ChildProcessError):
                if os.getsid(pid) != mine:
                    os.waitpid(pid, os.WNOHANG)


def take(stage: Stage, *folders: Path) -> Inventory:
    """The inventory of the machine and of the stage; `folders`: what else to list. Takes about 0.1 s."""
    homes = [Path.home() / name for name in HOMES]
    things = [
        *_processes(),
        *_cgroups(),
        *_loop_devices(),
        *_files(Path("/"), [*homes, *MACHINES_OWN]),
        *_units(),
        *_user_managers(),
        *_view("machine", os.getpid(), []),
        *_view("stage", stage.pid, stage.within()),
        *_files(stage.path("/"), [*stage.emptied, *folders]),
        *_sockets(stage.pid),
    ]
    return Inventory(frozenset(things))


def descendants() -> list[psutil.Process]:
    """The processes that descend from this one; what is dead and only not yet waited for is left out."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.NoSuchProcess:
            continue
    return found


def arguments(process: psutil.Process) -> list[str]:
    """What it was started with; nothing where it has ended."""
    try:
        return process.cmdline()
    except psutil.NoSuchProcess:
        return []


def _processes() -> Iterator[str]:
    for process in descendants():
        try:
            told = f"{process.pid} started {process.create_time()}: {' '.join(process.cmdline())[:200]}"
            yield f"process: {told}"
            yield f"network namespace: {Path(f'/proc/{process.pid}/ns/net').readlink()}"
        except (psutil.NoSuchProcess, FileNotFoundError):
            continue


def _cgroups() -> Iterator[str]:
    tops = {line.split()[1] for line in Path("/proc/mounts").read_text().splitlines() if line.startswith("cgroup")}
    ours = {process.pid for process in descendants()}
    for top in sorted(tops):
        for folder, _, _ in os.walk(top):
            try:
                members = set(map(int, (Path(folder) / "cgroup.procs").read_text().split()))
            except OSError:  # gone, or threaded
                continue
            if members <= ours:
                yield f"cgroup: {folder}"


def _loop_devices() -> Iterator[str]:
    for device in Path("/sys/block").glob("loop*"):
        backing = device / "loop/backing_file"
        if backing.exists():
            yield f"loop device: {device.name} {backing.read_text().strip()}"


def _units() -> Iterator[str]:
    """The units that systemd has loaded, and those of our own user manager; none where systemd does not run."""
    managers = [["systemctl"]] if SYSTEMD.is_dir() else []
    if managers and Path(f"/run/user/{os.getuid()}/systemd/private").exists():
        managers.append(["systemctl", "--user"])
    for manager in managers:
        argv = [*manager, "list-units", "--all", "--plain", "--no-legend", "--no-pager", "--full", UNITS]
        listed = subprocess.run(argv, capture_output=True, text=True, timeout=TIMEOUT, check=True).stdout
        for unit, _, active, *_ in map(str.split, listed.splitlines()):
            if unit not in ON_DEMAND:
                yield f"{' '.join(manager[1:])}unit: {unit} {active}"


def _user_managers(top: Path = Path("/run/user")) -> Iterator[str]:
    """The users who have a runtime folder, and the files of engines in it."""
    for folder in sorted(top.glob("*")):
        yield f"user manager: {folder.name}"
        kept = [folder / name for name in ("libvirt", "docker", "containerd", "systemd/transient")]
        yield from _files(Path("/"), [path for path in kept if os.access(path, os.R_OK)])


def _view(name: str, pid: int, enter: Sequence[str]) -> Iterator[str]:
    """Mounts and network as a process sees them."""
    for line in Path(f"/proc/{pid}/mountinfo").read_text().splitlines():
        own, _, filesystem = line.partition(" - ")
        _, _, _, root, point, options, *_ = own.split()
        yield f"{name}: mount: {point} {options} of {root} {filesystem}"
    done = subprocess.run([*enter, "sh", "-c", NETWORK], capture_output=True, text=True, timeout=TIMEOUT, check=True)
    yield from (f"{name}: {line}" for line in done.stdout.splitlines())


def _files(root: Path, folders: Iterable[Path]) -> Iterator[str]:
    for folder in folders:
        seen = root / str(folder).lstrip("/")
        for below, inner, files in os.walk(seen):
            for path in inner + files:
                yield f"file: {Path('/') / Path(below, path).relative_to(root)}"


def _sockets(pid: int) -> Iterator[str]:
    for line in Path(f"/proc/{pid}/net/unix").read_text().splitlines()[1:]:
        if len(fields := line.split(maxsplit=7)) == 8:
            yield f"socket: {fields[7]}"
    for kind in ("tcp", "tcp6", "udp", "udp6"):
        for line in Path(f"/proc/{pid}/net/{kind}").read_text().splitlines()[1:]:
            _, local, _, state, *_ = line.split()
            if state in ("0A", "07"):  # listening; what udp has instead
                yield f"socket: {kind} {local}"
