"""A virtual machine as libvirt is told of it.

Source: libvirt, formatdomain.html. Nothing is left to defaults that would cost the guest or change its measure: no
network, no graphics, no USB, no balloon; the guest's RAM in a memfd of its own, so that it can be told from QEMU's.
"""

from __future__ import annotations

import struct
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

PORT = "/dev/vport0p1"
COMMAND_LINE = f"quiet panic=-1 console=ttyS0 WEIGHBRIDGE_DOORBELL={PORT}"
GUEST_RAM = "/memfd:memory-backend-memfd"
"""How a mapping of the guest's RAM begins in QEMU's /proc/PID/smaps."""


Accelerator = Literal["kvm", "tcg"]


@dataclass(frozen=True)
class Machine:
    """memory in bytes. base: the raw disk that `overlay` lies on. emulator: a QEMU in place of libvirt's choice.

    owner: the uid and gid that the files belong to, where a daemon would give them to others.
    """

    name: str
    accelerator: Accelerator
    machine: str
    architecture: str
    vcpus: int
    memory: int
    kernel: Path
    initramfs: Path
    base: Path
    overlay: Path
    doorbell: Path
    console: Path
    emulator: str | None = None
    partition: str | None = None
    owner: tuple[int, int] | None = None


def least_memory(kernel: Path) -> int:
    """The bytes below which a guest ends without a word, as far as its kernel's image tells: 0 where it does not.

    Source: Linux, Documentation/arch/x86/boot.rst: pref_address, where it runs, and init_size, what it needs there
    before it looks at the memory there is; both from version 2.10 of the protocol on.
    """
    with kernel.open("rb") as image:
        header = image.read(0x264)
    if len(header) < 0x264 or header[0x202:0x206] != b"HdrS" or struct.unpack_from("<H", header, 0x206)[0] < 0x20A:
        return 0
    address, size = struct.unpack_from("<QI", header, 0x258)
    return int(address + size)


def describe(vm: Machine) -> str:
    """The domain's XML."""
    domain = ET.Element("domain", type="kvm" if vm.accelerator == "kvm" else "qemu")
    _add(domain, "name", text=vm.name)
    _add(domain, "memory", text=str(vm.memory), unit="b")
    _add(domain, "vcpu", text=str(vm.vcpus))
    _add(_add(domain, "memoryBacking"), "source", type="memfd")
    if vm.partition is not None:
        _add(_add(domain, "resource"), "partition", text=vm.partition)
    if vm.owner is not None:
        # The files are ours and stay so: a daemon would give them to its own user, the cached ones too.
        label = _add(domain, "seclabel", type="static", model="dac", relabel="no")
        _add(label, "label", text=f"+{vm.owner[0]}:+{vm.owner[1]}")
    boot = _add(domain, "os")
    _add(boot, "type", text="hvm", arch=vm.architecture, machine=vm.machine)
    _add(boot, "kernel", text=str(vm.kernel))
    _add(boot, "initrd", text=str(vm.initramfs))
    _add(boot, "cmdline", text=COMMAND_LINE)
    _add(_add(domain, "features"), "acpi")
    if vm.accelerator == "kvm":
        _add(domain, "cpu", mode="host-passthrough")
    for event in ("on_poweroff", "on_reboot", "on_crash"):
        _add(domain, event, text="destroy")
    _devices(_add(domain, "devices"), vm)
    return ET.tostring(domain, encoding="unicode")


def _devices(devices: ET.Element, vm: Machine) -> None:
    if vm.emulator is not None:
        _add(devices, "emulator", text=vm.emulator)
    disk = _add(devices, "disk", type="file", device="disk")
    _add(disk, "driver", name="qemu", type="qcow2")
    _add(disk, "source", file=str(vm.overlay))
    backing = _add(disk, "backingStore", type="file")
    _add(backing, "format", type="raw")
    _add(backing, "source", file=str(vm.base))
    _add(backing, "backingStore")
    _add(disk, "target", dev="vda", bus="virtio")
    _add(devices, "controller", type="usb", model="none")
    _add(devices, "controller", type="virtio-serial")
    channel = _add(devices, "channel", type="unix")
    _add(channel, "source", mode="bind", path=str(vm.doorbell))
    _add(channel, "target", type="virtio", name="weighbridge.doorbell")
    console = _add(devices, "serial", type="file")
    _add(console, "source", path=str(vm.console))
    _add(devices, "memballoon", model="none")


def _add(parent: ET.Element, tag: str, text: str | None = None, **attributes: str) -> ET.Element:
    element = ET.SubElement(parent, tag, attributes)
    element.text = text
    return element
