"""Where a Docker engine keeps an image and a container on disk, in whichever of its two stores it has them.

overlay2 tells its folders (GraphDriver). The containerd store does not: there the kernel tells what is mounted, and the
blobs are found by the digests that lead to them.
Source: Docker, engine/storage/drivers/overlayfs-driver and engine/storage/containerd; proc_pid_mountinfo(5); the OCI
image specification (index, manifest).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from harness.backends import Part, Unseen
from harness.decode import Undecodable, decode_json

Store = Literal["overlay2", "containerd"]

SNAPSHOTTER = "io.containerd.snapshotter.v1"
CONTENT = "io.containerd.content.v1.content/blobs/sha256"


@dataclass(frozen=True)
class Layers:
    """The folders of a container's layers: its own, the engine's -init under it, and the image's."""

    own: Path
    init: Path
    image: tuple[Path, ...]


def store_of(info: Mapping[str, Any]) -> Store | None:
    """The store that an engine says it has; None for one that is neither (btrfs, vfs, zfs)."""
    if ["driver-type", SNAPSHOTTER] in (info.get("DriverStatus") or []):
        return "containerd"
    return "overlay2" if info.get("Driver") == "overlay2" else None


def layers(store: Store | None, about: Mapping[str, Any], pid: int | None) -> Layers | Unseen:
    """Those of a container. about: what the engine tells of it. pid: of its first process on the host, if it runs."""
    if store == "overlay2":
        data = about["GraphDriver"]["Data"]
        own = Path(data["UpperDir"]).parent
        lowers = [Path(lower).parent for lower in data["LowerDir"].split(":")]
        return Layers(own, lowers[0], tuple(lowers[1:]))
    if store == "containerd" and pid is not None and (mounted := _root_of(pid)):
        upper, lowers = mounted
        return Layers(upper.parent, lowers[0].parent, tuple(lower.parent for lower in lowers[1:]))
    return Unseen("this engine keeps its images in a store whose folders it does not tell")


def reported_size(size: int) -> int | Unseen:
    """Return a size of the Engine API, in apparent bytes. size: negative if the engine could not compute it."""
    return size if size >= 0 else Unseen("the engine could not compute its size")


def image_parts(found: Layers | Unseen, about: Mapping[str, Any]) -> tuple[Part, ...]:
    """What an image keeps. found: the layers of any of its containers. about: what the engine tells of the image."""
    if isinstance(found, Unseen):
        return (Part("layers", found),)
    parts = (Part("layers", found.image),)
    snapshots = next((place for place in found.own.parents if place.name.startswith(SNAPSHOTTER)), None)
    if snapshots is None:
        return parts
    try:
        blobs = tuple(_blobs(snapshots.parent / CONTENT, about["Id"].removeprefix("sha256:")))
    except PermissionError as error:
        return (*parts, Part("content", Unseen(f"{error.filename}: {error.strerror}")))
    return (*parts, Part("content", blobs or Unseen("the image's blobs are not where containerd keeps them")))


def container_parts(found: Layers | Unseen, about: Mapping[str, Any]) -> tuple[Part, ...]:
    """The writable layer, the -init layer under it, and what the engine keeps of the container besides."""
    log = Path(about["LogPath"]) if about.get("LogPath") else None
    kept = Path(about["HostnamePath"]).parent if about.get("HostnamePath") else None
    metadata = tuple(path for path in _listed(kept) if path != log) if kept else ()
    return (
        Part("container layer", found if isinstance(found, Unseen) else (found.own,)),
        Part("-init layer", found if isinstance(found, Unseen) else (found.init,)),
        Part("metadata", metadata or Unseen("the engine's folder of the container cannot be read")),
        *((Part("log", (log,)),) if log else ()),
    )


def _root_of(pid: int) -> tuple[Path, list[Path]] | None:
    """The upper folder and the lower ones of the overlay that a process has for its root."""
    for line in Path(f"/proc/{pid}/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ", 2)
        if before.split()[4] == "/" and kind == "overlay":
            told = dict(re.findall(r"(lowerdir|upperdir)=([^, ]+)", options))
            return Path(told["upperdir"]), [Path(lower) for lower in told["lowerdir"].split(":")]
    return None


def _blobs(folder: Path, digest: str) -> Iterator[Path]:
    """A blob, and those that it names where it is an index or a manifest."""
    blob = folder / digest
    if not blob.is_file():
        return
    yield blob
    with blob.open("rb") as content:
        if content.read(1) != b"{":  # a layer
            return
    try:
        named_in = decode_json(blob.read_bytes())
    except Undecodable:  # neither an index nor a manifest: it names no other blob
        return
    for named in (*named_in.get("manifests", ()), *named_in.get("layers", ()), named_in.get("config")):
        if isinstance(named, dict) and "digest" in named:
            yield from _blobs(folder, named["digest"].removeprefix("sha256:"))


def _listed(folder: Path) -> tuple[Path, ...]:
    try:
        return tuple(folder.iterdir())
    except OSError:  # the engine's folders are for root alone: the part says that it is unseen
        return ()
