"""What is brought into the lab on a disk that it cannot write: the project's wheel with its locked packages, its tests,
and what it would download there: the bundle of `hello`, the guest's kernel, GRUB.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from harness import bundle, places, workloads
from harness.command import run
from harness.vm import bootdisk, guest
from lab.system import ROOT, System, ext4, uv

BROUGHT = ("bench", "docs", "lab", "tests", "pyproject.toml", "README.md")
"""All but `harness`, of which there is the wheel: what is tested is what would be installed."""


def make(system: System, folder: Path) -> tuple[Path, list[str]]:
    """The disk, in this folder, and what is on it instead of being downloaded there."""
    tree = places.folder(folder / "carried")
    shutil.copytree(system.environment, tree / ".venv", symlinks=True)
    run([uv(), "build", "--quiet", "--wheel", "--out-dir", folder, ROOT])
    wheel = next(folder.glob("*.whl"))
    site = next(tree.glob(".venv/lib/python3*/site-packages"))
    run([uv(), "pip", "install", "--quiet", "--no-deps", "--compile-bytecode", "--target", site, wheel])
    listed = run(["git", "-C", ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *BROUGHT])
    for name in filter(None, listed.split("\0")):
        places.folder((tree / name).parent)
        shutil.copy2(ROOT / name, tree / name)
    cached = list(_cached())
    for path in cached:
        copy = tree / "cache" / path.relative_to(places.cache())
        places.folder(copy.parent)
        run(["cp", "--archive", path, copy])
    shutil.copy2(bundle.build(workloads.load("hello")).root / "bin/busybox", tree / "busybox")
    disk = folder / "carried.ext4"
    ext4(tree, disk, 16 * 2**20)
    shutil.rmtree(tree)
    return disk, [f"{wheel.name}, and the packages of uv.lock", *(str(p.relative_to(places.cache())) for p in cached)]


def _cached() -> list[Path]:
    """The folders of the cache that the campaign and the tests need, made here where they are not yet."""
    return [bundle.build(workloads.load("hello")).root.parent, guest.kernel().image.parent, bootdisk.grub().parent]
