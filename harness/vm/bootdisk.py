"""A full disk that a PC starts from by itself: GRUB in the boot sector, a partition with the kernel, and the bundle's.

Source: GNU GRUB, grub-mkimage and grub-core/boot/i386/pc (a core image that lies in sector 1 onwards needs no block
list of its own); the MBR's partition table.
"""

from __future__ import annotations

import hashlib
import struct
import tempfile
from pathlib import Path

from harness import command, debian, places, sandbox
from harness.bundle import FAKE_TIME, Bundle
from harness.errors import Unavailable
from harness.vm.guest import GuestKernel

SECTOR = 512
FIRST = 2048  # the sector of the first partition; before it is room for GRUB
MODULES = ("biosdisk", "part_msdos", "ext2", "linux", "normal", "serial", "terminal", "echo", "configfile")
CONFIGURATION = """\
serial --unit=0 --speed=115200
terminal_output serial
echo "grub: begins"
set root=(hd0,msdos1)
linux /vmlinuz {command_line} WEIGHBRIDGE_DISK=/dev/vda2
initrd /initramfs
boot
"""
LINUX, ACTIVE = 0x83, 0x80
DISK = "disk"
RECIPE = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()


def make(bundle: Bundle, kernel: GuestKernel, initramfs: Path, command_line: str) -> Path:
    """The disk, sparse: its second partition is the bundle's disk to the byte. Raises Unavailable.

    command_line: of the kernel.
    """
    configuration = CONFIGURATION.format(command_line=command_line)
    told = [configuration, kernel.sha256, initramfs.name, RECIPE]
    key = hashlib.sha256("\0".join(told).encode()).hexdigest()[:16]

    def write(draft: Path) -> None:
        _write(draft, configuration, kernel.image, initramfs, bundle.disk())

    return (
        places.made_once(bundle.root.parent / f"full-disk-{key}", write, f"making the boot disk of {bundle.workload}")
        / DISK
    )


def _write(draft: Path, configuration: str, kernel: Path, initramfs: Path, root: Path) -> None:
    work = places.folder(draft / "work")
    boot, core = _boot_partition(work, kernel, initramfs), _core(configuration)
    first, second = boot.stat().st_size // SECTOR, root.stat().st_size // SECTOR
    partitions = ((boot, FIRST, first), (root, FIRST + first, second))
    sector = bytearray((grub() / "usr/lib/grub/i386-pc/boot.img").read_bytes())
    sector[446:510] = bytes(64)  # on a floppy there would be code
    for number, (_, begin, size) in enumerate(partitions):
        # A partition: whether it is active, no CHS, its type, its first sector and how many it has.
        struct.pack_into("<BxxxBxxxII", sector, 446 + 16 * number, 0 if number else ACTIVE, LINUX, begin, size)
    sector[510:512] = b"\x55\xaa"
    image = draft / DISK
    with image.open("wb") as disk:
        disk.write(sector + core)
        disk.truncate((FIRST + first + second) * SECTOR)
    for part, begin, _ in partitions:
        where = (f"if={part}", f"of={image}", f"bs={SECTOR}", f"seek={begin}")
        command.run(["dd", *where, "conv=notrunc,sparse", "status=none"])
    image.chmod(0o644)
    places.remove(work)


def _boot_partition(work: Path, kernel: Path, initramfs: Path) -> Path:
    content = places.folder(work / "boot")
    (content / "vmlinuz").write_bytes(kernel.read_bytes())
    (content / "initramfs").write_bytes(initramfs.read_bytes())
    partition = work / "boot.ext2"
    size = sum(path.stat().st_size for path in content.iterdir()) + 8 * 2**20
    with partition.open("wb") as image:
        image.truncate(-(-size // 2**20) * 2**20)
    mke2fs = command.find("mke2fs", "e2fsprogs")
    command.run_as_uid_0([mke2fs, "-q", "-F", "-t", "ext2", "-m", "0", "-d", content, partition], env=FAKE_TIME)
    return partition


def _core(configuration: str) -> bytes:
    """GRUB's core image with its configuration inside. Raises Unavailable where it does not fit before a partition."""
    unpacked = grub()
    with tempfile.TemporaryDirectory(dir=places.folder(unpacked / "tmp")) as folder:
        inside = Path(folder)
        (inside / "grub.cfg").write_text(configuration)
        seen = f"/tmp/{inside.name}"
        argv = ["grub-mkimage", "-O", "i386-pc", "-p", "(hd0,msdos1)/", "-c", f"{seen}/grub.cfg"]
        sandbox.within(unpacked, [*argv, "-o", f"{seen}/core.img", *MODULES])
        core = (inside / "core.img").read_bytes()
    if len(core) > (FIRST - 1) * SECTOR:
        raise Unavailable("GRUB's core image reaches into the first partition", "take another profile")
    return core


def grub() -> Path:
    """Debian's GRUB with all that it needs, unpacked: nothing of it is installed here."""

    def unpack(draft: Path) -> None:
        debian.unpack(["grub-common", "grub-pc-bin"], places.folder(draft) / "root")

    return places.made_once(places.cache() / "grub", unpack, "downloading GRUB") / "root"
