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
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec

from harness.decode import Undecodable, decode_toml
from harness.errors import BadInput

HERE = Path(__file__).parent
INIT = HERE / "init"
INIT_PACKAGE = "busybox-static"
DESCRIPTION = "workload.toml"
LARGEST, LARGEST_DESCRIPTION = 2**30, 2**20  # bytes of a workload's own files, and of its workload.toml
MADE_BY_US = {"/init", "/start", "/etc/weighbridge-bundle", "/run/doorbell", "/build"}
MOUNTED = {"dev", "proc", "sys"}  # an instance sees the engine's there, whatever the bundle has
MERGED = ("bin", "sbin", "lib", "lib64")  # links into usr, as Debian has it, wherever a package puts its files
EXAMPLES = {
    "packages": 'packages = ["busybox-static"]',
    "start": 'start = "start"',
    "build": 'build = "build"',
    "files": '"/srv/data.txt" = "data.txt" below [files]',
}


@dataclass(frozen=True)
class Workload:
    """What goes into a bundle: `files` pairs a path in it with a file or a link here, `start` becomes /start."""

    name: str
    packages: tuple[str, ...]
    files: tuple[tuple[str, Path], ...]
    start: Path
    build: Path | None = None

    @property
    def named_packages(self) -> tuple[str, ...]:
        """The packages that the user chose: none of a workload that comes with the program, nor the one of /init."""
        if self.start.is_relative_to(HERE):
            return ()
        return tuple(package for package in self.packages if package != INIT_PACKAGE)


class _Description(msgspec.Struct):
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
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", folder.name):
        rule = "at most 64 letters of A to Z, digits, dots, dashes and underscores, a letter or digit first"
        raise BadInput(f"the folder's name {folder.name!r} cannot be a workload's: {rule}")
    description = _description(told)
    if INIT_PACKAGE not in description.packages:
        raise BadInput(f"{told}: packages lacks {INIT_PACKAGE}, which /init runs on")
    for package in description.packages:
        if not re.fullmatch(r"[a-z0-9][a-z0-9+.-]*[a-z0-9+]", package):
            raise BadInput(f"{told}: {package!r} is not the name of a Debian package")
    files = [pair for to, source in description.files.items() for pair in _files(told, _target(told, to), source)]
    _check_beside(told, [target for target, _ in files])
    workload = Workload(
        name=folder.name,
        packages=tuple(sorted(set(description.packages))),
        files=tuple(sorted(files)),
        start=_source(told, description.start),
        build=_source(told, description.build) if description.build is not None else None,
    )
    sources = [source for _, source in files] + [workload.start] + ([workload.build] if workload.build else [])
    size = sum(source.lstat().st_size for source in sources)
    if size > LARGEST:
        amounts = f"its files have {size / 2**30:.1f} GiB, and a bundle takes {LARGEST / 2**30:g} GiB of them"
        raise BadInput(f"{told}: {amounts}: let the workload make what is large when it starts")
    return workload


