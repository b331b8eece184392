"""What each target's instances must be like, for the conformance tests: add a target here and they hold it to that."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from harness import cgroup
from harness.model import Group, Limits

VM = "libvirt/pc,accel=tcg"
SANDBOX_OF_ROOT = "namespace/pid,net"
LIMITS = Limits(cpus=1, memory=200 * 2**20)
"""Not the defaults: what is in force must be what was asked for."""
EVERYWHERE = ["cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"]


@dataclass(frozen=True)
class Expected:
    """What the record of a target's runs must say. namespaces: those that differ from ours."""

    groups: frozenset[Group]
    namespaces: frozenset[str]
    shared: tuple[str, ...]
    instance: tuple[str, ...]
    mechanisms: Mapping[str, str] = field(
        default_factory=lambda: {"cpus": f"cfs quota, cgroup v{cgroup.version()}",
                                 "memory": f"memory cgroup, cgroup v{cgroup.version()}"}
    )  # fmt: skip
    no_new_privs: int = 0
    own_kernel: bool = False


LAYER = ("upper", "overlay work", "log")
ALL_BUT_TIME = frozenset(EVERYWHERE) - {"time"}
EXPECTED = {
    "host": Expected(frozenset({"workload"}), frozenset(), ("tree",), LAYER),
    "userns-chroot": Expected(frozenset({"workload"}), frozenset({"mnt", "user"}), ("tree",), LAYER),
    "namespace": Expected(frozenset({"workload", "supervisor"}), ALL_BUT_TIME, ("tree",), LAYER, no_new_privs=1),
    SANDBOX_OF_ROOT: Expected(
        frozenset({"workload", "supervisor"}), frozenset({"mnt", "pid", "net"}), ("tree",), LAYER, no_new_privs=1
    ),
    "docker": Expected(
        frozenset({"workload", "supervisor"}),
        frozenset({"mnt", "uts", "ipc", "pid", "net"}),
        ("layers",),
        ("container layer", "-init layer", "metadata", "log"),
    ),
    VM: Expected(
        frozenset({"workload", "guest", "vmm"}),
        frozenset(),  # inode numbers say nothing across kernels
        ("kernel", "initramfs", "base disk"),
        ("overlay", "metadata", "log"),
        {"cpus": "1 vCPU", "memory": "guest RAM"},
        own_kernel=True,
    ),
}
