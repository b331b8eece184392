"""The disk of the users' machine: a Debian as its installer leaves it, with Docker and libvirt, made by mmdebstrap.

Built as root, and cached by everything that determines its content.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness import bundle, debian, places, workloads
from harness.command import find
from harness.sandbox import ENDS
from harness.vm import guest
from harness.vm.guest import GuestKernel
from lab import system
from lab.system import CERTIFICATES, ext4, tied

SUITES: Mapping[str, str] = {"debian12": "bookworm", "debian13": "trixie"}
FILES = Path(__file__).parent / "files"
"""Copied over the root file system."""
BOOT = Path(__file__).parent / "boot"
CONFIGURE = Path(__file__).parent / "configure"
BASE = (
    *("apparmor", "apparmor-utils", "ca-certificates", "dbus", "dbus-user-session", "git", "iproute2", "kmod"),
    *("libpam-systemd", "make", "nftables", "openssh-server", "openssh-client", "polkitd", "python3", "sudo"),
    *("systemd-sysv", "udev"),
)
"""Packages of a standard installation that minbase lacks."""
LEFT_TO_SETUP = frozenset({"mmdebstrap", "bubblewrap"})
"""Packages that setup.sh has to install on this machine, so that its own installation is tried too."""
FREE = 16 * 2**30
"""Bytes of free space on the disk, which is a sparse file."""
TIMEOUT = 1200.0
"""Seconds for mmdebstrap: some 500 packages."""


@dataclass(frozen=True)
class Image:
    """A disk with its kernel and initramfs. new: whether it was built just now."""

    folder: Path
    new: bool

    @property
    def disk(self) -> Path:
        return self.folder / "disk.ext4"

    @property
    def kernel(self) -> Path:
        return self.folder / "vmlinuz"

    @property
    def initramfs(self) -> Path:
        return self.folder / "initramfs"

    @property
    def packages(self) -> list[str]:
        """Debian packages as `name version`."""
        return (self.folder / "packages").read_text().splitlines()


def get(name: str) -> Image:
    """Return the image of a system, a key of SUITES; build it if the cache lacks it.

    Raises Unavailable if it cannot be built.
    """
    suite = SUITES[name]
    packages = [f"linux-image-cloud-{debian.architecture()}", *BASE, *_setup_packages(suite)]
    busybox = bundle.build(workloads.load("hello")).root / "bin/busybox"
    files = sorted(path for path in FILES.rglob("*") if path.is_file())
    recipe = [Path(__file__), BOOT, CONFIGURE, Path(guest.__file__), *files]
    parts = [*packages, *sources(suite), *(f"{path.name} {path.read_text()}" for path in recipe)]

    def make(draft: Path, scratch: Path) -> None:
        root = scratch / "root"
        _install(root, suite, packages)
        _configure(root)
        shutil.copyfile(next((root / "boot").glob("vmlinuz-*")), draft / "vmlinuz")
        (draft / "packages").write_text(tied(["dpkg-query", "--root", root, "-W", "-f", "${Package} ${Version}\\n"]))
        kernel = GuestKernel(draft / "vmlinuz", "", next((root / "lib/modules").iterdir()), None, "")
        shutil.copyfile(guest.initramfs(busybox, kernel, guest.drivers("pci"), BOOT), draft / "initramfs")
        ext4(root, draft / "disk.ext4", FREE)

    folder, new = system.cached(places.cache() / f"lab-{name}", parts, make)
    return Image(folder, new)


def sources(suite: str) -> list[str]:
    """Return the package sources of a suite, in sources.list(5) form: this machine's own with the suite replaced."""
    return [line.replace(debian.SUITE, suite) for line in debian.sources()]


def _setup_packages(suite: str) -> list[str]:
    return [name for name in system.setup_packages(suite) if name not in LEFT_TO_SETUP]


def _install(root: Path, suite: str, packages: Sequence[str]) -> None:
    isolated = [find("unshare", "util-linux"), "--mount", "--pid", "--fork", "--kill-child"]
    options = ["--mode=root", "--variant=minbase", "--format=directory", f"--include={','.join(packages)}"]
    options += ["--aptopt=APT::Install-Recommends false", *system.UNDATED]
    mmdebstrap = find("mmdebstrap", "mmdebstrap")
    argv: list[str | Path] = [*isolated, mmdebstrap, *options, suite, root, *sources(suite)]
    system.bootstrap(argv, mmdebstrap, TIMEOUT, root.parent)


def _configure(root: Path) -> None:
    """Copy the settings, the certificates that this machine trusts, and run CONFIGURE inside the tree."""
    shutil.copytree(FILES, root, dirs_exist_ok=True)
    shutil.copyfile(CERTIFICATES, root / CERTIFICATES.lstrip("/"))
    shutil.copyfile(CONFIGURE, root / "configure")
    inside: list[str | Path] = [find("bwrap", "bubblewrap"), *ENDS, "--bind", root, "/", "--dev", "/dev"]
    tied([*inside, "--proc", "/proc", "--tmpfs", "/tmp", "--", "/bin/sh", "-eu", "/configure"])
    (root / "configure").unlink()
