"""libvirt: the machine as it is described, and what becomes of one that cannot run."""

from __future__ import annotations

import os
import struct
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from harness import backends, bundle, workloads
from harness.backends import Backend
from harness.engines.libvirt import LibvirtEngine
from harness.errors import Unavailable
from harness.ledger import Ledger
from harness.measure import Cell, measure
from harness.model import Limits, Plan, Run
from harness.vm import guest, machine, profile
from harness.vm.machine import Machine
from tests.ground import LONG, REPOSITORY, WORKLOADS, Ground, lasting

if TYPE_CHECKING:
    from tests.conftest import EngineOrSkip

DOCS = REPOSITORY / "docs/vm"
VM = "libvirt/pc,accel=tcg"


def describe(name: str = "pc", **differing: object) -> ET.Element:
    told = {
        "name": "weighbridge-1-2",
        "accelerator": "tcg",
        "vcpus": 2,
        "memory": 256 * 2**20,
        "kernel": Path("/k"),
        "initramfs": Path("/i"),
        "disk": Path("/overlay"),
        "doorbell": "/bell",
        "console": "/console",
    }
    vm = Machine(**{**told, **differing})  # type: ignore[arg-type]
    return ET.fromstring(machine.domain(profile.of_name("libvirt", name), vm))


def attributes(domain: ET.Element, path: str) -> dict[str, str]:
    found = domain.find(path)
    assert found is not None, path
    return found.attrib


@pytest.mark.parametrize("name", profile.names("libvirt"))
def test_the_machine_is_what_was_asked_for(name: str) -> None:
    domain = describe(name)
    assert domain.get("type") == "qemu"
    assert domain.findtext("name") == "weighbridge-1-2"
    assert (domain.findtext("memory"), attributes(domain, "memory")["unit"]) == (str(256 * 2**20), "b")
    assert domain.findtext("vcpu") == "2"
    if name != "firmware":
        assert (domain.findtext("os/kernel"), domain.findtext("os/initrd")) == ("/k", "/i")
        assert {"panic=-1", "console=ttyS0"} <= set((domain.findtext("os/cmdline") or "").split())
    assert [domain.findtext(event) for event in ("on_reboot", "on_crash")] == ["destroy"] * 2
    assert attributes(domain, "memoryBacking/source") == {"type": "memfd"}, "its memory cannot be told from QEMU's"
    assert attributes(domain, "devices/disk/source") == {"file": "/overlay"}
    assert attributes(domain, "devices/disk/driver")["type"] == "qcow2"
    assert attributes(domain, "devices/channel/source")["path"] == "/bell"
    assert attributes(domain, "devices/serial/source")["path"] == "/console"
    assert domain.find("devices/interface") is None


def elements(domain: ET.Element) -> list[tuple[str, dict[str, str], str]]:
    """What is in a domain, whatever the order of what is equal."""
    found = [(each.tag, each.attrib, (each.text or "").strip()) for each in domain.iter()]
    return sorted(found, key=str)


@pytest.mark.parametrize("name", ["pc", "q35"])
def test_an_ordinary_machine_is_that_of_virt_install(name: str) -> None:
    """All that it printed is there, but its own name and paths, and a boot that is ours."""
    printed = elements(ET.fromstring((DOCS / f"virt-install-{name}.xml").read_text()))
    ours = elements(describe(name, accelerator="kvm"))
    replaced = {
        "domain", "name", "uuid", "metadata", "memory", "currentMemory", "vcpu", "boot", "emulator", "console",
        "source",
        "{http://libosinfo.org/xmlns/libvirt/domain/1.0}libosinfo", "{http://libosinfo.org/xmlns/libvirt/domain/1.0}os",
    }  # fmt: skip
    wanted = [each for each in printed if each[0] not in replaced]
    assert len(wanted) >= 20
    for each in wanted:
        assert each in ours, each
        ours.remove(each)
    added = {"domain", "name", "memory", "vcpu", "memoryBacking", "kernel", "initrd", "cmdline", "on_reboot"}
    added |= {"on_crash", "disk", "driver", "serial", "channel", "source", "target"}
    assert {tag for tag, _, _ in ours} == added


def test_as_little_as_can_be_has_no_device_that_nobody_asked_for() -> None:
    devices = describe("direct").find("devices")
    assert devices is not None
    kinds = sorted((device.tag, device.get("type"), device.get("model")) for device in devices if device.tag != "disk")
    assert kinds == [
        ("channel", "unix", None),
        ("controller", "usb", "none"),
        ("memballoon", None, "none"),
        ("serial", "unix", None),
    ]
    assert attributes(describe("direct"), "devices/disk/rom") == {"enabled": "no"}


def test_kvm_has_the_hosts_cpu_and_software_emulation_qemus() -> None:
    kvm = describe(accelerator="kvm")
    assert (kvm.get("type"), attributes(kvm, "cpu")["mode"]) == ("kvm", "host-passthrough")
    assert describe().find("cpu") is None


def test_its_files_stay_ours_under_a_daemon() -> None:
    label = describe(owner=(64055, 994)).find("seclabel")
    assert label is not None
    assert (label.get("model"), label.get("relabel"), label.findtext("label")) == ("dac", "no", "+64055:+994")
    assert describe().find("seclabel") is None


def test_disk_of_an_ordinary_user_is_writable_for_the_daemons_qemu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    disk = tmp_path / "overlay.qcow2"
    disk.touch(0o644)
    before = tmp_path.stat().st_mode
    LibvirtEngine("qemu:///session", "user", None).give(tmp_path, disk)
    assert disk.stat().st_mode & 0o777 == 0o644
    LibvirtEngine("qemu:///system", "user", (64055, 994)).give(tmp_path, disk)
    assert disk.stat().st_mode & 0o777 == 0o646
    assert tmp_path.stat().st_mode == before


