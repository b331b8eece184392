"""A bundle: the root filesystem of a workload, and the forms in which the engines take it.

It is made of Debian packages, the workload's own files and the shared /init, and named by the digest of its content,
which every instance reads back from inside. Owners are no part of it: uid 0 inside is whoever the engine maps to it.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import stat
import sys
import tarfile
import tempfile
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from harness import command, debian, places, sandbox
from harness.command import CommandFailed
from harness.content import STAMP, digest_of_file, digest_of_tar, digest_of_tree, link_target, walk
from harness.errors import BadInput, WrongBundle
from harness.workloads import INIT, MERGED, Workload

__all__ = ["Bundle", "build", "digest_of_tar", "digest_of_tree"]

RECIPE = [  # another way to build is another bundle
    hashlib.sha256(Path(str(module.__file__)).read_bytes()).hexdigest()
    for module in (sys.modules[__name__], debian, sandbox)
]
BUILT_AT = 1_704_067_200  # the time of every file, so that the same content gives the same tar
DEVICES = ("null", "zero", "random", "urandom")
"""The minimal /dev of an instance whose engine brings none."""
FAKE_TIME = {"E2FSPROGS_FAKE_TIME": str(BUILT_AT)}
BLOCK = 4096
ROOM = 256 * 2**20  # bytes that an instance may write to its disk beyond a third of the bundle

FOLDERS = {
    "dev": 0o755, "etc": 0o755, "proc": 0o755, "root": 0o700, "run": 0o755, "sys": 0o755, "tmp": 0o1777,
    "usr": 0o755, "usr/bin": 0o755, "usr/sbin": 0o755, "usr/lib": 0o755, "var": 0o755, "var/tmp": 0o1777,
}  # fmt: skip


@dataclass(frozen=True)
class Bundle:
    """A workload's root filesystem in the cache. `bytes` is the apparent size of its files."""

    workload: str
    sha256: str
    bytes: int
    packages: Mapping[str, str] = field(hash=False)
    root: Path

    def tree(self, owner: int | None = None) -> Path:
        """The bundle as a folder that belongs to that uid and gid; None: to whoever runs this program.

        Raises BadInput where an ordinary user asks for another owner than themselves.
        """
        if owner is None or owner == os.geteuid():
            self._verify(digest_of_tree(self.root), "its tree in the cache")
            return self.root
        if os.geteuid() != 0:
            raise BadInput(f"only root can make a tree that belongs to uid {owner}")
        target, doing = self.root.parent / f"tree-{owner}", f"copying the bundle {self.workload} for uid {owner}"
        tree = places.made_once(target, lambda draft: self._copy(draft, owner), doing)
        self._verify(digest_of_tree(tree), f"its tree for uid {owner} in the cache")
        return tree

    def tar(self) -> Path:
        """The bundle as an uncompressed tar in which everything belongs to uid 0."""
        tar = places.made_once(
            self.root.parent / "rootfs.tar", self._write_tar, f"packing the bundle {self.workload} as a tar"
        )
        self._verify(digest_of_tar(tar), "its tar in the cache")
        return tar

    def disk(self) -> Path:
        """The bundle as an ext4 image in which everything belongs to uid 0, sparse, with room to write.

        It has no journal: an instance's disk is thrown away, never recovered. Nothing in it is left for the guest's
        kernel to initialise in the background. Raises Unavailable where e2fsprogs or user namespaces are missing.
        """
        place = places.made_once(self.root.parent / "disk", self._make_disk, f"making the disk of {self.workload}")
        disk, told = place / "disk.ext4", (place / "sha256").read_text()
        if digest_of_file(disk) != told:
            raise WrongBundle(f"the disk of {self.workload} in the cache was changed: remove {place}")
        return disk

    def _copy(self, draft: Path, owner: int) -> None:
        shutil.copytree(self.root, draft, symlinks=True)
        for path in walk(draft):
            os.chown(path, owner, owner, follow_symlinks=False)
        self._verify(digest_of_tree(draft), f"its copy for uid {owner}")

    def _write_tar(self, draft: Path) -> None:
        with tarfile.open(draft, "w", format=tarfile.PAX_FORMAT) as tar:
            for path in walk(self.root):
                status = path.lstat()
                member = tarfile.TarInfo(path.relative_to(self.root).as_posix())
                member.mtime, member.mode = BUILT_AT, stat.S_IMODE(status.st_mode)
                if path.is_symlink():
                    member.type, member.linkname = tarfile.SYMTYPE, link_target(path)
                    tar.addfile(member)
                elif path.is_dir():
                    member.type = tarfile.DIRTYPE
                    tar.addfile(member)
                else:
                    member.size = status.st_size
                    with path.open("rb") as source:
                        tar.addfile(member, source)
        draft.chmod(0o644)
        self._verify(digest_of_tar(draft), "its tar")

    def _make_disk(self, draft: Path) -> None:
        disk = places.folder(draft) / "disk.ext4"
        self._write_disk(disk)
        (draft / "sha256").write_text(digest_of_file(disk))

    def _write_disk(self, draft: Path) -> None:
        mke2fs, debugfs = command.find("mke2fs", "e2fsprogs"), command.find("debugfs", "e2fsprogs")
        fixed = str(uuid.UUID(self.sha256[:32]))
        with draft.open("wb") as image:
            image.truncate(_disk_size(self.root))
        draft.chmod(0o644)
        options = ["-b", str(BLOCK), "-m", "0", "-O", "^has_journal", "-U", fixed, "-L", "weighbridge"]
        options += ["-E", f"root_owner=0:0,hash_seed={fixed},lazy_itable_init=0"]
        argv: list[str | Path] = [mke2fs, "-q", "-F", "-t", "ext4", *options, "-d", self.root, draft]
        command.run_as_uid_0(argv, env=FAKE_TIME)
        command.run([debugfs, "-w", "-R", "rmdir lost+found", draft], env=FAKE_TIME)  # it is no part of the bundle
        with tempfile.TemporaryDirectory(dir=draft.parent, prefix=".disk-") as folder:
            command.run_as_uid_0([debugfs, "-R", f'rdump / "{folder}"', draft])
            self._verify(digest_of_tree(Path(folder)), "its disk")

    def _verify(self, digest: str, told: str) -> None:
        if digest != self.sha256:
            told = f"the bundle of {self.workload} is {self.sha256[:12]}, but {told} is {digest[:12]}"
            raise WrongBundle(f"{told}: remove {self.root.parent}, and it is built anew")


