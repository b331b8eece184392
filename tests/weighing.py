"""A full weighing, made up: four targets, three workloads, every metric and part that a campaign can record.

The numbers are like those of a machine of 2 cores, and exact where a test wants to add them up.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness.meters.isolation import CAPABILITIES, NAMESPACES
from harness.model import (
    Applied,
    BundleRecord,
    Footer,
    Header,
    Host,
    ImageRecord,
    Limits,
    Plan,
    Run,
    Sample,
    TargetRecord,
)
from harness.store import Result

MIB = 2**20
BOOT_ID = "d4bb301e-dbf7-4324-9012-302dc1ea78e8"
INODES = {kind: 4026531832 + number for number, kind in enumerate(NAMESPACES)}
WORKLOADS = ("hello", "python", "redis")
TARGETS = (
    TargetRecord("host", "chroot", "9.1", "system"),
    TargetRecord("namespace", "unshare", "2.38.1", "system"),
    TargetRecord("docker", "dockerd", "20.10.24", "private"),
    TargetRecord("libvirt/pc", "QEMU", "7.2.17", "private", "tcg", "/dev/kvm is not there"),
)
DOCKER = (
    "chown", "dac_override", "fowner", "fsetid", "kill", "setgid", "setuid", "setpcap", "net_bind_service", "net_raw",
    "sys_chroot", "mknod", "audit_write", "setfcap",
)  # fmt: skip
UNSEEN = "inside the guest: its processes are not visible from the host"

_GROUPS = {"host": ("workload",), "namespace": ("workload", "supervisor"), "docker": ("workload", "supervisor")}
_MIBS = {"hello": 1.25, "python": 9.0, "redis": 14.0, "supervisor": 11.0, "guest": 115.0, "vmm": 45.0}
_OWN = {"host": (), "namespace": ("cgroup", "ipc", "mnt", "net", "pid", "user", "uts")}
_OWN |= {"docker": ("ipc", "mnt", "net", "pid", "uts"), "libvirt/pc": ()}
_START = {"host": 0.005, "namespace": 0.012, "docker": 0.21, "libvirt/pc": 2.75}


def full(rounds: int = 7, **plan: Any) -> Result:
    """A campaign of so many measured rounds; `plan`: other fields of its Plan."""
    planned = Plan(workloads=WORKLOADS, rounds=rounds, **plan)
    known = Host({"cores": 2}, {"boot id": BOOT_ID, "namespaces": INODES})
    header = Header(
        "weighbridge/1", "full", "2026-11-24T09:00:00Z", ["weighbridge", "run"], "e03f2a8", False, planned, known
    )
    cells = [(target.target, workload) for workload in WORKLOADS for target in TARGETS]
    runs = [
        _run(f"full-{number * len(cells) + place}", number, *cell, cold=planned.cold is not None)
        for number in range(rounds + 1)
        for place, cell in enumerate(cells)
    ]
    bundles = [BundleRecord(workload, "ab", 2 * MIB, {}) for workload in WORKLOADS]
    images = [ImageRecord(target, workload, list(_shared(target, workload))) for target, workload in cells]
    return Result(
        Path("full.jsonl"), header, bundles, list(TARGETS), [], images, [], runs, Footer(True, None, len(runs), 0)
    )


def _run(id: str, number: int, target: str, workload: str, cold: bool) -> Run:
    ready = _START[target] * (1 + 0.02 * (number * 5 % 7))
    times = {"requested": 0.0, "created": ready / 4, "ready": ready, "stopping": ready + 1, "gone": ready + 1.125}
    mechanisms = ("1 vCPU", "guest RAM") if target == "libvirt/pc" else ("cfs quota", "memory cgroup")
    asked = (Limits().cpus, Limits().memory)
    found = facts(target, number)
    return Run(
        id=id,
        seq=number,
        target=target,
        workload=workload,
        round=number,
        phase="measured" if number else "warmup",
        bundle_sha256="ab",
        ok=True,
        error=None,
        marks=list(times.items()),
        samples=[*_memory(target, workload, number), *_cpu(target, ready), *_disk(cold)],
        limits={
            name: Applied(amount, mechanism, found[name])
            for name, amount, mechanism in zip(("cpus", "memory"), asked, mechanisms, strict=True)
        },
        facts=found,
        cold=cold,
    )


def facts(target: str, number: int = 0) -> dict[str, Any]:
    """What an instance of the target says of the place that it is in; more processes run on the host each round."""
    machine = target == "libvirt/pc"
    held = DOCKER if target == "docker" else CAPABILITIES
    return {
        "boot_id": "f13de758-f723-4a10-8575-bf3cc68e03c0" if machine else BOOT_ID,
        "kernel": "6.1.0-56-cloud-amd64" if machine else "6.18.44",
        "namespaces": {kind: inode + 1000 * (kind in _OWN[target]) for kind, inode in INODES.items()},
        "uid_map": "0 1770000 1" if target == "namespace" else "0 0 4294967295",
        "capabilities": {"effective": f"{sum(1 << CAPABILITIES.index(name) for name in held):016x}"},
        "seccomp": 2 if target == "docker" else 0,
        "no_new_privs": int(target == "namespace"),
        "cpus": 1 if machine else 2,
        "memory": 218 * MIB if machine else 24 * 1024 * MIB,
        "processes": {"host": 84 + number, "libvirt/pc": 49}.get(target, 3),
    }


def _memory(target: str, workload: str, number: int) -> Iterator[Sample]:
    groups = _GROUPS.get(target, ("guest", "vmm"))
    for metric in ("memory.rss", "memory.pss", "memory.uss"):
        if "guest" in groups:
            yield Sample(metric, "B", None, "workload", reason=UNSEEN)
        for group in groups:
            small = group == "supervisor" and target == "namespace"
            whole = _MIBS[workload if group == "workload" else group] / (40 if small else 1)
            whole += _MIBS[workload] if group == "guest" else 0
            parts: dict[str | None, float] = {"anonymous": whole * 5 / 8, "file": whole * 2 / 8, "shmem": whole / 8}
            if group == "guest":
                parts = {"shmem": whole}
            if group == "vmm":
                parts["translation cache"] = 70.0
            if metric == "memory.uss":
                parts = {None: whole} | {part: mib for part, mib in parts.items() if part == "translation cache"}
            for part, mib in parts.items():
                yield Sample(metric, "B", int(mib * MIB) + 4096 * number, group, part)
    charged = {"anonymous": 1.5, "file": 4.0, "shmem": 0.0, "kernel": 0.5}
    if target == "libvirt/pc":
        yield Sample("memory.charged", "B", None, reason="libvirt made no control group for the machine")
    else:
        for part, mib in charged.items():
            yield Sample("memory.charged", "B", int(mib * MIB), None, part)


def _cpu(target: str, ready: float) -> Iterator[Sample]:
    groups = _GROUPS.get(target, ("guest", "vmm")) + (("daemon",) if target == "docker" else ())
    for group in groups:
        yield Sample("cpu.start", "s", ready / 2, group, "user")
        yield Sample("cpu.start", "s", ready / 4, group, "system")
        if group != "daemon":
            yield Sample("cpu.rest", "1", 0.0123 if group == "vmm" else 0.0, group)


def _disk(cold: bool) -> Iterator[Sample]:
    yield Sample("disk.instance", "B", 28672, part="upper")
    yield Sample("disk.instance", "B", 4096, part="log")
    if cold:
        yield Sample("cache.resident", "B", 0, part="tree")


def _shared(target: str, workload: str) -> Iterator[Sample]:
    tree = int(_MIBS[workload] * 2 * MIB)
    if target == "libvirt/pc":
        yield Sample("disk.shared", "B", tree * 5 // 4, part="base disk")
        yield Sample("disk.shared", "B", 8 * MIB, part="kernel")
        yield Sample("disk.shared", "B", 2 * MIB, part="initramfs")
    else:
        yield Sample("disk.shared", "B", tree, part="layers" if target == "docker" else "tree")
