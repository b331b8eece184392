"""What a virtual machine needs beyond its disk: a kernel, and an initramfs that leads to the bundle's /init."""

from __future__ import annotations

import gzip
import hashlib
import json
import lzma
import os
import re
import shutil
import struct
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from harness import command, debian, places
from harness.errors import BadInput, Unavailable
from harness.vm import vmlinux
from harness.vm.vmlinux import ELF

Transport = Literal["pci", "mmio"]
"""How virtio devices are reached."""

GUEST_INIT = Path(__file__).parent / "guest-init"
DEVICES = ("virtio_console", "virtio_blk")  # the doorbell's port appears while the disk is being mounted
EXTRA = ("virtio_balloon",)  # what a profile may ask for besides
TRANSPORTS: dict[Transport, str] = {"pci": "virtio_pci", "mmio": "virtio_mmio"}
APPLETS = ("insmod", "mount", "reboot", "sh", "switch_root", "usleep")
BUILT_AT = 1_704_067_200  # the time of every file, so that the same content gives the same archive


@dataclass(frozen=True)
class GuestKernel:
    """A kernel for guests, readable by all. `modules` is a folder as /lib/modules/<version> is; None: it needs none."""

    image: Path
    version: str
    modules: Path | None
    package: str | None
    sha256: str


def kernel(image: str | None = None, modules: str | None = None) -> GuestKernel:
    """The kernel of these paths; without them, the one that Debian makes for guests, fetched once and then kept.

    Without `modules`, those of the running system serve if they are of the image's version. Raises BadInput where
    a path is no kernel or no modules, Unavailable where Debian's kernel cannot be had.
    """
    if image is None:
        if modules is not None:
            raise BadInput("modules belong to a kernel: give its image too")
        return _debian()
    version, digest = _inspect(Path(image))
    found = _modules(Path(modules), version) if modules is not None else Path("/lib/modules", version)
    # A copy: kernels in /boot may be for root's eyes only, and libvirt runs QEMU as another user.
    copy = places.made_once(
        places.cache() / "kernels" / digest[:16], lambda draft: _copy(Path(image), draft), "copying the kernel"
    )
    return GuestKernel(copy, version, found if found.is_dir() else None, None, digest)


def drivers(transport: Transport) -> tuple[str, ...]:
    """The modules that lead to the disk and the doorbell."""
    return (TRANSPORTS[transport], *DEVICES)


KEPT = (*TRANSPORTS.values(), *DEVICES, *EXTRA)
"""The modules of Debian's kernel that are kept, with what they need."""


def check(guest: GuestKernel, wanted: Iterable[str]) -> None:
    """Raises BadInput where a kernel lacks one of these drivers, as far as its files tell.

    A driver is a module, is listed as built in, or where no modules are known is named in the kernel itself.
    """
    if guest.modules is not None:
        known = _files(guest.modules).keys() | _builtin(guest.modules)
        lacking = [driver for driver in wanted if driver not in known]
    else:
        try:
            content = vmlinux.unpacked(guest.image, guest.sha256).read_bytes()
        except Unavailable:  # packed in a way that nobody here can look into: the guest itself will tell
            return
        lacking = [driver for driver in wanted if driver.encode() not in content]
    if lacking:
        told = f"neither a module in {guest.modules} nor built in" if guest.modules else "not built in, without modules"
        raise BadInput(f"the kernel {guest.version} cannot drive its machine: {lacking[0]} is {told}")


def initramfs(busybox: Path, guest: GuestKernel, wanted: Iterable[str], script: Path = GUEST_INIT) -> Path:
    """The cpio archive that brings a guest from its kernel to the bundle's /init; `busybox` is a static one.

    wanted: the modules that are inserted, as far as they are modules, with what they need. script: its /init.

    Raises Unavailable where a module is packed in a way that cannot be unpacked here.
    """
    modules = _needed(guest.modules, wanted)
    parts = [busybox.read_bytes(), script.read_bytes(), *(module for _, module in modules)]
    key = hashlib.sha256("".join(hashlib.sha256(part).hexdigest() for part in parts).encode()).hexdigest()
    return places.made_once(
        places.cache() / "initramfs" / f"{key[:16]}.cpio",
        lambda draft: _archive(busybox, script, modules, draft),
        "packing the initramfs",
    )


def _debian() -> GuestKernel:
    """Debian's cloud kernel. Once fetched it stays, so that the guests of two campaigns run the same one."""
    place = places.made_once(
        places.cache() / "kernels" / f"debian-cloud-{_short(' '.join(KEPT))}",
        _fetch,
        "downloading Debian's guest kernel",
    )
    about = json.loads((place / "kernel.json").read_text())
    return GuestKernel(
        image=place / "vmlinuz",
        version=about["version"],
        modules=place / "modules" / about["version"],
        package=about["package"],
        sha256=about["sha256"],
    )


