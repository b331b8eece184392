"""One virtual machine, as libvirt or QEMU is told of it: a profile with its places filled.

Source: libvirt, formatdomain.html; QEMU, qemu-system-x86_64(1).
"""

from __future__ import annotations

import re
import struct
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from harness.vm.profile import Profile, fill

GUEST_RAM = "/memfd:memory-backend-memfd"
"""How a mapping of the guest's RAM begins in QEMU's /proc/PID/smaps."""

Accelerator = Literal["kvm", "tcg"]
DEFAULT_CPU = "qemu64"
"""QEMU's own for the machine types that we use."""


@dataclass(frozen=True)
class Machine:
    """memory in bytes. doorbell, console: a socket's path, or the number of an open one.

    tsc: the rate of the TSC in kHz, or what stands for it. emulator: a QEMU in place of libvirt's choice.
    owner: the uid and gid that the files belong to, where a daemon would give them to others.
    uuid: the domain's, in place of a random one. firmware: the ROM in place of the profile's own.
    """

    name: str
    accelerator: Accelerator
    vcpus: int
    memory: int
    kernel: Path
    initramfs: Path
    disk: Path
    doorbell: str
    console: str
    agent: str = ""
    tsc: int | str | None = None
    emulator: str | None = None
    partition: str | None = None
    owner: tuple[int, int] | None = None
    uuid: str | None = None
    firmware: Path | None = None


def command_line(profile: Profile, accelerator: Accelerator, tsc: int | str | None) -> str:
    """What the guest's kernel is told."""
    told = tsc and accelerator == "tcg"  # KVM tells its guests by itself
    return fill(profile.command_line, {"tsc": f"tsc_early_khz={tsc}" if told else ""}).strip()


@cache
def tsc_khz() -> int | None:
    """The rate of this machine's TSC, which QEMU's emulation passes on, as far as /proc tells; None where it does not.

    Where the CPU changes its frequency it is off by as much as that, and so is the guest's clock, which nobody asks.
    """
    told = re.search(r"^cpu MHz\s*: (\d+\.\d+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return round(float(told[1]) * 1000) if told else None


def domain(profile: Profile, vm: Machine) -> str:
    """libvirt's XML of it. What the engine needs, and no profile has, is added.

    As with virt-install, the host's CPU is passed through only under KVM: software emulation has QEMU's own.
    """
    root = ET.fromstring(profile.domain)
    values = _values(profile, vm)
    for element in root.iter():
        element.text = fill(element.text, values) if element.text else None
        element.attrib = {name: fill(value, values) for name, value in element.attrib.items()}
        element.tail = None
    cpu = root.find("cpu")
    if cpu is not None and vm.accelerator == "tcg" and cpu.get("mode") in ("host-passthrough", "host-model"):
        root.remove(cpu)
    if vm.emulator is not None:
        devices = root.find("devices")
        devices = ET.SubElement(root, "devices") if devices is None else devices
        for named in devices.findall("emulator"):
            devices.remove(named)
        _add(devices, "emulator", vm.emulator)
    if vm.uuid is not None:
        _set_uuid(root, vm.uuid)
    if vm.firmware is not None and (rom := root.find("os/loader[@type='rom']")) is not None:
        rom.text = str(vm.firmware)
    if vm.partition is not None and root.find("resource") is None:
        _add(_add(root, "resource"), "partition", vm.partition)
    if vm.owner is not None:
        # The files are ours and stay so: a daemon would give them to its own user, the cached ones too.
        label = _add(root, "seclabel", type="static", model="dac", relabel="no")
        _add(label, "label", f"+{vm.owner[0]}:+{vm.owner[1]}")
    return ET.tostring(root, encoding="unicode")


def arguments(profile: Profile, vm: Machine) -> list[str]:
    """QEMU's command line without the program itself. A comma in a path is doubled, as QEMU wants it."""
    values = {name: value.replace(",", ",,") for name, value in _values(profile, vm).items() if name != "command_line"}
    values["command_line"] = command_line(profile, vm.accelerator, vm.tsc)
    return [fill(argument, values) for argument in profile.arguments]


def machine_type(profile: Profile) -> str:
    """What libvirt calls the type of machine; empty where the domain does not say."""
    kind = ET.fromstring(profile.domain).find("os/type")
    return "" if kind is None else kind.get("machine", "")


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


def _values(profile: Profile, vm: Machine) -> dict[str, str]:
    return {
        "type": "kvm" if vm.accelerator == "kvm" else "qemu",
        "accel": vm.accelerator,
        "cpu": "host" if vm.accelerator == "kvm" else DEFAULT_CPU,
        "name": vm.name,
        "memory": str(vm.memory),
        "vcpus": str(vm.vcpus),
        "kernel": str(vm.kernel),
        "initramfs": str(vm.initramfs),
        "command_line": command_line(profile, vm.accelerator, vm.tsc),
        "disk": str(vm.disk),
        "doorbell": vm.doorbell,
        "console": vm.console,
        "agent": vm.agent,
    }


def _set_uuid(root: ET.Element, uuid: str) -> None:
    """Set a domain's UUID, also in the SMBIOS data of its profile: libvirt refuses a domain whose two UUIDs differ."""
    for named in root.findall("uuid"):
        root.remove(named)
    _add(root, "uuid", uuid)
    for entry in root.iterfind("sysinfo/system/entry[@name='uuid']"):
        entry.text = uuid


def _add(parent: ET.Element, tag: str, text: str | None = None, **attributes: str) -> ET.Element:
    element = ET.SubElement(parent, tag, attributes)
    element.text = text
    return element
