"""The lab's Debian: just what setup.sh installs on a machine that has nothing, a kernel with KVM, and locked packages.

Made once, by mmdebstrap and as root, and kept by all that decides its content.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness import build_failure, bundle, debian, places, workloads
from harness.bundle import Bundle
from harness.command import CommandFailed, find, run
from harness.errors import Unavailable
from harness.ledger import Ledger
from harness.sandbox import ENDS
from harness.vm import guest
from harness.vm.guest import GuestKernel

ROOT = Path(__file__).parents[1]
HOME = Path("/opt/weighbridge")
"""Where the project is in the lab."""
BOOT = Path(__file__).parent / "boot"
RECIPE = (Path(__file__), BOOT, Path(guest.__file__))
ROOM = 4 * 2**30
"""Bytes of the disk beyond what is on it at first."""
LONGEST = 600.0
"""Seconds that mmdebstrap may take, and the Python packages: with the rest twenty minutes at the most."""
CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
UNDATED = ("--aptopt=Acquire::Check-Valid-Until false", "--aptopt=Acquire::Check-Date false")
"""Accept a mirror whose packages are older than their validity date."""


@dataclass(frozen=True)
class System:
    """place: the folder with all of it. new: whether it was made just now."""

    place: Path
    new: bool

    @property
    def disk(self) -> Path:
        return self.place / "disk.ext4"

    @property
    def kernel(self) -> Path:
        return self.place / "vmlinuz"

    @property
    def initramfs(self) -> Path:
        return self.place / "initramfs"

    @property
    def environment(self) -> Path:
        """The virtual environment with the locked Python packages, to be brought to HOME/.venv."""
        return self.place / "venv"

    @property
    def packages(self) -> list[str]:
        """Debian's, with their versions."""
        return (self.place / "packages").read_text().splitlines()


def get() -> System:
    """The newest alone is kept. Raises Unavailable where it cannot be made."""
    packages = [f"linux-image-cloud-{debian.architecture()}", *setup_packages(debian.SUITE)]
    locked = run([uv(), "export", "--frozen", "--extra", "libvirt", "--no-emit-project", "--quiet", "--project", ROOT])
    hello = bundle.build(workloads.load("hello"))
    parts = [*packages, debian.SUITE, *debian.sources(), locked, hello.sha256]
    parts += [path.read_text() for path in RECIPE]
    folder, new = cached(
        places.cache() / "lab", parts, lambda draft, scratch: _make(draft, scratch, packages, locked, hello)
    )
    return System(folder, new)


def cached(within: Path, parts: Sequence[str], make: Callable[[Path, Path], None]) -> tuple[Path, bool]:
    """Return the folder below `within` that make(draft, scratch) filled, and whether it was filled just now.

    parts: everything that determines the content; only the newest content is kept. scratch: an empty folder, removed
    afterwards. Raises Unavailable if the content has to be made and this user is not root.
    """
    place = within / hashlib.sha256(json.dumps(list(parts)).encode()).hexdigest()[:16]
    if place.exists():
        return place, False
    if os.geteuid() != 0:
        raise Unavailable("only root can make the lab's Debian", "run `make lab` as root")
    with Ledger() as ledger, ledger.holding_folder() as scratch:
        places.made_once(place, lambda draft: make(places.folder(draft), scratch))
    for older in within.iterdir():
        if older != place and not older.name.startswith("."):
            places.remove(older)
    return place, True


def setup_packages(suite: str) -> list[str]:
    """Return the Debian packages that set-up installs on a machine of this suite that lacks all of them."""
    return run([ROOT / "setup.sh", "--packages", suite]).split()


def _make(draft: Path, folder: Path, packages: Sequence[str], locked: str, hello: Bundle) -> None:
    root = folder / "root"
    _unpack(root, packages)
    shutil.copyfile(next((root / "boot").glob("vmlinuz-*")), draft / "vmlinuz")
    told = tied(["dpkg-query", "--root", root, "-W", "-f", "${Package} ${Version}\\n"])
    (draft / "packages").write_text(told)
    kernel = GuestKernel(draft / "vmlinuz", "", next((root / "lib/modules").iterdir()), None, "")
    initramfs = guest.initramfs(hello.root / "bin/busybox", kernel, guest.drivers("pci"), BOOT)
    shutil.copyfile(initramfs, draft / "initramfs")
    _install(root, locked)
    (root / HOME.relative_to("/") / ".venv").rename(draft / "venv")
    ext4(root, draft / "disk.ext4", ROOM)


def _unpack(root: Path, packages: Sequence[str]) -> None:
    """In namespaces of its own: what ends it, ends its mounts and all that it started."""
    alone = [find("unshare", "util-linux"), "--mount", "--pid", "--fork", "--kill-child"]
    options = ["--mode=root", "--variant=minbase", "--format=directory", f"--include={','.join(packages)}"]
    options += ["--aptopt=APT::Install-Recommends false"]
    mmdebstrap = find("mmdebstrap", "mmdebstrap")
    bootstrap([*alone, mmdebstrap, *options, debian.SUITE, root, *debian.sources()], mmdebstrap, LONGEST, root.parent)


def bootstrap(argv: Sequence[str | Path], mmdebstrap: str, timeout: float, scratch: Path) -> None:
    """Run mmdebstrap. Raises Unavailable with the cause and the remedy where it fails."""
    try:
        tied(argv, timeout=timeout, scratch=scratch)
    except CommandFailed as error:
        raise build_failure.explain(error, mmdebstrap) from error


def _install(root: Path, locked: str) -> None:
    """The Python packages of uv.lock, by that Debian's own Python and compiler, into HOME/.venv."""
    home = places.folder(root / HOME.relative_to("/"))
    (home / "requirements.txt").write_text(locked)
    inside: list[str | Path] = [find("bwrap", "bubblewrap"), *ENDS, "--bind", root, "/", "--dev", "/dev"]
    inside += ["--proc", "/proc", "--tmpfs", "/tmp", "--ro-bind", uv(), "/run/uv"]
    inside += ["--ro-bind", CERTIFICATES, CERTIFICATES, "--setenv", "UV_NO_CACHE", "1", "--chdir", HOME, "--"]
    tied([*inside, "/run/uv", "venv", "--quiet", "--python", "/usr/bin/python3", ".venv"])
    pip = ["pip", "install", "--quiet", "--compile-bytecode", "--require-hashes", "-r", "requirements.txt"]
    tied([*inside, "/run/uv", *pip], timeout=LONGEST)
    (home / "requirements.txt").unlink()


def uv() -> Path:
    """Raises Unavailable where setup.sh has not brought it."""
    ours = ROOT / ".venv/bin/uv"
    return ours if ours.exists() else Path(find("uv", "uv, by ./setup.sh"))


def tied(argv: Sequence[str | Path], timeout: float | None = None, scratch: Path | None = None) -> str:
    """What a program prints that ends with us, however we end. scratch: where its temporary files go."""
    environment = {"TMPDIR": str(scratch)} if scratch else {}
    return run([find("setpriv", "util-linux"), "--pdeathsig", "KILL", *argv], timeout=timeout, env=environment)


def ext4(tree: Path, disk: Path, room: int) -> None:
    """A sparse disk with what is in a folder, and so many bytes more."""
    used = int(tied(["du", "--summarize", "--block-size=1", tree]).split()[0])
    with disk.open("wb") as image:
        image.truncate(-(-(used * 11 // 10 + room) // 2**20) * 2**20)
    tied([find("mke2fs", "e2fsprogs"), "-q", "-F", "-t", "ext4", "-O", "^has_journal", "-m", "0", "-d", tree, disk])