def build(workload: Workload) -> Bundle:
    """The bundle of a workload. It is built once, of the packages' versions of that day, and again when the workload
    changes or it is removed from the cache: what is measured does not change because an archive does.

    Raises Unavailable where it cannot be built; BadInput for an unknown package of a user's own workload, a file that
    cannot go to its place, or a script of the workload's that fails.
    """
    place = places.cache() / "bundles" / f"{workload.name}-{_key_of(workload)[:16]}"
    try:
        places.made_once(place, lambda draft: _build(workload, draft), f"building the bundle {workload.name}")
    except BadInput as error:
        raise BadInput(f"the workload {workload.name}: {error}") from error
    about = json.loads((place / "bundle.json").read_text())
    return Bundle(**about, root=place / "root")


def _build(workload: Workload, draft: Path) -> None:
    root = places.folder(draft) / "root"
    named = set(workload.named_packages)
    try:
        versions = debian.unpack(workload.packages, root)
    except debian.UnknownPackages as error:
        if not error.packages <= named:
            raise
        raise BadInput(f"Debian {debian.SUITE} has no package {min(error.packages)}") from error
    if unknown := named - set(versions):  # apt takes libpq.dev for a pattern
        raise BadInput(f"Debian {debian.SUITE} has no package {min(unknown)}")
    _merge_usr(root)
    for name, mode in FOLDERS.items():
        places.folder(root / name).chmod(mode)
    _link_applets(root)
    _bring(root, "/init", INIT, 0o755)
    _bring(root, "/start", workload.start, 0o644)
    for target, source in workload.files:
        _bring(root, target, source, _mode_of(source))
    if workload.build is not None:
        _run_inside(root, workload.build)
    for name in ("run/doorbell", *(f"dev/{device}" for device in DEVICES)):
        _cleared(root, name).touch()  # what a FIFO and the minimal /dev are bind-mounted on
    _cleared(root, STAMP).touch()
    _normalise(root)
    digest = digest_of_tree(root)
    (root / STAMP).write_text(digest + "\n")
    for path in walk(root):
        os.utime(path, (BUILT_AT, BUILT_AT), follow_symlinks=False)
    size = sum(path.lstat().st_size for path in walk(root) if path.is_file() and not path.is_symlink())
    about = {"workload": workload.name, "sha256": digest, "bytes": size, "packages": versions}
    (draft / "bundle.json").write_text(json.dumps(about, indent=2) + "\n")


