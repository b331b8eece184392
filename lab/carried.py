"""What is brought into the lab on a disk that it cannot write: the project's wheel with its locked packages, its tests,
and what it would download there: the bundle of `hello`, the guest's kernel, GRUB.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from harness import bundle, host, places, workloads
from harness.vm import bootdisk, guest
from lab.system import ROOT, System, ext4, tied, uv

BROUGHT = ("bench", "docs", "lab", "tests", "pyproject.toml", "README.md")
"""All but `harness`, of which there is the wheel: what is tested is what would be installed."""
ROOM = 16 * 2**20


def make(system: System, folder: Path) -> tuple[Path, list[str]]:
    """The disk, in this folder, and what is on it instead of being downloaded there."""
    tree = places.folder(folder / "carried")
    shutil.copytree(system.environment, tree / ".venv", symlinks=True)
    wheel = _install(tree, folder)
    _copy_checkout(tree)
    brought = [wheel, "the packages of uv.lock"]
    for path in _cached():
        place = path.relative_to(places.cache())
        places.folder((tree / "cache" / place).parent)
        tied(["cp", "--archive", path, tree / "cache" / place])
        brought.append(str(place))
    shutil.copy2(bundle.build(workloads.load("hello")).root / "bin/busybox", tree / "busybox")
    disk = folder / "carried.ext4"
    ext4(tree, disk, ROOM)
    shutil.rmtree(tree)
    return disk, brought


def _install(tree: Path, folder: Path) -> str:
    """Builds the wheel and installs it, with the commit that it is of beside it; its name."""
    tied([uv(), "build", "--quiet", "--wheel", "--out-dir", folder, ROOT])
    wheel = next(folder.glob("*.whl"))
    site = next(tree.glob(".venv/lib/python3*/site-packages"))
    tied([uv(), "pip", "install", "--quiet", "--no-deps", "--compile-bytecode", "--target", site, wheel])
    (site / "harness" / host.COMMIT).write_text(json.dumps(host.commit()))
    return wheel.name


def _copy_checkout(tree: Path) -> None:
    listed = ["ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *BROUGHT]
    for name in filter(None, tied(["git", "-C", ROOT, *listed]).split("\0")):
        if (ROOT / name).exists():  # one that is deleted, and not yet committed so, is listed
            places.folder((tree / name).parent)
            shutil.copy2(ROOT / name, tree / name)


def _cached() -> list[Path]:
    """The folders of the cache that the campaign and the tests need, made here where they are not yet."""
    return [bundle.build(workloads.load("hello")).root.parent, guest.kernel().image.parent, bootdisk.grub().parent]
