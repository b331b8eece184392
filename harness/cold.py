"""Cold starts: the page cache of an image's files is dropped before a start, and what stays in it is counted.

Source: posix_fadvise(2), mincore(2), and Linux, Documentation/admin-guide/sysctl/vm.rst, drop_caches.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.backends import Part, Unseen
from harness.errors import BadInput, RunError
from harness.model import Cold, Sample

DROP_CACHES = Path("/proc/sys/vm/drop_caches")
CACHES = "3"
"""Of drop_caches: the page cache, and what is kept of inodes and names."""
TOLERATED = 0.01
"""Of the bytes of a part of an image, what may stay in the page cache in a start that is called cold."""

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mincore.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p)


class StillCached(RunError):
    """The image's files could not be dropped from the page cache, or nobody can tell whether they were."""


@dataclass(frozen=True)
class Left:
    """What is left of one part in the page cache: `resident` of `size` bytes, or None and the reason."""

    part: str
    size: int
    resident: int | None
    reason: str | None = None

    def sample(self) -> Sample:
        return Sample("cache.resident", "B", self.resident, part=self.part, reason=self.reason)


def check_right(cold: Cold | None) -> None:
    """Raises BadInput where all caches are to be dropped and we may not."""
    if cold == "all" and not os.access(DROP_CACHES, os.W_OK):
        raise BadInput(f"cold: all caches cannot be dropped, {DROP_CACHES} is root's; --cold=image needs no privileges")


def drop_cached(parts: Sequence[Part], cold: Cold) -> list[Left]:
    """Drops the files of these parts from the page cache and counts what stays; with `all` then everybody's caches.

    The caches of the machine come last: to count, every file is opened, which loads its inode again.
    """
    left = [_drop_part(part) for part in parts]
    if cold == "all":
        DROP_CACHES.write_text(CACHES)
    return left


def check_dropped(left: Sequence[Left]) -> None:
    """Raises StillCached where more stayed than is tolerated, or where a part cannot be examined."""
    for part in left:
        if part.resident is None:
            raise StillCached(f"no cold start is possible: {part.part}: {part.reason}")
    for part in left:
        if (part.resident or 0) > TOLERATED * part.size:
            told = f"{part.resident} of the {part.size} bytes of the image's {part.part} stayed in the page cache"
            raise StillCached(f"{told}: another process uses them, or their file system is in memory")


def _drop_part(part: Part) -> Left:
    if isinstance(part.paths, Unseen):
        return Left(part.name, 0, None, part.paths.reason)
    files: dict[tuple[int, int], tuple[Path, os.stat_result]] = {}
    try:
        for top in part.paths:
            for path, found in _files(top, top.lstat()):
                files[found.st_dev, found.st_ino] = path, found
        resident = sum(_drop_file(path, found) for path, found in files.values())
    except OSError as error:
        return Left(part.name, 0, None, f"{error.filename or 'one of its files'}: {error.strerror}")
    except StillCached as error:
        return Left(part.name, 0, None, str(error))
    held = sum(min(found.st_size, found.st_blocks * 512) for _, found in files.values())  # a hole is in no cache
    return Left(part.name, held, resident)


def _files(path: Path, found: os.stat_result) -> Iterator[tuple[Path, os.stat_result]]:
    """The regular files that are not empty, on one filesystem, no link followed."""
    if stat.S_ISREG(found.st_mode) and found.st_size:
        yield path, found
    if not stat.S_ISDIR(found.st_mode):
        return
    with os.scandir(path) as entries:
        for entry in entries:
            inner = entry.stat(follow_symlinks=False)
            if inner.st_dev == found.st_dev:
                yield from _files(Path(entry.path), inner)


def _drop_file(path: Path, found: os.stat_result) -> int:
    """Drops a file from the page cache; returns the bytes that stay, in whole pages."""
    # mincore(2) calls all pages resident that it does not tell us of.
    if os.geteuid() not in (0, found.st_uid) and not os.access(path, os.W_OK, effective_ids=True):
        raise StillCached(f"{path}: only its owner is told whether it is in the page cache")
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        if _resident(fd, found.st_size):
            os.fdatasync(fd)  # what is not yet written is not dropped; to ask it of every file would take seconds
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        return _resident(fd, found.st_size)
    finally:
        os.close(fd)


def _resident(fd: int, size: int) -> int:
    """Bytes of an open file's pages that are in the page cache."""
    pages = (ctypes.c_ubyte * -(-size // mmap.PAGESIZE))()
    # Private and writable, because Python tells the address of no other mapping. It is never touched.
    with mmap.mmap(fd, size, access=mmap.ACCESS_COPY) as mapping:
        start = ctypes.c_char.from_buffer(mapping)
        failed = _libc.mincore(ctypes.addressof(start), size, pages)
        del start  # or the mapping could not be closed
    if failed:
        raise OSError(ctypes.get_errno(), f"mincore: {os.strerror(ctypes.get_errno())}")
    return sum(page & 1 for page in pages) * mmap.PAGESIZE
