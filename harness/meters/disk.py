"""Disk: allocated bytes (st_blocks), hard links once, on one filesystem, each part by name.

Source: stat(2): st_blocks counts units of 512 bytes whatever the filesystem's own block size is.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from harness.backends import Part, Unseen
from harness.model import Sample


def weigh(metric: str, parts: Sequence[Part]) -> list[Sample]:
    """One sample a part, in bytes; null with the reason where a part cannot be read."""
    return [_sample(metric, part) for part in parts]


def sample_reported(metric: str, sizes: Mapping[str, int | Unseen]) -> list[Sample]:
    """Return one sample for each part, in bytes as the engine reports them; null with the reason if it reports none."""
    return [
        Sample(metric, "B", None, part=part, reason=size.reason)
        if isinstance(size, Unseen)
        else Sample(metric, "B", size, part=part)
        for part, size in sizes.items()
    ]


def allocated(*paths: Path) -> int:
    """Bytes that the files and folders occupy. Raises OSError where one cannot be read."""
    seen: dict[tuple[int, int], int] = {}
    for path in paths:
        for found in _files(path):
            seen[found.st_dev, found.st_ino] = found.st_blocks * 512
    return sum(seen.values())


def _files(path: Path) -> Iterator[os.stat_result]:
    top = path.lstat()
    yield top
    # An overlay's own folder work/work has mode 000: nobody may list it, and at rest nothing is in it.
    own = stat.S_IMODE(top.st_mode) == 0 and path.parts[-2:] == ("work", "work")
    if not stat.S_ISDIR(top.st_mode) or own:
        return
    with os.scandir(path) as entries:
        for entry in entries:
            found = entry.stat(follow_symlinks=False)
            if found.st_dev != top.st_dev:
                continue
            if entry.is_dir(follow_symlinks=False):
                yield from _files(Path(entry.path))
            else:
                yield found


def _sample(metric: str, part: Part) -> Sample:
    if isinstance(part.paths, Unseen):
        return Sample(metric, "B", None, part=part.name, reason=part.paths.reason)
    if not part.paths:
        return Sample(metric, "B", None, part=part.name, reason="it is not where the engine usually keeps it")
    try:
        return Sample(metric, "B", allocated(*part.paths), part=part.name)
    except OSError as error:
        return Sample(metric, "B", None, part=part.name, reason=f"{error.filename}: {error.strerror}")
