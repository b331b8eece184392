"""Whether KVM can run a guest here: found out by booting one to its doorbell, and by nothing less.

A /dev/kvm that opens, and a libvirt that offers KVM, prove nothing: where the machine is itself a guest, QEMU may die
as it sets a register, the guest may spin for minutes, or stop at an instruction that cannot be emulated.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

from harness import places, signals
from harness.bundle import Bundle
from harness.command import version_of
from harness.doorbell import Doorbell
from harness.errors import ExitedBeforeReady, RunError, StartTimeout
from harness.ledger import Ledger
from harness.process import tail
from harness.vm import guest, qemu
from harness.vm.guest import GuestKernel

DEVICE = Path("/dev/kvm")
MEMORY = 256 * 2**20
LEAST_DEADLINE = 5.0
"""Seconds. KVM that works boots this guest in one or two on an ordinary machine."""
STARTS = 40
"""So many times what QEMU takes to start at all is a guest waited for: a slow machine is given longer."""
STOPPED = "KVM internal error"


@dataclass(frozen=True)
class Verdict:
    """reason: one line. hint: what would change it."""

    works: bool
    reason: str
    hint: str = ""


def verdict(ledger: Ledger, emulator: str, kernel: GuestKernel, hello: Bundle) -> Verdict:
    """Whether this guest kernel boots under this QEMU with KVM, where there is no `refusal`.

    A boot decides for as long as the machine is up.
    """
    version = version_of(emulator)
    boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    told = [boot_id, kernel.sha256, emulator, version, str(os.geteuid()), hello.sha256]
    key = hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16]

    def boot(draft: Path) -> None:
        draft.write_text(json.dumps(asdict(_boot(ledger, emulator, kernel, hello, target))) + "\n")

    target = places.cache() / "kvm" / f"{key}.json"
    return Verdict(**json.loads(places.made_once(target, boot).read_text()))


def refusal() -> Verdict | None:
    """What needs no guest to be found out."""
    if not DEVICE.exists():
        hint = "load kvm_intel or kvm_amd; in a virtual machine, have its host offer nested virtualization"
        return Verdict(False, f"there is no {DEVICE}", hint)
    if not os.access(DEVICE, os.R_OK | os.W_OK, effective_ids=True):
        return Verdict(False, f"not permitted to open {DEVICE}", "add yourself to the group kvm, and log in anew")
    return None


def _boot(ledger: Ledger, emulator: str, kernel: GuestKernel, hello: Bundle, kept: Path) -> Verdict:
    initramfs = guest.initramfs(hello.root / "bin/busybox", kernel, guest.drivers("pci"))
    again = f"another kernel or QEMU, or where this machine is a guest, a host whose KVM nests; to try again, rm {kept}"
    with ledger.holding_folder() as folder, Doorbell(folder) as bell, ExitStack() as stack:
        inherited = qemu.Inherited(stack)
        ours, theirs = inherited.pair()
        bell.attach(ours.fileno())
        log = folder / "qemu.log"
        deadline = max(LEAST_DEADLINE, STARTS * _start(emulator, bell))
        arguments = [
            *("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-m", f"{MEMORY}B"),
            *("-machine", "pc,accel=kvm", "-cpu", "host", "-kernel", str(kernel.image), "-initrd", str(initramfs)),
            *("-append", "quiet panic=-1", "-snapshot"),
            *("-drive", f"file={hello.disk()},format=raw,if=virtio", "-device", "virtio-serial"),
            *("-chardev", f"socket,id=bell,fd={theirs}", "-device", "virtserialport,chardev=bell,nr=1"),
        ]
        try:
            with qemu.started(ledger, ledger.name(), qemu.words(emulator, arguments), inherited, log) as child:
                bell.watch(child.pidfd)
                bell.wait_ready(deadline)
        except ExitedBeforeReady:
            return Verdict(False, f"QEMU ended under KVM: {said(tail(log))}", again)
        except StartTimeout:
            if STOPPED in tail(log):
                return Verdict(False, f"the guest stopped under KVM: {said(tail(log))}", again)
            return Verdict(False, f"no guest was ready under KVM within {deadline:.1f} s", again)
        except RunError as error:
            signals.check()
            return Verdict(False, f"QEMU could not be started under KVM: {error}", again)
    return Verdict(True, "a guest booted to its doorbell under KVM")


def _start(emulator: str, bell: Doorbell) -> float:
    """Seconds that QEMU takes to start at all, and to end."""
    began = bell.now()
    version_of(emulator)
    return bell.now() - began


def said(log: str) -> str:
    """What QEMU printed, in one short line: the first that tells of an error, without time and program."""
    lines = [re.sub(r"^(\S+Z )?(\S*qemu\S*: )?", "", line.strip()) for line in log.splitlines() if line.strip()]
    telling = [line for line in lines if re.search(r"error|fail|MSR", line, re.IGNORECASE)]
    first = (telling or lines or ["it said nothing"])[0].removeprefix("error: ")
    return first if len(first) <= 120 else f"{first[:119]}…"
