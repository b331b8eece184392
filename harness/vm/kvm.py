"""Whether KVM can run a guest here: found out by booting one to its doorbell, and by nothing less.

A /dev/kvm that opens, and a libvirt that offers KVM, prove nothing: where the machine is itself a guest, QEMU may die
as it sets a register, the guest may spin for minutes, or stop at an instruction that cannot be emulated.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import signal
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

from harness import pace, places, remedies, signals
from harness.bundle import Bundle
from harness.command import version_of
from harness.doorbell import Doorbell
from harness.errors import ExitedBeforeReady, RunError, StartTimeout, Unavailable
from harness.ledger import Ledger
from harness.process import tail
from harness.vm import guest, qemu
from harness.vm.guest import GuestKernel

DEVICE = Path("/dev/kvm")
MEMORY = 256 * 2**20
LEAST_DEADLINE = 5.0
"""Seconds. KVM that works boots this guest in one or two on an ordinary machine."""
DEADLINE_FACTOR = 1000
"""Factor of pace.deadline, larger than other factors because VM exits are slow under nested virtualization."""
STOPPED = "KVM internal error"
TEMPORARY = re.compile("cannot allocate memory|busy|no space left|temporarily|too many open files", re.IGNORECASE)
"""Messages of QEMU about a temporary failure, which proves nothing about KVM."""
CACHED = "3"
"""The version of cached verdicts; raise it if older ones must not be used."""


@dataclass(frozen=True)
class Verdict:
    """reason: one line. hint: how to change it. definite: whether it holds until the machine boots again."""

    works: bool
    reason: str
    hint: str = ""
    definite: bool = True


class _Temporary(Exception):
    """Carry a verdict that is not definite past the cache."""

    def __init__(self, verdict: Verdict) -> None:
        super().__init__(verdict.reason)
        self.verdict = verdict


_temporary: dict[str, Verdict] = {}
"""Verdicts of this process that are not definite, so that a campaign probes only once for all of its machines."""


def verdict(ledger: Ledger, emulator: str, kernel: GuestKernel, hello: Bundle) -> Verdict:
    """Whether this guest kernel boots under this QEMU with KVM, where there is no `refusal`.

    A definite verdict is cached until the machine boots again. One of a guest that was too slow, or of a QEMU that
    lacked memory, is kept for this process only.
    """
    version = version_of(emulator)
    boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    told = [CACHED, boot_id, kernel.sha256, emulator, version, str(os.geteuid()), hello.sha256]
    key = hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16]

    def boot(draft: Path) -> None:
        found = _boot(ledger, emulator, kernel, hello, target)
        if not found.definite:
            raise _Temporary(found)
        draft.write_text(json.dumps(asdict(found)) + "\n")

    target = places.cache() / "kvm" / f"{key}.json"
    if key not in _temporary:
        try:
            return Verdict(**json.loads(places.made_once(target, boot, "booting a guest under KVM").read_text()))
        except _Temporary as temporary:
            _temporary[key] = temporary.verdict
    return _temporary[key]


def decide(asked: str | None, probe: Callable[[], Verdict]) -> Verdict:
    """Return whether a guest is to run under KVM. asked: the target's accel, kvm or tcg. probe: called only if needed.

    Raises Unavailable if the target requires KVM and it does not work.
    """
    if asked == "tcg":
        return Verdict(False, "asked for by the target")
    found = refusal() or probe()
    if asked == "kvm" and not found.works:
        hints = filter(None, (found.hint, "leave out accel=kvm for software emulation"))
        raise Unavailable(f"KVM does not work here: {found.reason}", ", or ".join(hints))
    return found


def refusal() -> Verdict | None:
    """Return why KVM cannot be used, as far as that is known without a guest; None if only a guest can show it."""
    if not DEVICE.exists():
        return Verdict(False, f"there is no {DEVICE}", remedies.load_kvm())
    try:
        os.close(os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        if error.errno == errno.EACCES:
            return Verdict(False, f"not permitted to open {DEVICE}", remedies.open_kvm(DEVICE))
        if error.errno == errno.EPERM:  # the file's mode permits it, but a container's device cgroup does not
            return Verdict(False, f"not permitted to open {DEVICE}: {error.strerror}", remedies.KVM_IN_CONTAINER)
        return Verdict(False, f"{DEVICE} cannot be opened: {error.strerror}", remedies.load_kvm())
    return None


def _boot(ledger: Ledger, emulator: str, kernel: GuestKernel, hello: Bundle, kept: Path) -> Verdict:
    initramfs = guest.initramfs(hello.root / "bin/busybox", kernel, guest.drivers("pci"))
    again = remedies.mend_kvm(kept)
    with ledger.holding_folder() as folder, Doorbell(folder) as bell, ExitStack() as stack:
        inherited = qemu.Inherited(stack)
        ours, theirs = inherited.pair()
        bell.attach(ours.fileno())
        log = folder / "qemu.log"
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
                _wait_ready(bell)
        except ExitedBeforeReady:
            printed = tail(log)
            definite = child.status() != -signal.SIGKILL and not TEMPORARY.search(printed)  # SIGKILL: the OOM killer
            return _refuse(f"QEMU ended under KVM: {said(printed)}", again, definite=definite)
        except StartTimeout as error:
            if STOPPED in tail(log):
                return _refuse(f"the guest stopped under KVM: {said(tail(log))}", again)
            return _refuse(f"the guest was too slow under KVM: {error}", "", definite=False)
        except RunError as error:
            signals.check()
            return _refuse(f"QEMU could not be started under KVM: {error}", again, definite=False)
    return Verdict(True, "a guest booted to its doorbell under KVM")


def _wait_ready(bell: Doorbell) -> None:
    """Wait for READY. Before StartTimeout is raised the machine is measured again: it may have become slower."""
    bell.mark("requested")
    try:
        bell.wait_ready(pace.deadline(LEAST_DEADLINE, DEADLINE_FACTOR))
    except StartTimeout:
        pace.measure()
        bell.wait_ready(pace.deadline(LEAST_DEADLINE, DEADLINE_FACTOR))


def _refuse(reason: str, hint: str, *, definite: bool = True) -> Verdict:
    later = "run the command again, preferably while the machine is idle: this verdict is not cached"
    return Verdict(False, reason, hint if definite else later, definite)


def said(log: str) -> str:
    """What QEMU printed, in one short line: the first that tells of an error, without time and program."""
    lines = [re.sub(r"^(\S+Z )?(\S*qemu\S*: )?", "", line.strip()) for line in log.splitlines() if line.strip()]
    telling = [line for line in lines if re.search(r"error|fail|MSR", line, re.IGNORECASE)]
    first = (telling or lines or ["it said nothing"])[0].removeprefix("error: ")
    return first if len(first) <= 120 else f"{first[:119]}…"
