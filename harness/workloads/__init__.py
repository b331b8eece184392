"""The workloads: one folder each, with a workload.toml that says what is in its bundle and how it starts.

packages = ["busybox-static", "python3"]   Debian packages; what they depend on comes with them
start = "start"                            a shell fragment in the folder; /init sources it, and its end means ready
build = "build"                            optional: a shell script that is run in the bundle once, as it is built
[files]                                    optional: where in the bundle a file or a folder of the folder goes
"/srv/serve.py" = "serve.py"
"/srv/www" = "www"
"""

from __future__ import annotations

import os
import re
import stat
import tomllib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec

from harness.errors import BadInput

HERE = Path(__file__).parent
INIT = HERE / "init"
DESCRIPTION = "workload.toml"
LARGEST = 2**30
"""Bytes of a workload's own files."""
MADE_BY_US = {"/init", "/start", "/etc/weighbridge-bundle", "/run/doorbell", "/build"}


@dataclass(frozen=True)
class Workload:
    """What goes into a bundle: `files` pairs a path in it with a file or a link here, `start` becomes /start."""

    name: str
    packages: tuple[str, ...]
    files: tuple[tuple[str, Path], ...]
    start: Path
    build: Path | None = None


class _Description(msgspec.Struct, forbid_unknown_fields=True):
    packages: list[str]
    start: str
    build: str | None = None
    files: dict[str, str] = {}


def names() -> list[str]:
    """The workloads that come with the program."""
    return sorted(path.parent.name for path in HERE.glob(f"*/{DESCRIPTION}"))


def load(name: str) -> Workload:
    """The workload of that name, or in the folder of that path. Raises BadInput where it is unknown or malformed."""
    if name in names():
        return _read(HERE / name)
    folder = Path(name)
    if name and (folder / DESCRIPTION).is_file():
        return _read(folder.absolute())
    raise BadInput(f"unknown workload {name!r}: give one of {', '.join(names())}, or a folder with a {DESCRIPTION}")


def _read(folder: Path) -> Workload:
    told = folder / DESCRIPTION
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", folder.name):
        raise BadInput(f"{folder}: the folder's name is the workload's: letters, digits, dots and dashes only")
    try:
        content: Any = tomllib.loads(told.read_text(encoding="utf-8"))
        description = msgspec.convert(content, _Description)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise BadInput(f"{told}: {error}") from error
    if "busybox-static" not in description.packages:
        raise BadInput(f"{told}: packages lacks busybox-static, which /init runs on")
    for package in description.packages:
        if not re.fullmatch(r"[a-z0-9][a-z0-9+.-]+", package):
            raise BadInput(f"{told}: {package!r} is not the name of a Debian package")
    files = [pair for to, source in description.files.items() for pair in _files(told, _target(told, to), source)]
    workload = Workload(
        name=folder.name,
        packages=tuple(sorted(set(description.packages))),
        files=tuple(sorted(files)),
        start=_source(told, description.start),
        build=_source(told, description.build) if description.build is not None else None,
    )
    size = sum(source.lstat().st_size for _, source in workload.files)
    if size > LARGEST:
        told_size = f"its files have {size / 2**30:.1f} GiB, and a bundle takes {LARGEST / 2**30:g} GiB of them"
        raise BadInput(f"{told}: {told_size}: let the workload make what is large when it starts")
    return workload


def _source(told: Path, name: str) -> Path:
    """A file of the workload's folder; nothing else on the machine may end up in a bundle."""
    path = _within(told, told.parent / name, name)
    if not path.is_file():
        raise BadInput(f"{told}: there is no file {name!r}")
    return path


def _files(told: Path, target: str, name: str) -> list[tuple[str, Path]]:
    """Where a file goes, or every file and link of a folder."""
    top = _within(told, told.parent / name, name)
    if not top.is_dir():
        return [(target, _source(told, name))]
    found = []
    for path in sorted(top.rglob("*")):
        inside = path.relative_to(top).as_posix()
        if path.is_symlink() or not path.is_dir():
            _within(told, path, f"{name}/{inside}")
            found.append((_target(told, f"{target}/{inside}"), path))
    if not found:
        raise BadInput(f"{told}: the folder {name!r} has no files")
    return found


def _within(told: Path, path: Path, name: str) -> Path:
    """Where a path leads, which is a folder or a plain file within the workload's folder. Raises BadInput."""
    if path.is_symlink() and path.readlink().is_absolute():
        raise BadInput(
            f"{told}: {name!r} is an absolute link, which leads elsewhere in a bundle: make it a relative one"
        )
    real = path.resolve()
    if not real.is_relative_to(told.parent.resolve()):
        raise BadInput(f"{told}: {name!r} is outside of the workload's folder")
    if not real.exists():
        raise BadInput(f"{told}: there is no file {name!r}")
    mode = real.stat().st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise BadInput(f"{told}: {name!r} is neither a file nor a folder")
    if stat.S_ISREG(mode) and mode & (stat.S_ISUID | stat.S_ISGID):
        raise BadInput(f"{told}: {name!r} is setuid or setgid, and a bundle has no such file: chmod ug-s")
    if not os.access(real, os.R_OK):
        raise BadInput(f"{told}: {name!r} cannot be read")
    return real


def _target(told: Path, name: str) -> str:
    path = PurePosixPath(name)
    if not path.is_absolute() or ".." in path.parts or str(path) != name or name == "/":
        raise BadInput(f"{told}: {name!r} is not a plain absolute path")
    if name in MADE_BY_US:
        raise BadInput(f"{told}: {name} is made by Weighbridge and cannot be brought along")
    return name
