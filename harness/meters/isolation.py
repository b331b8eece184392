"""Isolation: what FACTS, read from inside an instance, say about its separation from the host.

Source: namespaces(7), user_namespaces(7), capabilities(7), proc(5): Seccomp and NoNewPrivs in /proc/PID/status.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, Literal

NAMESPACES = ("cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts")
"""All that Linux has, as /proc/PID/ns names them."""

ISOLATES = {
    "cgroup": "which control groups are seen, and as what",
    "ipc": "System V shared memory and message queues",
    "mnt": "mounts: which files there are at all",
    "net": "interfaces, addresses, ports, routes, firewall",
    "pid": "process numbers: which processes are seen and can be signalled",
    "time": "the offsets of the monotonic clock and of the time since boot",
    "user": "users, groups and capabilities: who root is",
    "uts": "the host's and the domain's name",
}

CAPABILITIES = (
    "chown", "dac_override", "dac_read_search", "fowner", "fsetid", "kill", "setgid", "setuid", "setpcap",
    "linux_immutable", "net_bind_service", "net_broadcast", "net_admin", "net_raw", "ipc_lock", "ipc_owner",
    "sys_module", "sys_rawio", "sys_chroot", "sys_ptrace", "sys_pacct", "sys_admin", "sys_boot", "sys_nice",
    "sys_resource", "sys_time", "sys_tty_config", "mknod", "lease", "audit_write", "audit_control", "setfcap",
    "mac_override", "mac_admin", "syslog", "wake_alarm", "block_suspend", "audit_read", "perfmon", "bpf",
    "checkpoint_restore",
)  # fmt: skip
"""In the order of their bits (linux/capability.h)."""

SECCOMP: dict[int | None, str] = {0: "none", 1: "strict", 2: "filter"}
SWITCH: dict[int | None, bool] = {0: False, 1: True}

Whose = Literal["own", "host's"]


@dataclass(frozen=True)
class Isolation:
    """None stands for what could not be told.

    kernel: whose it is; a kernel of its own makes all namespaces its own, and then its user map says nothing about
    the host's users. root: the uid that uid 0 inside is on the host. capabilities: the effective ones, by name, in
    the instance's own user namespace. cpus, memory (bytes), processes: what the inside sees.
    """

    kernel: Whose | None
    kernel_version: str | None
    namespaces: dict[str, Whose | None]
    root: int | None
    capabilities: tuple[str, ...] | None
    seccomp: str | None
    no_new_privileges: bool | None
    cpus: int | None
    memory: int | None
    processes: int | None

    @cached_property
    def configuration(self) -> Hashable:
        """All of it but the processes, of which each launch may see another number."""
        isolated = *self.namespaces.values(), self.root, self.capabilities, self.seccomp, self.no_new_privileges
        return self.kernel, self.kernel_version, isolated, self.cpus, self.memory


def read(facts: Mapping[str, Any], boot_id: str | None, namespaces: Mapping[str, int]) -> Isolation:
    """What FACTS say. boot_id, namespaces: the host's own, with inode numbers.

    Initial namespaces have the same inode numbers on every kernel, so that the boot id is compared first.
    """
    inside, told = _text(facts.get("boot_id")), facts.get("namespaces")
    inodes = told if isinstance(told, dict) else {}
    kernel: Whose | None = None if not inside or not boot_id else "host's" if inside == boot_id else "own"
    return _isolation(
        kernel,
        tuple([_whose(kernel, inodes.get(kind), namespaces.get(kind)) for kind in NAMESPACES]),
        _text(facts.get("kernel")),
        _text(facts.get("uid_map")),
        _effective(facts),
        _count(facts.get("seccomp")),
        _count(facts.get("no_new_privs")),
        _count(facts.get("cpus")),
        _count(facts.get("memory")),
        _count(facts.get("processes")),
    )


@lru_cache
def _isolation(
    kernel: Whose | None,
    namespaces: tuple[Whose | None, ...],
    version: str | None,
    uid_map: str | None,
    capabilities: str | None,
    seccomp: int | None,
    no_new_privs: int | None,
    cpus: int | None,
    memory: int | None,
    processes: int | None,
) -> Isolation:
    """Of many launches nearly all find the same."""
    return Isolation(
        kernel=kernel,
        kernel_version=version,
        namespaces=dict(zip(NAMESPACES, namespaces, strict=True)),
        root=_root(uid_map) if kernel == "host's" else None,
        capabilities=_capabilities(capabilities),
        seccomp=SECCOMP.get(seccomp),
        no_new_privileges=SWITCH.get(no_new_privs),
        cpus=cpus,
        memory=memory,
        processes=processes,
    )


def _whose(kernel: Whose | None, inside: object, outside: int | None) -> Whose | None:
    if kernel == "own":
        return "own"
    if kernel is None or type(inside) is not int or outside is None:
        return None
    return "host's" if inside == outside else "own"


def _root(uid_map: str | None) -> int | None:
    """The uid outside that 0 inside is, by a map of lines `inside outside count` with "; " between them."""
    for line in (uid_map or "").split("; "):
        if first := re.match(r"0 ([0-9]{1,10})(?= |$)", line):
            return int(first[1])
    return None


def _effective(facts: Mapping[str, Any]) -> str | None:
    told = facts.get("capabilities")
    return _text(told.get("effective")) if isinstance(told, dict) else None


def _capabilities(mask: str | None) -> tuple[str, ...] | None:
    if mask is None or not re.fullmatch("[0-9a-fA-F]{1,16}", mask):
        return None
    bits = int(mask, 16)
    unnamed = (f"#{bit}" for bit in range(len(CAPABILITIES), bits.bit_length()) if bits >> bit & 1)
    return (*(name for bit, name in enumerate(CAPABILITIES) if bits >> bit & 1), *unnamed)


def _text(told: object) -> str | None:
    return told if isinstance(told, str) and told else None


def _count(told: object) -> int | None:
    return told if type(told) is int and told >= 0 else None