def _fetch(draft: Path) -> None:
    meta = f"linux-image-cloud-{debian.architecture()}"
    unpacked = places.folder(draft) / "unpacked"
    try:
        versions = debian.unpack([meta], unpacked)
    except Unavailable as error:
        told, hint = f"Debian's guest kernel {meta} cannot be had: {error}", "name a kernel by --kernel and --modules"
        raise Unavailable(told, f"{error.hint}, or {hint}", error.detail) from error
    package = next(name for name in versions if name.startswith("linux-image-") and name != meta)
    image = next((unpacked / "boot").glob("vmlinuz-*"))
    version, digest = _inspect(image)
    _copy(image, draft / "vmlinuz")
    _copy(unpacked / "boot" / f"config-{version}", draft / "config")
    source, kept = _modules(unpacked, version), places.folder(draft / "modules" / version)
    _copy(source / "modules.builtin", kept / "modules.builtin")
    for path in _closure(source, KEPT):
        places.folder((kept / path.relative_to(source)).parent)
        _copy(path, kept / path.relative_to(source))
    shutil.rmtree(unpacked)
    about = {"version": version, "sha256": digest, "package": f"{package} {versions[package]}"}
    (draft / "kernel.json").write_text(json.dumps(about, indent=2) + "\n")


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _inspect(image: Path) -> tuple[str, str]:
    """The version of a kernel ("unknown" where its image does not tell) and its SHA-256."""
    try:
        content = image.read_bytes()
    except OSError as error:
        raise BadInput(f"cannot read the kernel {image}: {error.strerror}") from error
    digest = hashlib.sha256(content).hexdigest()
    if content[0x202:0x206] == b"HdrS":  # the x86 boot protocol; 0x20e holds where its version stands, less 0x200
        start = 0x200 + struct.unpack_from("<H", content, 0x20E)[0]
        words = content[start : start + 256].split(b"\0")[0].split()
        return words[0].decode(errors="replace") if words else "unknown", digest
    told = re.search(rb"Linux version (\S+) ", content)
    if (content[:4] == ELF and told) or content[0x38:0x3C] == b"ARM\x64":
        return told[1].decode(errors="replace") if told else "unknown", digest
    raise BadInput(f"{image} is not a Linux kernel: neither a bzImage nor an ELF vmlinux")


def _modules(folder: Path, version: str) -> Path:
    """The folder that holds the modules of this version: the one given, or lib/modules/<version> in it."""
    for place in (folder, folder / "lib/modules" / version, folder / "usr/lib/modules" / version):
        if any((place / index).is_file() for index in ("modules.dep", "modules.order")):
            return place.absolute()
    raise BadInput(f"{folder} holds no kernel modules: neither modules.dep nor lib/modules/{version}/modules.dep")


def _needed(folder: Path | None, wanted: Iterable[str]) -> list[tuple[str, bytes]]:
    """The modules to insert, unpacked, in the order in which they need each other."""
    return [] if folder is None else [(_name(path), _unpacked(path)) for path in _closure(folder, wanted)]


def _closure(folder: Path, wanted: Iterable[str]) -> list[Path]:
    """The files of these modules, each after those that it depends on; what is built into the kernel is left out.

    A module itself tells what it depends on (modules.dep says the same, but a package that is not installed has none).
    """
    files, builtin = _files(folder), _builtin(folder)
    order: dict[str, Path] = {}

    def visit(name: str) -> None:
        if name in order or name in builtin or name not in files:  # a driver in neither: guest-init tells of it
            return
        told = re.search(rb"(?:^|\0)depends=([^\0]*)\0", _unpacked(files[name]))
        for other in told[1].decode().split(",") if told else []:
            visit(other.replace("-", "_"))
        order[name] = files[name]

    for driver in wanted:
        visit(driver)
    return list(order.values())


def _files(folder: Path) -> dict[str, Path]:
    return {_name(path): path for path in sorted(folder.rglob("*.ko*"))}


def _builtin(folder: Path) -> set[str]:
    listed = folder / "modules.builtin"
    return {_name(Path(text)) for text in listed.read_text().split()} if listed.is_file() else set()


def _name(path: Path) -> str:
    return path.name.split(".")[0].replace("-", "_")


def _unpacked(module: Path) -> bytes:
    match module.suffix:
        case ".xz":
            return lzma.decompress(module.read_bytes())
        case ".gz":
            return gzip.decompress(module.read_bytes())
        case ".zst":
            with tempfile.TemporaryDirectory() as folder:
                plain = Path(folder, "module.ko")
                command.run([command.find("zstd", "zstd"), "-q", "-d", module, "-o", plain])
                return plain.read_bytes()
        case _:
            return module.read_bytes()


def _archive(busybox: Path, script: Path, modules: list[tuple[str, bytes]], draft: Path) -> None:
    """Write the archive with busybox's own cpio, so that no other one is needed."""
    with tempfile.TemporaryDirectory(dir=draft.parent, prefix=".initramfs-") as folder:
        root = Path(folder)
        for name in ("bin", "dev", "modules", "root"):
            places.folder(root / name)
        _copy(busybox, root / "bin/busybox", 0o755)
        _copy(script, root / "init", 0o755)
        for applet in APPLETS:
            (root / "bin" / applet).symlink_to("busybox")
        for number, (name, module) in enumerate(modules, 10):
            (root / "modules" / f"{number}-{name}.ko").write_bytes(module)
            (root / "modules" / f"{number}-{name}.ko").chmod(0o644)
        everything = sorted(root.rglob("*"))
        for path in everything:
            os.utime(path, (BUILT_AT, BUILT_AT), follow_symlinks=False)
        names = "".join(f"{path.relative_to(root)}\n" for path in everything)
        options: list[str | Path] = ["-o", "-H", "newc", "--renumber-inodes", "--ignore-devno", "-F", draft.absolute()]
        command.run_as_uid_0([busybox.absolute(), "cpio", *options], cwd=root, stdin=names)
    draft.chmod(0o644)


def _copy(source: Path, target: Path, mode: int = 0o644) -> None:
    shutil.copyfile(source, target)
    target.chmod(mode)
    os.utime(target, (BUILT_AT, BUILT_AT))
