"""KVM is believed only where a guest rang under it: each way in which a device that opens may still not work."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from harness import backends, bundle, pace, remedies, workloads
from harness.bundle import Bundle
from harness.command import find
from harness.errors import Unavailable
from harness.ledger import Ledger
from harness.model import Plan, TargetRecord
from harness.vm import guest, kvm
from harness.vm.kvm import Verdict
from tests.ground import lasting

if TYPE_CHECKING:
    from tests.conftest import EngineOrSkip

STUB = """\
#!/bin/sh
case "$*" in
*--version*) echo "QEMU emulator version 0.0.1"; exit ;;
esac
echo start >> {starts}
{does}
"""
MSR = "qemu-system-x86_64: error: failed to set MSR 0x10a to 0x69"
ASSERTION = "qemu-system-x86_64: ../../target/i386/kvm/kvm.c:3183: kvm_buf_set_msrs: Assertion `ret' failed."
INTERNAL = "KVM internal error. Suberror: 1\\nemulation failure"


def test_no_device(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(kvm, "DEVICE", tmp_path / "kvm")
    found = kvm.refusal()
    assert found is not None and not found.works
    assert found.reason == f"there is no {tmp_path}/kvm" and found.hint == remedies.load_kvm()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody who may not")
def test_no_permission(monkeypatch: pytest.MonkeyPatch) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        device = Path(folder, "kvm")
        device.touch(0o600)
        monkeypatch.setattr(kvm, "DEVICE", device)
        monkeypatch.setattr(remedies, "UDEV", Path(folder, "no-udev"))
        assert kvm.refusal() is None
        os.seteuid(65534)
        try:
            found = kvm.refusal()
        finally:
            os.seteuid(0)
    assert found is not None and not found.works
    assert found.reason.startswith("not permitted") and f"sudo chmod 666 {device}" in found.hint


@pytest.mark.parametrize(
    ("log", "line"),
    [
        (f"2026-11-25T03:40:13.751808Z {MSR}\n{ASSERTION}\n", "failed to set MSR 0x10a to 0x69"),
        ("KVM internal error. Suberror: 1\nemulation failure\nEAX=0", "KVM internal error. Suberror: 1"),
        ("", "it said nothing"),
        ("error: " + "x" * 500, "x" * 119 + "…"),
    ],
)
def test_what_qemu_said_is_one_short_line(log: str, line: str) -> None:
    assert kvm.said(log) == line


@dataclass(frozen=True)
class Asked:
    """Puts a stub in the place of QEMU, and asks whether KVM works with it."""

    ledger: Ledger
    hello: Bundle
    folder: Path

    @property
    def starts(self) -> int:
        return (self.folder / "starts").read_text().count("start")

    def verdict(self, does: str) -> Verdict:
        stub = self.folder / "qemu-system-x86_64"
        stub.write_text(STUB.format(starts=self.folder / "starts", does=does))
        stub.chmod(0o755)
        return kvm.verdict(self.ledger, str(stub), guest.kernel(), self.hello)

    def kept(self, verdict: Verdict) -> Path:
        """Return the file whose removal the hint of a verdict asks for."""
        found = re.search(r"`rm ([^`]+)`", verdict.hint)
        assert found, verdict.hint
        return Path(found[1])


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine_or_skip: EngineOrSkip) -> Iterator[Asked]:
    for name, value in lasting().environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(kvm, "DEVICE", Path("/dev/null"))
    monkeypatch.setattr(kvm, "LEAST_DEADLINE", 1.0)
    monkeypatch.setattr(kvm, "DEADLINE_FACTOR", 1.0)
    monkeypatch.setattr(kvm, "_temporary", {})
    with engine_or_skip("qemu"), Ledger() as ledger:
        find("qemu-system-x86_64", "qemu-system-x86")
        yield Asked(ledger, bundle.build(workloads.load("hello")), tmp_path)


@pytest.mark.engine
def test_a_qemu_that_dies_as_it_sets_a_register(asked: Asked) -> None:
    found = asked.verdict(f"printf '%s\\n' '{MSR}' \"{ASSERTION.replace('`', chr(39))}\" >&2; exit 134")
    assert (found.works, found.reason) == (False, "QEMU ended under KVM: failed to set MSR 0x10a to 0x69")
    assert asked.kept(found).exists()


@pytest.mark.engine
def test_a_guest_that_spins(asked: Asked) -> None:
    found = asked.verdict("while :; do :; done")
    assert not found.works and found.reason == "the guest was too slow under KVM: no READY within 1 s"
    assert "run the command again" in found.hint and "rm /" not in found.hint


@pytest.mark.engine
@pytest.mark.parametrize(
    "does",
    [
        "exec sleep 60",  # too slow
        "echo 'qemu-system-x86_64: cannot set up guest memory: Cannot allocate memory' >&2; exit 1",
        "echo 'qemu-system-x86_64: failed to initialize kvm: Device or resource busy' >&2; exit 1",
        "kill -KILL $$",  # as the OOM killer does
    ],
)
def test_verdict_of_a_temporary_failure_is_kept_for_this_process_only(
    does: str, asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = asked.verdict(does), asked.verdict(does)
    assert first == second and not first.works and asked.starts == 1
    monkeypatch.setattr(kvm, "_temporary", {})  # as in the next process
    assert asked.verdict(f"printf '%s\n' '{MSR}' >&2; exit 134").reason.startswith(
        "QEMU ended under KVM: failed to set"
    )
    assert asked.starts == 2


@pytest.mark.engine
def test_deadline_of_a_machine_that_became_slower_is_measured_again(
    asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first deadline comes from a quiet moment; the guest then dies at a time that only a longer one allows."""
    monkeypatch.setattr(kvm, "LEAST_DEADLINE", 0.01)
    released = asked.folder / "released"

    def measure() -> float:
        released.touch()
        monkeypatch.setattr(pace, "_slowest", 60.0)
        return 60.0

    monkeypatch.setattr(pace, "_slowest", 0.01)
    monkeypatch.setattr(pace, "measure", measure)
    found = asked.verdict(f"until [ -e {released} ]; do sleep 0.1; done; echo '{MSR}' >&2; exit 134")
    assert found.reason == "QEMU ended under KVM: failed to set MSR 0x10a to 0x69"