def _description(told: Path) -> _Description:
    """What a workload.toml says, of the right types. Raises BadInput that says what to write."""
    try:
        if told.stat().st_size > LARGEST_DESCRIPTION:
            raise BadInput(f"{told}: it has more than {LARGEST_DESCRIPTION >> 20} MiB, and cannot be meant")
        content: dict[str, Any] = decode_toml(told.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadInput(f"{told}: {error.strerror}") from error
    except (Undecodable, UnicodeDecodeError) as error:
        raise BadInput(f"{told}: it is not TOML in UTF-8: {error}") from error
    for key in content:
        if key not in EXAMPLES:
            raise BadInput(f"{told}: unknown key {key!r}; known: {', '.join(EXAMPLES)}")
    for key in ("packages", "start"):
        if key not in content:
            raise BadInput(f"{told}: {key} is missing; write {EXAMPLES[key]}, above [files] if there is that")
    try:
        return msgspec.convert(content, _Description)
    except msgspec.ValidationError as error:
        what, _, where = str(error).partition(" - at `$.")
        key = re.split(r"\W", where)[0]
        raise BadInput(f"{told}: {key}: {what}; write it as {EXAMPLES[key]}") from error


def _source(told: Path, name: str) -> Path:
    """A file of the workload's folder; nothing else on the machine may end up in a bundle."""
    path = _within(told, told.parent / name, name, told.parent)
    if not path.is_file():
        raise BadInput(f"{told}: {name!r} is a folder, and a file is wanted")
    return path


def _files(told: Path, target: str, name: str) -> list[tuple[str, Path]]:
    """Where a file goes, or every file and link of a folder."""
    top = _within(told, told.parent / name, name, told.parent)
    if not top.is_dir():
        return [(target, _source(told, name))]
    found = []
    for path in sorted(top.rglob("*")):
        inside = path.relative_to(top).as_posix()
        _within(told, path, f"{name}/{inside}", top)
        if path.is_symlink() or not path.is_dir():
            found.append((_target(told, f"{target}/{inside}"), path))
    if not found:
        raise BadInput(f"{told}: the folder {name!r} has no files")
    return found


def _within(told: Path, path: Path, name: str, folder: Path) -> Path:
    """Where a path leads, which is a readable folder or plain file within `folder`. Raises BadInput."""
    is_link = False
    try:
        is_link = path.is_symlink()
        if is_link and path.readlink().is_absolute():
            raise BadInput(f"{told}: {name!r} is an absolute link, which leads elsewhere in a bundle: make it relative")
        real = path.resolve()
        if not real.is_relative_to(folder.resolve()):
            raise BadInput(f"{told}: {name!r} leads out of the folder {str(folder)!r}")
        mode = real.stat().st_mode
    except (FileNotFoundError, NotADirectoryError) as error:
        what = f"{name!r} is a link to what is not there" if is_link else f"there is no file {name!r}"
        raise BadInput(f"{told}: {what}") from error
    except (OSError, RuntimeError, ValueError) as error:  # RuntimeError: links in a loop; ValueError: a NUL in a name
        reason = error.strerror if isinstance(error, OSError) else error
        raise BadInput(f"{told}: {name!r} cannot be read: {reason}") from error
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise BadInput(f"{told}: {name!r} is neither a file nor a folder")
    if stat.S_ISREG(mode) and mode & (stat.S_ISUID | stat.S_ISGID):
        raise BadInput(f"{told}: {name!r} is setuid or setgid, and a bundle has no such file: chmod ug-s")
    if not os.access(real, os.R_OK | (os.X_OK if stat.S_ISDIR(mode) else 0)):
        raise BadInput(f"{told}: {name!r} cannot be read: Permission denied")
    return real


def _target(told: Path, name: str) -> str:
    """A path in the bundle that a file may go to. Raises BadInput."""
    path = PurePosixPath(name)
    if not path.is_absolute() or ".." in path.parts or str(path) != name or name == "/" or name.startswith("//"):
        raise BadInput(f"{told}: {name!r} is not a plain absolute path")
    if not name.isprintable() or any(len(part.encode()) > 255 for part in path.parts):
        raise BadInput(f"{told}: {name!r} cannot be a file's name here: at most 255 bytes of printable UTF-8")
    if {name, *map(str, path.parents)} & MADE_BY_US or path.parts[1] in MOUNTED:
        raise BadInput(f"{told}: {name} is made by Weighbridge or the engine and cannot be brought along")
    if path.parts[1] in MERGED:
        raise BadInput(f"{told}: /{path.parts[1]} is a link of Debian's: write /usr{name}")
    return name


def _check_beside(told: Path, targets: Sequence[str]) -> None:
    """Raises BadInput where two files go to one path, or one to where another needs a folder."""
    seen: set[str] = set()
    for target in targets:
        if target in seen:
            raise BadInput(f"{told}: two files go to {target}")
        seen.add(target)
    for target in (*targets, *sorted(MADE_BY_US)):
        if clash := seen & {str(parent) for parent in PurePosixPath(target).parents}:
            raise BadInput(f"{told}: a file goes to {clash.pop()}, which has to be a folder for {target}")
