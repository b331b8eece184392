"""Under AppArmor: the names of a machine's files, its firmware, and the profile file that libvirt leaves in /etc."""

from __future__ import annotations

import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar
from uuid import UUID

import pytest

from harness.backends import Options
from harness.backends.libvirt import Libvirt, LibvirtMachine
from harness.command import find
from harness.doorbell import Doorbell
from harness.engines import libvirt_apparmor
from harness.engines.libvirt import LibvirtEngine
from harness.ledger import Ledger
from harness.model import Limits, Plan
from harness.vm import bootdisk, firmware, machine, profile
from harness.vm.backend import OVERLAY, DiskImage
from harness.vm.machine import Machine

HELPER = Path("/usr/lib/libvirt/virt-aa-helper")
READABLE = (
    *("/**.img", "/**.raw", "/**.qcow{,2}", "/**.qed", "/**.vmdk", "/**.vhd", "/**.[iI][sS][oO]"),
    "/**/disk{,.*}",
)
"""The disks that virt-aa-helper, itself confined, may read outside a few folders.

Source: libvirt 9.0.0 and 11.3.0, src/security/apparmor/usr.lib.libvirt.virt-aa-helper.in.
"""
MACHINE = Machine(
    name="weighbridge-1-2",
    accelerator="tcg",
    vcpus=1,
    memory=256 * 2**20,
    kernel=Path("/k"),
    initramfs=Path("/i"),
    disk=Path("/overlay"),
    doorbell="/bell",
    console="/console",
    agent="/agent",
    uuid=libvirt_apparmor.compute_uuid("weighbridge-1-2"),
)


def expression(pattern: str) -> str:
    """A pattern of AppArmor's (apparmor.d(5)) as a regular expression, as far as READABLE needs it."""
    words = {"**": ".*", "*": "[^/]*", ".": r"\.", "{": "(?:", ",": "|", "}": ")"}
    return "".join(words.get(word, word) for word in re.findall(r"\*\*|.", pattern))


@pytest.mark.parametrize(
    ("path", "readable"),
    [
        (f"/var/lib/weighbridge/54ab44/8/{OVERLAY}", True),
        ("/var/cache/weighbridge/bundles/hello-f98212e124bd8fdb/disk/disk.ext4", True),
        (f"/var/cache/weighbridge/bundles/full-disk-1234/{bootdisk.DISK}", True),
        ("/var/lib/weighbridge/54ab44/8/overlay", False),
        ("/var/lib/weighbridge/54ab44/8/empty", False),
    ],
)
def test_virt_aa_helper_may_read_the_disks_of_an_instance(path: str, readable: bool) -> None:
    assert any(re.fullmatch(expression(pattern), path) for pattern in READABLE) == readable


