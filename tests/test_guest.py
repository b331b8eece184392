"""What leads a virtual machine to the bundle's /init: kernels told from what is none, modules in their order."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import socket
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import lz4.block
import pytest

from harness import bundle, workloads
from harness.errors import BadInput, Unavailable
from harness.vm import guest, vmlinux
from harness.vm.guest import GuestKernel
from tests.ground import TIMEOUT


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("WEIGHBRIDGE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def bzimage(path: Path, version: str = "6.1.0-test") -> Path:
    """As much of a bzImage as says that it is one, and of which version."""
    content = bytearray(0x400)
    content[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", content, 0x20E, 0x100)
    text = f"{version} (builder@example) #1 SMP".encode() + b"\0"
    content[0x300 : 0x300 + len(text)] = text
    path.write_bytes(bytes(content))
    path.chmod(0o600)
    return path


def module(path: Path, depends: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = f"\x7fELF\0license=GPL\0depends={depends}\0name=x\0".encode()
    path.write_bytes(lzma.compress(content) if path.suffix == ".xz" else content)


def modules(folder: Path) -> Path:
    module(folder / "kernel/virtio/virtio_pci.ko.xz", "virtio,virtio_ring")
    module(folder / "kernel/virtio/virtio.ko", "virtio-ring")
    module(folder / "kernel/virtio/virtio-ring.ko", "")
    module(folder / "kernel/block/virtio_blk.ko", "virtio,builtin_one")
    module(folder / "kernel/char/virtio_console.ko", "")
    (folder / "modules.builtin").write_text("kernel/builtin-one.ko\nkernel/char/virtio_console.ko\n")
    (folder / "modules.order").touch()
    return folder


def test_a_kernel_tells_its_version(tmp_path: Path) -> None:
    found = guest.kernel(str(bzimage(tmp_path / "vmlinuz")), str(modules(tmp_path / "modules")))
    assert (found.version, found.package, found.modules) == ("6.1.0-test", None, tmp_path / "modules")
    assert found.image.stat().st_mode & 0o777 == 0o644  # the original is for its owner only
    assert guest.kernel(str(tmp_path / "vmlinuz")).modules is None


def test_modules_are_found_below_a_root_too(tmp_path: Path) -> None:
    place = modules(tmp_path / "root/lib/modules/6.1.0-test")
    assert guest.kernel(str(bzimage(tmp_path / "vmlinuz")), str(tmp_path / "root")).modules == place


def test_what_is_no_kernel_is_refused(tmp_path: Path) -> None:
    for path in (Path("/bin/sh"), Path("/dev/null"), workloads.INIT):
        with pytest.raises(BadInput, match="is not a Linux kernel"):
            guest.kernel(str(path), None)
    for absent in (tmp_path / "absent", tmp_path):
        with pytest.raises(BadInput, match="cannot read the kernel"):
            guest.kernel(str(absent), None)
    with pytest.raises(BadInput, match="holds no kernel modules"):
        guest.kernel(str(bzimage(tmp_path / "vmlinuz")), str(tmp_path))
    with pytest.raises(BadInput, match="give its image too"):
        guest.kernel(None, str(tmp_path))


def test_modules_come_after_what_they_need(tmp_path: Path) -> None:
    needed = guest._needed(modules(tmp_path), guest.drivers("pci"))
    assert [name for name, _ in needed] == ["virtio_ring", "virtio", "virtio_pci", "virtio_blk"]
    assert all(content.startswith(b"\x7fELF") for _, content in needed)
    assert guest._needed(None, guest.drivers("pci")) == []


def packed(path: Path, payload: bytes) -> Path:
    """A bzImage that holds this payload, as far as its header tells."""
    content = bytearray(bzimage(path).read_bytes())
    content[0x1F1] = 1  # one sector of setup code besides the first
    struct.pack_into("<II", content, 0x248, 0, len(payload))
    path.write_bytes(bytes(content) + payload)
    return path


def unpacked(kernel: GuestKernel) -> Path:
    return vmlinux.unpacked(kernel.image, kernel.sha256)


KERNEL = b"\x7fELF" + bytes(range(256)) * 40000


def legacy_lz4(content: bytes) -> bytes:
    """As lz4 -l packs, and the kernel's build adds the size."""
    blocks = [content[at : at + vmlinux.LZ4_BLOCK] for at in range(0, len(content), vmlinux.LZ4_BLOCK)]
    packed = [lz4.block.compress(each, store_size=False) for each in blocks]
    framed = b"".join(struct.pack("<I", len(each)) + each for each in packed)
    return b"\x02\x21\x4c\x18" + framed + struct.pack("<I", len(content))


