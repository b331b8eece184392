"""Mounts in the host's own mount namespace, for the one target that has none of its own (host)."""

from __future__ import annotations

from pathlib import Path

import psutil

from harness.command import run
from harness.errors import Unavailable


def mount(kind: str, source: str | Path, target: Path, *options: str) -> None:
    """mount(8): `kind` a filesystem type, or "bind". Raises CommandFailed with mount's own words."""
    how = ["--bind"] if kind == "bind" else ["-t", kind]
    chosen = ["-o", ",".join(options)] if options else []
    run(["mount", *how, *chosen, source, target])


def check_layers(folder: Path) -> None:
    """Raises Unavailable where overlays cannot have their layers in this folder (overlayfs.rst: not on an overlay)."""
    kind = run(["stat", "--file-system", "--format", "%T", folder]).strip()
    if kind == "overlayfs":
        raise Unavailable(
            f"{folder} is on an overlay itself", "name a folder on a disk or a tmpfs by WEIGHBRIDGE_STATE"
        )


def below(path: str) -> list[str]:
    """The mount points at this folder or below it, deepest first; one stands there as often as it is mounted on."""
    real = Path(path).resolve()  # the kernel's list knows no links
    points = [p.mountpoint for p in psutil.disk_partitions(all=True)]
    return sorted((p for p in points if Path(p).is_relative_to(real)), key=len, reverse=True)


def unmount_below(path: str) -> None:
    """Unmounts whatever is mounted at this folder or below it. Raises CommandFailed with umount's own words."""
    for point in below(path):
        run(["umount", point])
