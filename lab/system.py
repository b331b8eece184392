"""The lab's Debian: just what setup.sh installs on a machine that has nothing, a kernel with KVM, and locked packages.

Made once, by mmdebstrap and as root, and kept by the content of all that it is made of.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness import bundle, debian, places, workloads
from harness.command import find, run
from harness.errors import Unavailable
from harness.ledger import Ledger
from harness.vm import guest
from harness.vm.guest import GuestKernel

ROOT = Path(__file__).parents[1]
HOME = Path("/opt/weighbridge")
"""Where the project is in the lab."""
BOOT = Path(__file__).parent / "boot"
ROOM = 4 * 2**30
"""Bytes of the disk beyond what is on it at first."""
TIMEOUT = 1200.0
ENDS = ("--unshare-pid", "--unshare-ipc", "--unshare-uts", "--die-with-parent", "--new-session")
CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
LOCKED = ("pyproject.toml", "uv.lock")


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
    """Raises Unavailable where it cannot be made."""
    packages = [f"linux-image-cloud-{debian.architecture()}", *run([ROOT / "setup.sh", "--packages"]).split()]
    parts = [*packages, debian.SUITE, *(path.read_text() for path in (Path(__file__), BOOT))]
    parts += [(ROOT / name).read_text() for name in LOCKED]
    key = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]
    place = places.cache() / "lab" / key
    new = not place.exists()
    if new and os.geteuid() != 0:
        raise Unavailable("only root can make the lab's Debian", "run `make lab` as root")
    with Ledger() as ledger, ledger.holding_folder() as folder:
        places.made_once(place, lambda draft: _make(places.folder(draft), folder / "root", packages))
    return System(place, new)


def _make(draft: Path, root: Path, packages: Sequence[str]) -> None:
    _unpack(root, packages)
    shutil.copyfile(next((root / "boot").glob("vmlinuz-*")), draft / "vmlinuz")
    told: list[str | Path] = ["dpkg-query", "--root", root, "-W", "-f", "${Package} ${Version}\\n"]
    (draft / "packages").write_text(run(told))
    kernel = GuestKernel(draft / "vmlinuz", "", next((root / "lib/modules").iterdir()), None, "")
    busybox = bundle.build(workloads.load("hello")).root / "bin/busybox"
    shutil.copyfile(guest.initramfs(busybox, kernel, guest.drivers("pci"), BOOT), draft / "initramfs")
    _install_locked(root)
    (root / HOME.relative_to("/") / ".venv").rename(draft / "venv")
    ext4(root, draft / "disk.ext4", ROOM)


def _unpack(root: Path, packages: Sequence[str]) -> None:
    """In namespaces of its own: what ends it, ends its mounts and all that it started."""
    alone = [find("setpriv", "util-linux"), "--pdeathsig", "KILL", find("unshare", "util-linux")]
    alone += ["--mount", "--pid", "--fork", "--kill-child"]
    options = ["--mode=root", "--variant=minbase", "--format=directory", f"--include={','.join(packages)}"]
    options += ["--aptopt=APT::Install-Recommends false"]
    sources = debian.sources()
    run([*alone, find("mmdebstrap", "mmdebstrap"), *options, debian.SUITE, root, *sources], timeout=TIMEOUT)


def _install_locked(root: Path) -> None:
    """The Python packages of uv.lock, by that Debian's own Python and compiler, into HOME/.venv."""
    exported = ["export", "--frozen", "--extra", "libvirt", "--no-emit-project", "--quiet"]
    home = places.folder(root / HOME.relative_to("/"))
    (home / "requirements.txt").write_text(run([uv(), *exported, "--project", ROOT]))
    inside: list[str | Path] = [
        find("bwrap", "bubblewrap"),
        *ENDS,
        "--bind",
        root,
        "/",
        "--dev",
        "/dev",
        "--proc",
        "/proc",
    ]
    inside += ["--tmpfs", "/tmp", "--ro-bind", uv(), "/run/uv", "--ro-bind", CERTIFICATES, CERTIFICATES]
    inside += ["--setenv", "UV_NO_CACHE", "1", "--chdir", HOME, "--"]
    run([*inside, "/run/uv", "venv", "--quiet", "--python", "/usr/bin/python3", ".venv"])
    pip = ["pip", "install", "--quiet", "--compile-bytecode", "--require-hashes", "-r", "requirements.txt"]
    run([*inside, "/run/uv", *pip], timeout=TIMEOUT)
    (home / "requirements.txt").unlink()


def uv() -> Path:
    """Raises Unavailable where setup.sh has not brought it."""
    ours = ROOT / ".venv/bin/uv"
    return ours if ours.exists() else Path(find("uv", "uv, by ./setup.sh"))


def ext4(tree: Path, disk: Path, room: int) -> None:
    """A sparse disk with what is in a folder, and so many bytes more."""
    used = int(run(["du", "--summarize", "--block-size=1", tree]).split()[0])
    with disk.open("wb") as image:
        image.truncate(-(-(used * 11 // 10 + room) // 2**20) * 2**20)
    run([find("mke2fs", "e2fsprogs"), "-q", "-F", "-t", "ext4", "-O", "^has_journal", "-m", "0", "-d", tree, disk])
