"""The workloads: one folder each, with a workload.toml that says what is in its bundle and how it starts.

packages = ["busybox-static"]       Debian packages. Dependencies are not followed: a bundle holds what is named.
start = "start"                     a shell fragment in the folder; /init sources it, and its end means ready
[files]                             optional: where in the bundle a file of the folder goes
"/srv/server.sh" = "server.sh"
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec

from harness.errors import BadInput

HERE = Path(__file__).parent
INIT = HERE / "init"
DESCRIPTION = "workload.toml"
MADE_BY_US = {"/init", "/start", "/etc/weighbridge-bundle", "/run/doorbell"}


@dataclass(frozen=True)
class Workload:
    """What goes into a bundle: `files` pairs a path in the bundle with a file here, `start` becomes /start."""

    name: str
    packages: tuple[str, ...]
    files: tuple[tuple[str, Path], ...]
    start: Path


class _Description(msgspec.Struct, forbid_unknown_fields=True):
    packages: list[str]
    start: str
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
    return Workload(
        name=folder.name,
        packages=tuple(sorted(set(description.packages))),
        files=tuple(sorted((_target(told, to), _source(told, source)) for to, source in description.files.items())),
        start=_source(told, description.start),
    )


def _source(told: Path, name: str) -> Path:
    """A file of the workload's folder; nothing else on the machine may end up in a bundle."""
    path = (told.parent / name).resolve()
    if not path.is_relative_to(told.parent.resolve()):
        raise BadInput(f"{told}: {name!r} is outside of the workload's folder")
    if not path.is_file():
        raise BadInput(f"{told}: there is no file {name!r}")
    return path


def _target(told: Path, name: str) -> str:
    path = PurePosixPath(name)
    if not path.is_absolute() or ".." in path.parts or str(path) != name or name == "/":
        raise BadInput(f"{told}: {name!r} is not a plain absolute path")
    if name in MADE_BY_US:
        raise BadInput(f"{told}: {name} is made by Weighbridge and cannot be brought along")
    return name