@pytest.mark.engine
def test_a_guest_that_stops(asked: Asked) -> None:
    found = asked.verdict(f"printf '{INTERNAL}\\n' >&2; exec sleep 60")
    assert (found.works, found.reason) == (False, "the guest stopped under KVM: KVM internal error. Suberror: 1")


@pytest.mark.engine
def test_a_boot_decides_until_the_next_boot_of_the_machine(asked: Asked) -> None:
    first, second = asked.verdict("exit 3"), asked.verdict("exit 3")
    assert first == second and asked.starts == 1
    asked.kept(first).unlink()
    assert asked.verdict("exit 3") == first and asked.starts == 2


def probe(target: str) -> TargetRecord:
    with Ledger() as ledger:
        backend = backends.create(target, ledger, Plan())
        try:
            return backend.probe()
        finally:
            backend.close()


@pytest.mark.engine
@pytest.mark.parametrize("engine", ["libvirt", "qemu"])
def test_the_kvm_of_this_machine_as_it_is(
    engine: str, engine_or_skip: EngineOrSkip, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Either a guest boots, or the target is not here for a reason and software emulation says so."""
    for name, value in lasting().environment.items():
        monkeypatch.setenv(name, value)
    with engine_or_skip(engine):
        record = probe(f"{engine}/pc")
    assert probe(f"{engine}/pc").profile == record.profile, "what differs from campaign to campaign decides nothing"
    told = record.profile["domain" if engine == "libvirt" else "argv"]
    assert isinstance(told, str)
    if record.accelerator == "kvm":
        assert record.accelerator_reason == "a guest booted to its doorbell under KVM"
        assert "host-passthrough" in told or "-cpu host" in told
        return
    assert record.accelerator == "tcg" and record.accelerator_reason
    assert "\n" not in record.accelerator_reason
    assert "host-passthrough" not in told and "-cpu host" not in told and "kvm" not in told
    with pytest.raises(Unavailable, match="KVM does not work here: ") as refused:
        probe(f"{engine}/pc,accel=kvm")
    assert "accel=kvm" in refused.value.hint