def _merge_usr(root: Path) -> None:
    for name in MERGED:
        split, merged = root / name, root / "usr" / name
        if split.is_dir() and not split.is_symlink():
            shutil.copytree(split, merged, symlinks=True, dirs_exist_ok=True)
            shutil.rmtree(split)
        if merged.is_dir() or name != "lib64":
            split.unlink(missing_ok=True)
            split.symlink_to(f"usr/{name}")


def _link_applets(root: Path) -> None:
    """A link for every applet of the bundle's busybox that no package brings a program for."""
    busybox = root / "usr/bin/busybox"
    for applet in command.run([busybox, "--list-full"]).split():
        link = root / applet
        if not os.path.lexists(link):
            real = link.parent.resolve()
            link.symlink_to(os.path.relpath(busybox.resolve(), real))


def _bring(root: Path, target: str, source: Path, mode: int) -> None:
    path = _cleared(root, target)
    shutil.copyfile(source, path, follow_symlinks=False)
    if not path.is_symlink():
        path.chmod(mode)


def _cleared(root: Path, target: str) -> Path:
    """Where a file can be made, whatever was there. No link of a package or a script leads out onto this machine."""
    path = root / target.lstrip("/")
    if not path.parent.resolve().is_relative_to(root.resolve()) or path.is_dir():
        raise BadInput(f"a file of the bundle cannot go to {target}: it is a folder, or leads out of the bundle")
    try:
        places.folder(path.parent)
    except (FileExistsError, NotADirectoryError) as error:
        raise BadInput(f"a file of the bundle cannot go to {target}: a file is where a folder has to be") from error
    path.unlink(missing_ok=True)
    return path


def _run_inside(root: Path, script: Path) -> None:
    """Runs a workload's script in the bundle as it is built: as its uid 0, with nothing of this machine in sight."""
    inside = root / "build"
    shutil.copyfile(script, inside)
    try:
        sandbox.within(root, ["/bin/sh", "-e", "/build"])
    except CommandFailed as error:
        raise BadInput(f"{script}: {error}") from error
    inside.unlink(missing_ok=True)


def _normalise(root: Path) -> None:
    """Ours alone, every folder open to us, and no setuid program for this machine's users to find."""
    root.chmod(0o755)
    for path in walk(root):
        if path.is_dir() and not path.is_symlink():  # before it is looked into
            path.chmod(stat.S_IMODE(path.stat().st_mode) & 0o1777 | 0o700)
        if os.geteuid() == 0:
            os.chown(path, 0, 0, follow_symlinks=False)
        if path.is_file() and not path.is_symlink():
            if path.stat().st_nlink > 1:  # not all forms keep links: each file is one of its own in every one
                apart = path.with_name(f".{path.name}.apart")
                shutil.copyfile(path, apart)
                apart.chmod(path.stat().st_mode)
                apart.rename(path)
            path.chmod(_mode_of(path))


def _mode_of(path: Path) -> int:
    return 0o755 if path.stat().st_mode & stat.S_IXUSR else 0o644


def _key_of(workload: Workload) -> str:
    parts = [*RECIPE, platform.machine(), *workload.packages]
    brought = [("/init", INIT), ("/start", workload.start), *workload.files]
    for target, source in [*brought, ("build", workload.build)] if workload.build else brought:
        is_link = source.is_symlink()
        parts += [target, *((link_target(source),) if is_link else (oct(_mode_of(source)), digest_of_file(source)))]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _disk_size(root: Path) -> int:
    """Bytes: the content in whole blocks and a third more, and room to write."""
    blocks = sum(-(-path.lstat().st_size // BLOCK) * BLOCK + 256 for path in walk(root))
    return -(-(blocks * 13 // 10 + ROOM) // 2**20) * 2**20