@pytest.mark.long
@pytest.mark.parametrize("pack", [gzip.compress, lzma.compress, bz2.compress, legacy_lz4])
def test_a_kernel_is_unpacked_whatever_it_is_packed_by(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    assert len(KERNEL) > vmlinux.LZ4_BLOCK
    kernel = guest.kernel(str(packed(tmp_path / "vmlinuz", pack(KERNEL))))
    plain = unpacked(kernel)
    assert plain.read_bytes() == KERNEL
    assert unpacked(kernel) == plain


@pytest.mark.parametrize(
    ("payload", "told"),
    [(b"\x28\xb5\x2f\xfdzstd", "begins with 28b52ffd"), (gzip.compress(b"MZ"), "no ELF")],
    ids=["zstd", "no ELF"],  # without names, gzip's time stamp is in them, and pytest-xdist's workers may disagree
)
def test_a_kernel_that_cannot_be_unpacked_is_not_here(tmp_path: Path, payload: bytes, told: str) -> None:
    with pytest.raises(Unavailable, match=told):
        unpacked(guest.kernel(str(packed(tmp_path / "vmlinuz", payload))))


def test_a_module_that_a_profile_asks_for_has_to_be_there(tmp_path: Path) -> None:
    kernel = guest.kernel(str(bzimage(tmp_path / "vmlinuz")), str(modules(tmp_path / "modules")))
    guest.check(kernel, guest.drivers("pci"))
    with pytest.raises(BadInput, match="virtio_balloon is neither a module in"):
        guest.check(kernel, [*guest.drivers("pci"), "virtio_balloon"])


def test_drivers_that_are_built_in_are_found_in_the_kernel_itself(tmp_path: Path) -> None:
    named = KERNEL + b" virtio_pci virtio_blk "
    with pytest.raises(BadInput, match="virtio_console is not built in, without modules"):
        guest.check(
            guest.kernel(str(packed(tmp_path / "lacking", gzip.compress(named, mtime=0)))), guest.drivers("pci")
        )
    guest.check(
        guest.kernel(str(packed(tmp_path / "whole", gzip.compress(named + b"virtio_console", mtime=0)))),
        guest.drivers("pci"),
    )


@pytest.mark.engine
def test_a_guest_boots_to_its_facts(tmp_path: Path) -> None:
    made, kernel = bundle.build(workloads.load("hello")), guest.kernel(None, None)
    again = guest.kernel(None, None)
    assert again == kernel
    initramfs = guest.initramfs(made.root / "bin/busybox", kernel, guest.drivers("pci"))
    assert guest.initramfs(made.root / "bin/busybox", kernel, guest.drivers("pci")) == initramfs
    lines = boot(tmp_path, kernel, initramfs, made.disk())
    assert lines[:3] == ["MARK initramfs", "MARK init", "READY"]
    facts = json.loads(lines[3].removeprefix("FACTS "))
    assert (facts["bundle"], facts["kernel"]) == (made.sha256, kernel.version)
    assert facts["boot_id"] != Path("/proc/sys/kernel/random/boot_id").read_text().strip()


@pytest.mark.engine
def test_a_guest_that_cannot_go_on_says_why_and_ends(tmp_path: Path) -> None:
    made, kernel = bundle.build(workloads.load("hello")), guest.kernel(None, None)
    initramfs = guest.initramfs(made.root / "bin/busybox", kernel, guest.drivers("pci"))
    no_filesystem = tmp_path / "empty"
    no_filesystem.write_bytes(bytes(2**20))
    assert boot(tmp_path, kernel, initramfs, no_filesystem) == []
    assert "guest-init: the disk /dev/vda cannot be mounted" in (tmp_path / "console").read_text(errors="replace")


def boot(folder: Path, kernel: GuestKernel, initramfs: Path, disk: Path) -> list[str]:
    """The lines that a guest rings until its facts or its end, under software emulation; fails after 120 s."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "bell"))
        listener.listen(1)
        argv = [
            *("qemu-system-x86_64", "-M", "pc", "-nodefaults", "-nographic", "-m", "256", "-no-reboot", "-snapshot"),
            *("-kernel", str(kernel.image), "-initrd", str(initramfs), "-serial", f"file:{folder / 'console'}"),
            *("-append", "quiet panic=-1 console=ttyS0"),
            *("-drive", f"file={disk},if=virtio,format=raw", "-device", "virtio-serial"),
            *("-chardev", f"socket,id=bell,path={folder / 'bell'}", "-device", "virtserialport,chardev=bell"),
        ]
        with subprocess.Popen(argv, stdout=sys.stderr) as qemu:
            try:
                listener.settimeout(TIMEOUT)
                bell, _ = listener.accept()
                with bell, bell.makefile() as heard:
                    bell.settimeout(TIMEOUT)
                    lines: list[str] = []
                    for line in heard:
                        lines.append(line.rstrip("\n"))
                        if line.startswith("FACTS"):
                            break
                return lines
            finally:
                qemu.kill()
