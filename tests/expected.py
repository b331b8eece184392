"""What each target's instances must be like, for the conformance tests: add a target here and they hold it to that."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from harness import cgroup
from harness.model import Group, Limits

ACCELERATOR = os.environ.get("WEIGHBRIDGE_ACCELERATOR", "tcg")
"""Of the machines: in the lab `kvm`."""
VM = f"libvirt/pc,accel={ACCELERATOR}"
SANDBOX_OF_ROOT = "namespace/pid,net"
LIMITS = Limits(cpus=1, memory=200 * 2**20)
"""Not the defaults: what is in force must be what was asked for."""
IS_ROOT = os.geteuid() == 0
ENGINES = "private" if IS_ROOT else "auto"
"""An ordinary user cannot start a Docker engine of their own; in the group docker they have the system's."""
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
    restored: bool = False


DIRECT = ("kernel", "initramfs", "base disk")
SAVED = (*DIRECT, "saved memory")
OF_LIBVIRT = ("overlay", "metadata", "log")
OF_QEMU = ("overlay", "log")


def machine(shared: tuple[str, ...], instance: tuple[str, ...] = OF_LIBVIRT) -> Expected:
    """A virtual machine, of which the host sees QEMU alone."""
    return Expected(
        frozenset({"workload", "guest", "vmm"}),
        frozenset(),  # inode numbers say nothing across kernels
        shared,
        instance,
        {"cpus": "1 vCPU", "memory": "guest RAM"},
        own_kernel=True,
        restored="saved memory" in shared,
    )


LAYER = ("upper", "overlay work", "log")
ALL_BUT_TIME = frozenset(EVERYWHERE) - {"time"}
# dockerd gives each container a cgroup namespace by default only on cgroup version 2.
EXPECTED = {
    "host": Expected(frozenset({"workload"}), frozenset(), ("tree",), LAYER),
    "userns-chroot": Expected(frozenset({"workload"}), frozenset({"mnt", "user"}), ("tree",), LAYER),
    "namespace": Expected(frozenset({"workload", "supervisor"}), ALL_BUT_TIME, ("tree",), LAYER, no_new_privs=1),
    SANDBOX_OF_ROOT: Expected(
        frozenset({"workload", "supervisor"}),
        frozenset({"mnt", "pid", "net"} if IS_ROOT else {"mnt", "pid", "net", "user"}),
        ("tree",),
        LAYER,
        no_new_privs=1,
    ),
    "docker": Expected(
        frozenset({"workload", "supervisor"}),
        frozenset({"mnt", "uts", "ipc", "pid", "net"} | ({"cgroup"} if cgroup.version() == 2 else set())),
        ("layers",),
        ("container layer", "-init layer", "metadata", "log"),
    ),
    VM: machine(DIRECT),
    f"libvirt/q35,accel={ACCELERATOR}": machine(DIRECT),
    f"libvirt/firmware,accel={ACCELERATOR}": machine(("base disk",)),
    f"libvirt/direct,accel={ACCELERATOR}": machine(DIRECT),
    f"libvirt/snapshot,accel={ACCELERATOR}": machine(SAVED),
    f"qemu/pc,accel={ACCELERATOR}": machine(DIRECT, OF_QEMU),
    f"qemu/micro,accel={ACCELERATOR}": machine(DIRECT, OF_QEMU),
    f"qemu/snapshot,accel={ACCELERATOR}": machine(SAVED, OF_QEMU),
}
if told := os.environ.get("WEIGHBRIDGE_CONFORM"):
    chosen = set(told.split(","))  # engines, as `libvirt`, or targets without their settings, as `libvirt/pc`
    EXPECTED = {key: EXPECTED[key] for key in EXPECTED if chosen & {key.partition("/")[0], key.partition(",")[0]}}
LOOKED_AT = [target for target in EXPECTED if target.partition(",")[0] in ("libvirt/pc", "libvirt/snapshot", "qemu/pc")]
LOOKED_AT += [target for target in EXPECTED if not EXPECTED[target].own_kernel]
"""Of which single instances are looked at; of the other machines one boot more each would take too long."""
