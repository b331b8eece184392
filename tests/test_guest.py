"""What leads a virtual machine to the bundle's /init: kernels told from what is none, modules in their order."""

from __future__ import annotations

import json
import lzma
import socket
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from harness import bundle, guest, workloads
from harness.errors import BadInput
from harness.guest import GuestKernel


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
    needed = guest._needed(modules(tmp_path))
    assert [name for name, _ in needed] == ["virtio_ring", "virtio", "virtio_pci", "virtio_blk"]
    assert all(content.startswith(b"\x7fELF") for _, content in needed)
    assert guest._needed(None) == []


@pytest.mark.engine
def test_a_guest_boots_to_its_facts(tmp_path: Path) -> None:
    made, kernel = bundle.build(workloads.load("hello")), guest.kernel(None, None)
    again = guest.kernel(None, None)
    assert again == kernel
    initramfs = guest.initramfs(made.root / "bin/busybox", kernel)
    assert guest.initramfs(made.root / "bin/busybox", kernel) == initramfs
    lines = boot(tmp_path, kernel, initramfs, made.disk())
    assert lines[:2] == ["MARK init", "READY"]
    facts = json.loads(lines[2].removeprefix("FACTS "))
    assert (facts["bundle"], facts["kernel"]) == (made.sha256, kernel.version)
    assert facts["boot_id"] != Path("/proc/sys/kernel/random/boot_id").read_text().strip()


@pytest.mark.engine
def test_a_guest_that_cannot_go_on_says_why_and_ends(tmp_path: Path) -> None:
    made, kernel = bundle.build(workloads.load("hello")), guest.kernel(None, None)
    initramfs = guest.initramfs(made.root / "bin/busybox", kernel)
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
            *("-append", "quiet panic=-1 console=ttyS0 WEIGHBRIDGE_DOORBELL=/dev/vport0p1"),
            *("-drive", f"file={disk},if=virtio,format=raw", "-device", "virtio-serial"),
            *("-chardev", f"socket,id=bell,path={folder / 'bell'}", "-device", "virtserialport,chardev=bell"),
        ]
        with subprocess.Popen(argv, stdout=sys.stderr) as qemu:
            try:
                listener.settimeout(120)
                bell, _ = listener.accept()
                with bell, bell.makefile() as heard:
                    bell.settimeout(120)
                    lines: list[str] = []
                    for line in heard:
                        lines.append(line.rstrip("\n"))
                        if line.startswith("FACTS"):
                            break
                return lines
            finally:
                qemu.kill()
