"""What a root filesystem holds, as one digest, wherever it is kept: a folder or a tar.

Owners and times are left out: they are another user's in a sandbox and say nothing about the workload. So are the one
file in which the digest itself stands, and the sticky bit, which debugfs does not give back from a disk.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from harness.errors import BadInput

STAMP = "etc/weighbridge-bundle"  # where in a bundle its digest stands


@dataclass(frozen=True, order=True)
class Entry:
    """A folder, file or link: `holds` is a link's target, or the SHA-256 of a file's content."""

    path: str
    kind: str
    mode: int
    holds: str


def digest_of_tree(root: Path) -> str:
    """SHA-256 of the content of a folder. Raises BadInput where something in it is no folder, file or link."""
    return _digest(_entry_of(path, root) for path in walk(root))


def digest_of_tar(path: Path) -> str:
    """SHA-256 of the content of a tar, equal to that of the folder it was made of. Raises BadInput as that does."""
    with tarfile.open(path) as tar:
        return _digest(_entry_in(member, tar, path) for member in tar)


def walk(root: Path) -> Iterator[Path]:
    """The folder and everything below it, in an order that depends on nothing but the names."""
    yield root
    for folder, folders, files in os.walk(root, onerror=_raise):
        folders.sort()
        yield from (Path(folder, name) for name in sorted(folders + files))


def _raise(error: OSError) -> None:
    raise error


def link_target(path: Path) -> str:
    """Where a link points, to the letter: Path.readlink() would tidy it up."""
    return os.readlink(path)  # noqa: PTH115


def _digest(entries: Iterable[Entry]) -> str:
    total = hashlib.sha256()
    for entry in sorted(entries):
        if entry.path != STAMP:
            total.update(json.dumps([entry.path, entry.kind, entry.mode, entry.holds]).encode() + b"\n")
    return total.hexdigest()


def _entry_of(path: Path, root: Path) -> Entry:
    name = path.relative_to(root).as_posix()
    status = path.lstat()
    mode = status.st_mode & 0o777
    if stat.S_ISDIR(status.st_mode):
        return Entry(name, "folder", mode, "")
    if stat.S_ISLNK(status.st_mode):
        return Entry(name, "link", 0o777, link_target(path))
    if stat.S_ISREG(status.st_mode):
        return Entry(name, "file", mode, digest_of_file(path))
    raise BadInput(f"{path}: a bundle holds folders, files and links, nothing else")


def digest_of_file(path: Path) -> str:
    """SHA-256 of the content of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _entry_in(member: tarfile.TarInfo, tar: tarfile.TarFile, path: Path) -> Entry:
    name = str(PurePosixPath(member.name))
    if member.isdir():
        return Entry(name, "folder", member.mode & 0o777, "")
    if member.issym():
        return Entry(name, "link", 0o777, member.linkname)
    content = tar.extractfile(member) if member.isreg() else None
    if content is None:
        raise BadInput(f"{path}: {name}: a bundle holds folders, files and links, nothing else")
    return Entry(name, "file", member.mode & 0o777, hashlib.sha256(content.read()).hexdigest())
