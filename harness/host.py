"""What machine this is, which version of this program measures on it, and what may disturb that."""

from __future__ import annotations

import json
import os
import platform
import socket
from pathlib import Path

import psutil

from harness import cgroup
from harness.command import CommandFailed, run
from harness.errors import Unavailable
from harness.meters import isolation
from harness.model import Host, Sample

COMMIT = "commit.json"
PRODUCT = Path("/sys/class/dmi/id/product_name")
LAB = "lab: "


def describe() -> Host:
    """Gating fields decide whether two results may be compared; informational ones are noted beside them."""
    release = platform.freedesktop_os_release()
    return Host(
        gating={
            "cpu model": _cpu_model(),
            "cores": os.cpu_count(),
            "architecture": platform.machine(),
            "kernel": platform.release(),
            "cgroup version": cgroup.version(),
            **({"lab": named} if (named := lab()) else {}),
        },
        informational={
            "hostname": socket.gethostname(),
            "system": release.get("PRETTY_NAME", "unknown"),
            "memory": psutil.virtual_memory().total,
            "uptime": round(float(Path("/proc/uptime").read_text().split()[0])),
            "uid": os.geteuid(),
            "python": platform.python_version(),
            "ksm": _ksm(),
            "boot id": Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
            "namespaces": {
                kind: Path(f"/proc/self/ns/{kind}").stat().st_ino
                for kind in isolation.NAMESPACES
                if Path(f"/proc/self/ns/{kind}").exists()
            },
        },
    )


def lab() -> str | None:
    """What a machine says that was made to try engines in, and is no measure of any other: its DMI product name.

    `lab: nested under emulation` makes every number of that machine bear these words. None for other machines.
    """
    try:
        product = PRODUCT.read_text()
    except OSError:
        return None
    return product.strip().removeprefix(LAB) if product.startswith(LAB) else None


def sample() -> list[Sample]:
    """Load, stolen CPU time since boot (seconds), available memory (bytes) and the CPUs' frequency (Hz), now."""
    return [
        Sample("host.load", "1", os.getloadavg()[0]),
        Sample("host.steal", "s", psutil.cpu_times().steal),
        Sample("host.memory_available", "B", psutil.virtual_memory().available),
        _frequency(),
    ]


def _frequency() -> Sample:
    """The mean over all CPUs."""
    found = psutil.cpu_freq()
    if found is None or not found.current:
        return Sample("host.frequency", "Hz", None, reason="the machine does not tell the frequency of its CPUs")
    return Sample("host.frequency", "Hz", found.current * 1e6)


def commit() -> tuple[str | None, bool | None]:
    """The commit of this program's checkout and whether it was changed since.

    Of an installed one that is told by whoever built it, in a file COMMIT beside this one; else it is unknown.
    """
    here = Path(__file__).parent
    if (here / COMMIT).exists():
        told, dirty = json.loads((here / COMMIT).read_text())
        return told, dirty
    try:
        done = [
            run(["git", "-C", here, *what]).strip()
            for what in (("rev-parse", "HEAD"), ("status", "--porcelain", "--", here))
        ]
    except (Unavailable, CommandFailed):
        return None, None
    return done[0], bool(done[1])


def _ksm() -> str:
    """Whether the kernel looks for pages of the same content, those of guests maybe, and makes them one.

    Source: Linux, Documentation/admin-guide/mm/ksm.rst.
    """
    try:
        return {"0": "off", "1": "on"}.get(Path("/sys/kernel/mm/ksm/run").read_text().strip(), "off, pages apart again")
    except OSError:
        return "not in this kernel"


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            return value.strip()
    return platform.processor() or "unknown"
