"""libvirt: the machine as it is described, and what becomes of one that cannot run."""

from __future__ import annotations

import struct
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from harness import backends, bundle, guest, machine, workloads
from harness.backends import Backend, libvirt
from harness.doorbell import Doorbell
from harness.engines.libvirt import LibvirtEngine
from harness.errors import StartTimeout, Unavailable
from harness.ledger import Ledger
from harness.machine import Machine
from harness.measure import Cell, measure
from harness.model import Limits, Plan, Run, TargetRecord
from tests.ground import WORKLOADS, Ground, lasting

if TYPE_CHECKING:
    from tests.conftest import EngineOrSkip

VM = "libvirt/pc,accel=tcg"
LONG = 60.0


def describe(**differing: object) -> ET.Element:
    told = {
        "name": "weighbridge-1-2",
        "accelerator": "tcg",
        "machine": "pc",
        "architecture": "x86_64",
        "vcpus": 2,
        "memory": 256 * 2**20,
        "kernel": Path("/k"),
        "initramfs": Path("/i"),
        "base": Path("/base"),
        "overlay": Path("/overlay"),
        "doorbell": Path("/bell"),
        "console": Path("/console"),
    }
    return ET.fromstring(machine.describe(Machine(**{**told, **differing})))  # type: ignore[arg-type]


def text(domain: ET.Element, path: str) -> str | None:
    return domain.findtext(path)


def test_the_machine_is_what_was_asked_for() -> None:
    domain = describe()
    assert domain.get("type") == "qemu"
    assert text(domain, "name") == "weighbridge-1-2"
    memory = domain.find("memory")
    assert memory is not None
    assert (memory.get("unit"), memory.text) == ("b", str(256 * 2**20))
    assert text(domain, "vcpu") == "2"
    kind = domain.find("os/type")
    assert kind is not None
    assert (kind.text, kind.get("machine"), kind.get("arch")) == ("hvm", "pc", "x86_64")
    assert (text(domain, "os/kernel"), text(domain, "os/initrd")) == ("/k", "/i")


def test_the_guest_is_told_where_to_ring_and_to_end_when_it_panics() -> None:
    domain = describe()
    words = (text(domain, "os/cmdline") or "").split()
    assert {"quiet", "panic=-1", "console=ttyS0", f"WEIGHBRIDGE_DOORBELL={machine.PORT}"} <= set(words)
    assert [text(domain, event) for event in ("on_poweroff", "on_reboot", "on_crash")] == ["destroy"] * 3


def test_its_memory_can_be_told_from_qemus() -> None:
    source = describe().find("memoryBacking/source")
    assert source is not None
    assert source.get("type") == "memfd"


def test_its_disk_is_a_layer_on_the_bundles() -> None:
    disks = describe().findall("devices/disk")
    assert len(disks) == 1
    disk = disks[0]
    source, backing = disk.find("source"), disk.find("backingStore")
    assert source is not None
    assert backing is not None
    base, kind, driver = backing.find("source"), backing.find("format"), disk.find("driver")
    assert base is not None
    assert kind is not None
    assert driver is not None
    assert (source.get("file"), driver.get("type")) == ("/overlay", "qcow2")
    assert (base.get("file"), kind.get("type")) == ("/base", "raw")
    assert backing.find("backingStore") is not None  # no looking for one below


def test_it_has_no_device_that_nobody_asked_for() -> None:
    devices = describe().find("devices")
    assert devices is not None
    kinds = sorted((device.tag, device.get("type"), device.get("model")) for device in devices if device.tag != "disk")
    assert kinds == [
        ("channel", "unix", None),
        ("controller", "usb", "none"),
        ("controller", "virtio-serial", None),
        ("memballoon", None, "none"),
        ("serial", "file", None),
    ]


def test_kvm_has_the_hosts_cpu_and_software_emulation_qemus() -> None:
    kvm = describe(accelerator="kvm")
    cpu = kvm.find("cpu")
    assert cpu is not None
    assert (kvm.get("type"), cpu.get("mode")) == ("kvm", "host-passthrough")
    assert describe().find("cpu") is None


def test_its_files_stay_ours_under_a_daemon() -> None:
    label = describe(owner=(64055, 994)).find("seclabel")
    assert label is not None
    assert (label.get("model"), label.get("relabel"), label.findtext("label")) == ("dac", "no", "+64055:+994")
    assert describe().find("seclabel") is None


def test_its_control_group_is_the_campaigns() -> None:
    assert text(describe(partition="/weighbridge-1"), "resource/partition") == "/weighbridge-1"
    assert describe().find("resource") is None


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
    names = [name for name, _ in run.marks if name not in ("created", "start-returned", "settled", "unsettled")]
    assert names == ["requested", "init", "loaded", "ready", "stopping", "gone"]


def probe(target: str) -> TargetRecord:
    with Ledger() as ledger:
        backend = backends.create(target, ledger, Plan())
        try:
            return backend.probe()
        finally:
            backend.close()


@pytest.mark.engine
def test_kvm_is_never_claimed_without_a_guest_that_ran_under_it(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Either a guest boots, or the target is not here for a reason: a device that opens proves nothing."""
    monkeypatch.setattr(libvirt, "KVM_DEADLINE", 5.0)
    try:
        record = probe("libvirt/pc,accel=kvm")
    except Unavailable as absent:
        assert "KVM does not work here: " in absent.reason
        assert "accel=kvm" in absent.hint
    else:
        assert (record.accelerator, record.accelerator_reason) == ("kvm", "a guest booted to its doorbell under KVM")
        assert 'type="kvm"' in record.profile["domain"]


@pytest.mark.engine
def test_where_kvm_does_not_boot_software_emulation_says_so(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """The boot of the probe fails here, whatever this machine can do."""

    def never(bell: Doorbell, timeout: float) -> None:
        raise StartTimeout(f"no READY within {timeout:g} s")

    monkeypatch.setattr(LibvirtEngine, "kvm_refusal", lambda *_: None)
    monkeypatch.setattr(Doorbell, "wait_ready", never)
    record = probe("libvirt/pc")
    assert record.accelerator == "tcg"
    assert "did not boot under KVM" in (record.accelerator_reason or "")
    assert record.profile["cpu"] == "QEMU's default"
    assert 'type="qemu"' in record.profile["domain"]