@pytest.mark.skipif(not HELPER.exists(), reason="virt-aa-helper is not installed")
@pytest.mark.parametrize("name", profile.names("libvirt"))
def test_virt_aa_helper_lets_a_machine_have_all_its_files(name: str, tmp_path: Path) -> None:
    """Run the helper itself, which prints the profile's rules without loading them (--dryrun)."""
    ours = profile.of_name("libvirt", name)
    for file in ("disk.ext4", "kernel", "initramfs"):
        (tmp_path / file).write_bytes(bytes(2**20))
    overlay = tmp_path / OVERLAY
    create = [find("qemu-img", "qemu-utils"), "create", "-q", "-f", "qcow2", "-F", "raw"]
    subprocess.run([*create, "-b", tmp_path / "disk.ext4", overlay], check=True)
    vm = replace(
        MACHINE,
        kernel=tmp_path / "kernel",
        initramfs=tmp_path / "initramfs",
        disk=overlay,
        doorbell=f"{tmp_path}/bell",
        console=f"{tmp_path}/serial",
        agent=f"{tmp_path}/agent",
        firmware=firmware.copy_rom(ours),
    )
    done = subprocess.run(
        [HELPER, "--create", "--dryrun", "--uuid", f"libvirt-{vm.uuid}"],
        input=machine.domain(ours, vm),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    rules = dict(re.findall(r'^  "(.+)" (\w+),$', done.stderr, re.MULTILINE))
    assert rules[str(overlay)] == "rwk"
    assert rules[str(tmp_path / "disk.ext4")] == "rk"
    assert rules[vm.doorbell] == rules[vm.console] == "rw"
    if ours.boot == "kernel":
        assert rules[str(vm.kernel)] == rules[str(vm.initramfs)] == "r"
    if vm.firmware is not None:
        assert rules[str(vm.firmware)] == "rk"


def test_rom_below_usr_share_is_copied_for_all_to_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEIGHBRIDGE_CACHE", str(tmp_path / "cache"))
    rom = tmp_path / "qboot.rom"
    rom.write_bytes(b"firmware")
    direct = profile.of_name("libvirt", "direct")
    direct = profile.Profile(about="", domain=direct.domain.replace("/usr/share/qemu/qboot.rom", str(rom)))
    copy = firmware.copy_rom(direct)
    assert copy is not None and copy.is_relative_to(tmp_path / "cache")
    assert (copy.read_bytes(), copy.stat().st_mode & 0o777) == (b"firmware", 0o644)
    domain = ET.fromstring(machine.domain(direct, replace(MACHINE, firmware=copy)))
    assert domain.findtext("os/loader") == str(copy)
    assert firmware.copy_rom(profile.of_name("libvirt", "pc")) is None


def test_domain_has_our_uuid_instead_of_its_profiles() -> None:
    """libvirt refuses a domain whose SMBIOS data names another UUID than its own."""
    theirs = "11111111-2222-3333-4444-555555555555"
    smbios = f"<sysinfo type='smbios'><system><entry name='uuid'>{theirs}</entry></system></sysinfo>"
    pc = profile.of_name("libvirt", "pc")
    text = pc.domain.replace("<vcpu>", f"<uuid>{theirs}</uuid>{smbios}<vcpu>")
    domain = ET.fromstring(machine.domain(profile.Profile(about="", domain=text), MACHINE))
    assert [each.text for each in domain.findall("uuid")] == [MACHINE.uuid]
    assert domain.findtext("sysinfo/system/entry") == MACHINE.uuid


def test_uuid_is_the_same_for_a_reaper_and_another_for_each_name() -> None:
    assert libvirt_apparmor.compute_uuid("weighbridge-1-2") == "d3f40598-17c9-5171-bd14-3016add09928"
    assert UUID(libvirt_apparmor.compute_uuid("weighbridge-1-3")) != UUID(
        libvirt_apparmor.compute_uuid("weighbridge-1-2")
    )


def test_reserved_uuids_are_few_and_never_the_same_at_once() -> None:
    with libvirt_apparmor.reserve_uuid() as first:
        with libvirt_apparmor.reserve_uuid() as second:
            assert first != second
        with libvirt_apparmor.reserve_uuid() as again:
            assert again == second
    with libvirt_apparmor.reserve_uuid() as again:
        assert again == first


QEMU = """
import socket, sys, time
connection = socket.socket(socket.AF_UNIX)
connection.connect(sys.argv[1])
print("connected", flush=True)
sys.stdin.read()
"""


class System(LibvirtEngine):
    """Stand-in for the system's libvirtd: a process for each domain, which connects the doorbell and does no more."""

    processes: ClassVar[dict[str, subprocess.Popen[str]]] = {}
    descriptions: ClassVar[dict[str, str]] = {}

    def create(self, description: str) -> Any:
        domain = ET.fromstring(description)
        bell = next(path for source in domain.iter("source") if (path := source.get("path", "")).endswith("/bell"))
        argv = [sys.executable, "-c", QEMU, bell]
        popen = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert popen.stdout is not None and popen.stdout.readline() == "connected\n"
        name = domain.findtext("name", "")
        self.processes[name], self.descriptions[name] = popen, description
        return SimpleNamespace(ID=lambda: 1)

    def save(self, name: str, memory: Path) -> str:
        memory.touch()
        return self.descriptions[name]

    def restore(self, memory: Path, description: str, name: str) -> Any:
        return self.create(description)

    @classmethod
    def destroy(cls, uri: str, name: str) -> None:
        if popen := cls.processes.pop(name, None):
            popen.communicate()


def test_uuid_of_a_saved_machine_stays_reserved_as_long_as_its_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An ordinary user's machines at qemu:///system share a few UUIDs, and a saved machine has its own in its XML."""
    monkeypatch.setattr("os.geteuid", lambda: 4_000_000)
    monkeypatch.setattr("harness.engines.libvirt.destroy_domain", System.destroy)
    monkeypatch.setattr("harness.engines.libvirt.resume", lambda domain: None)
    monkeypatch.setattr(Doorbell, "wait_ready", lambda self, timeout: None)
    monkeypatch.setattr(Doorbell, "wait_facts", lambda self, timeout: None)
    monkeypatch.setattr(LibvirtEngine, "reconnect", lambda self: None)
    (tmp_path / "empty.qcow2").touch()
    limits = Limits(1, 256 * 2**20)
    bundle: Any = None
    image = DiskImage(bundle, limits, (), Path("/k"), Path("/i"), Path("/d"), tmp_path / "empty.qcow2")
    with Ledger() as ledger:
        target = Libvirt(Options("libvirt/snapshot", {"snapshot": ""}), ledger, Plan())
        target.engine, target.firmware = System("qemu:///system", "user", None), None
        with target._saved(image) as saved:
            assert saved.saved is not None
            uuid = ET.fromstring(saved.saved.description).findtext("uuid")
            with libvirt_apparmor.reserve_uuid() as another:
                assert another != uuid
            (tmp_path / "launch").mkdir()
            with Doorbell(tmp_path / "launch") as bell, target.launch(saved, bell, bell.mark) as instance:
                assert isinstance(instance, LibvirtMachine)
                restored = ET.fromstring(System.descriptions[instance.name])
                assert (restored.findtext("uuid"), restored.findtext("name")) == (uuid, instance.name)
    with libvirt_apparmor.reserve_uuid() as another:
        assert another == uuid


def test_profile_of_an_ended_domain_is_removed_and_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libvirt_apparmor, "PROFILES", tmp_path)
    monkeypatch.setattr("os.geteuid", lambda: 0)
    ours, theirs = (libvirt_apparmor.compute_uuid(name) for name in ("ours", "theirs"))
    for uuid in (ours, theirs):
        for suffix in ("", ".files"):
            (tmp_path / f"libvirt-{uuid}{suffix}").touch()
    libvirt_apparmor.remove_profile(ours)
    libvirt_apparmor.remove_profile(ours)
    assert {path.name for path in tmp_path.iterdir()} == {f"libvirt-{theirs}", f"libvirt-{theirs}.files"}
