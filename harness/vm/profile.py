"""A profile: all that makes a virtual machine what it is, but the bundle and the limits. A data file each.

profiles/<backend>/<name>.toml has ours. A file of the user's is either such a TOML, or for libvirt a domain XML. What
is not known before a launch stands in braces, as {memory}; PLACES has all of them.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Literal

import msgspec

from harness.decode import Undecodable, decode_toml, decode_xml
from harness.errors import BadInput
from harness.vm.guest import Transport

PLACES = {
    "type": "libvirt's word for the accelerator: kvm, or qemu for TCG",
    "accel": "QEMU's word for the accelerator: kvm or tcg",
    "cpu": "the model of the CPU: host under KVM, else QEMU's default",
    "name": "the machine's name",
    "memory": "bytes of RAM",
    "vcpus": "virtual CPUs",
    "kernel": "the path of the guest's kernel",
    "initramfs": "the path of its initramfs",
    "command_line": "what the kernel is told",
    "tsc": "under TCG what tells the kernel the rate of its TSC, tsc_early_khz=...",
    "disk": "the path of the instance's disk, a qcow2",
    "doorbell": "where the doorbell's port leads: a socket's path, for QEMU the number of an open one",
    "agent": "the path of a socket that is free for a guest agent",
    "console": "where the serial console leads, as the doorbell",
}
_PLACE = re.compile(r"\{([a-z_]+)\}")
_NEEDED = ("name", "memory", "disk", "doorbell")
DIRECT = ("kernel", "initramfs", "command_line")
_FILES = ("loader", "nvram", "emulator", "kernel", "initrd", "dtb", "bios")
"""Elements of a domain whose text is the path of a file that has to be there."""


class Profile(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """about: the configuration in a sentence. transport: how virtio devices are reached.

    modules: what the guest inserts beside the drivers of its disk and its doorbell.
    boot: `kernel` has the VMM load the guest's kernel, `disk` lets firmware and GRUB find it on a full disk.
    kernel: the file that is loaded, as it was packaged or unpacked beforehand.
    most_cpus: so many vCPUs can the guest find; None: any number.
    restore: an instance is not booted but restored from one that was saved when it was ready.
    console: phases by the lines of the serial console that end them.
    domain: libvirt's XML; arguments: QEMU's command line.
    """

    about: str
    transport: Transport = "pci"
    modules: tuple[str, ...] = ()
    boot: Literal["kernel", "disk"] = "kernel"
    kernel: Literal["bzImage", "vmlinux"] = "bzImage"
    command_line: str = ""
    most_cpus: int | None = None
    restore: bool = False
    console: dict[str, str] = {}
    domain: str = ""
    arguments: tuple[str, ...] = ()


def names(backend: str) -> list[str]:
    """The profiles that come with a backend."""
    return sorted(
        each.name.removesuffix(".toml") for each in files("harness.vm").joinpath("profiles", backend).iterdir()
    )


def of_name(backend: str, name: str) -> Profile:
    """One of ours."""
    text = files("harness.vm").joinpath("profiles", backend, f"{name}.toml").read_text("utf-8")
    return _checked(backend, msgspec.convert(decode_toml(text), Profile), name)


def of_file(backend: str, path: Path) -> Profile:
    """One of the user's. Raises BadInput with one clear line."""
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        told = error.strerror if isinstance(error, OSError) else "it is no text"
        raise BadInput(f"cannot read the profile {path}: {told}") from error
    if path.suffix == ".xml" and backend == "libvirt":
        return _checked(backend, _of_xml(text, path), str(path))
    try:
        return _checked(backend, msgspec.convert(decode_toml(text), Profile), str(path))
    except (Undecodable, msgspec.ValidationError) as error:
        raise BadInput(f"the profile {path}: {error}") from error


def fill(text: str, values: Mapping[str, str]) -> str:
    """The text with its places filled."""
    return _PLACE.sub(lambda found: values[found[1]], text)


def _of_xml(text: str, path: Path) -> Profile:
    boot: Literal["kernel", "disk"] = "kernel" if "{kernel}" in text else "disk"
    return Profile(about=f"the domain XML {path.name}", boot=boot, domain=text)


def _checked(backend: str, profile: Profile, where: str) -> Profile:
    told = f"the profile {where}"
    is_domain = backend == "libvirt"
    texts = list(_texts(_parsed(profile.domain, told), told) if is_domain else profile.arguments)
    if not texts:
        raise BadInput(f"{told}: {'domain' if is_domain else 'arguments'} is missing")
    found = {place for text in texts for place in _PLACE.findall(text)}
    if unknown := sorted(found - PLACES.keys()):
        raise BadInput(f"{told}: there is nothing to put in the place of {{{unknown[0]}}}; known: {', '.join(PLACES)}")
    for place in (*_NEEDED, *(DIRECT if profile.boot == "kernel" else ())):
        if place not in found:
            raise BadInput(f"{told} has no place for the {place.replace('_', ' ')}: {{{place}}} stands nowhere in it")
    return profile


def _parsed(domain: str, told: str) -> ET.Element:
    try:
        root = decode_xml(domain)
    except Undecodable as error:
        raise BadInput(f"{told} is no XML: {error}") from error
    if root.tag != "domain":
        raise BadInput(f"{told} is no domain of libvirt's: it begins with <{root.tag}>")
    return root


def _texts(root: ET.Element, told: str) -> Iterator[str]:
    """Everything that is written in a domain. Raises BadInput where it names a file that is not there."""
    for element in root.iter():
        text = (element.text or "").strip()
        named: Sequence[str] = [text] if element.tag in _FILES else []
        if element.tag == "source" and (file := element.get("file")):
            named = [file]
        for path in named:
            if path.startswith("/") and not Path(path).exists():
                raise BadInput(f"{told}: <{element.tag}> names the file {path}, which is not there")
        yield text
        yield from element.attrib.values()