def test_its_control_group_is_the_campaigns() -> None:
    assert describe(partition="/weighbridge-1").findtext("resource/partition") == "/weighbridge-1"
    assert describe().find("resource") is None


def test_an_emulator_that_is_asked_for_is_the_one(tmp_path: Path) -> None:
    assert describe(emulator="/opt/qemu").findtext("devices/emulator") == "/opt/qemu"


def bzimage(version: int, address: int, size: int) -> bytes:
    header = bytearray(0x300)
    header[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", header, 0x206, version)
    struct.pack_into("<QI", header, 0x258, address, size)
    return bytes(header)


@pytest.mark.parametrize(
    ("image", "least"),
    [
        (bzimage(0x20F, 16 * 2**20, 50 * 2**20), 66 * 2**20),
        (bzimage(0x209, 16 * 2**20, 50 * 2**20), 0),
        (b"\x7fELF" + bytes(1000), 0),
        (b"short", 0),
    ],
)
def test_the_memory_that_a_kernel_needs_to_begin_with(tmp_path: Path, image: bytes, least: int) -> None:
    (tmp_path / "kernel").write_bytes(image)
    assert machine.least_memory(tmp_path / "kernel") == least


# Real machines.


@pytest.fixture(scope="module")
def place() -> Iterator[Ground]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in lasting().environment.items():
            patch.setenv(name, value)
        yield lasting()


@dataclass(frozen=True)
class Engine:
    ledger: Ledger
    backend: Backend

    def weigh(self, workload: str, memory: int = Limits().memory) -> Run:
        with self.backend.prepare(bundle.build(workloads.load(workload)), Limits(1, memory)) as image:
            cell = Cell(VM, workload, self.backend, image)
            return measure(cell, self.ledger, LONG, 0, 1, "measured", lambda phase: None)


@pytest.fixture(scope="module")
def engine(place: Ground, engine_or_skip: EngineOrSkip) -> Iterator[Engine]:
    """libvirt's embedded driver, with software emulation."""
    with Ledger() as ledger:
        backend = backends.create(VM, ledger, Plan())
        try:
            with engine_or_skip("libvirt"):
                backend.probe()
            yield Engine(ledger, backend)
        finally:
            backend.close()


@pytest.mark.engine
def test_too_little_memory_for_the_kernel_is_told_beforehand(engine: Engine) -> None:
    """It would end without a word, long before it has a console."""
    with pytest.raises(Unavailable) as refused:
        engine.weigh("hello", 16 * 2**20)
    assert "the guest has 16" in refused.value.reason
    assert "--memory" in refused.value.hint


@pytest.mark.engine
def test_too_little_memory_for_the_system_is_a_failed_run(engine: Engine) -> None:
    run = engine.weigh("hello", machine.least_memory(guest.kernel().image) + 2**20)
    assert run.error is not None
    assert (run.error.phase, run.error.type) == ("waiting", "ExitedBeforeReady")
    assert "Kernel panic" in run.error.log


@pytest.mark.engine
def test_a_workload_that_ends_is_no_timeout(engine: Engine) -> None:
    """Its guest panics and restarts, whereby QEMU ends."""
    run = engine.weigh(str(WORKLOADS / "dies"))
    assert run.error is not None
    assert (run.error.phase, run.error.type) == ("waiting", "ExitedBeforeReady")
    assert "there is no database here" in run.error.log


@pytest.mark.engine
def test_rubbish_on_the_port_is_no_ready(engine: Engine) -> None:
    run = engine.weigh(str(WORKLOADS / "babbles"))
    assert run.error is None
    ours = ("created", "start-returned", "settled", "unsettled", "firmware", "kernel", "initramfs")
    names = [name for name, _ in run.marks if name not in ours]
    assert names == ["requested", "init", "loaded", "ready", "stopping", "gone"]


@pytest.mark.engine
def test_the_phases_of_a_boot_are_in_their_order(engine: Engine) -> None:
    run = engine.weigh("hello")
    assert run.error is None
    names = [name for name, _ in run.marks]
    phases = ["requested", "created", "start-returned", "firmware", "kernel", "initramfs", "init", "ready"]
    assert [name for name in names if name in phases] == phases
    times = dict(run.marks)
    assert times["kernel"] - times["firmware"] > 0.2 * (times["ready"] - times["created"]), "a kernel is most of it"


@pytest.mark.engine
@pytest.mark.skipif(os.geteuid() != 0, reason="only root's machines have control groups")
def test_memory_is_charged_to_a_machine_whose_name_libvirt_cuts(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine.ledger, "_names", 10**9)
    run = engine.weigh("hello")
    assert run.error is None
    charged = [sample for sample in run.samples if sample.metric == "memory.charged"]
    assert charged and all(sample.value is not None for sample in charged), charged


@pytest.mark.engine
def test_a_profile_of_the_users_own(place: Ground, tmp_path: Path, engine_or_skip: EngineOrSkip) -> None:
    """A domain as virsh has it, with what is not known before in braces."""
    mine = tmp_path / "mine.xml"
    mine.write_text(profile.of_name("libvirt", "direct").domain.replace('type="rom"', 'type="rom" secure="no"'))
    with Ledger() as ledger:
        backend = backends.create(f"libvirt/profile={mine},accel=tcg", ledger, Plan())
        try:
            with engine_or_skip("libvirt"):
                record = backend.probe()
            run = Engine(ledger, backend).weigh("hello")
        finally:
            backend.close()
    assert run.error is None
    assert record.profile["profile"] == str(mine)
