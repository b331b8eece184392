"""systemd's slices, which stand for libvirt's partitions where systemd-machined runs.

A slice stays loaded and active when its last scope is gone, until it is stopped.
Source: libvirt, src/util/virsystemd.c (virSystemdMakeSliceName); systemd.slice(5); systemd.unit(5), string escaping.
"""

from __future__ import annotations

from pathlib import Path

from harness.command import CommandFailed, find, run

SYSTEMD = Path("/run/systemd/system")
"""Exists where systemd manages this machine (sd_booted(3))."""
NOT_LOADED = 5
"""Exit status of `systemctl stop` for a unit that does not exist (systemctl(1), after the LSB)."""


def unit_of(partition: str) -> str:
    """Return the name of the slice for a partition at the root. A dash is escaped: it would be a level of hierarchy."""
    return partition.replace("-", r"\x2d") + ".slice"


def stop(unit: str) -> None:
    """Stop a slice. Without systemd, and where there is no such slice, nothing happens. Raises CommandFailed."""
    if not SYSTEMD.is_dir():
        return
    try:
        run([find("systemctl", "systemd"), "stop", unit])
    except CommandFailed as failure:
        if failure.status != NOT_LOADED:
            raise
