"""libvirt: a virtual machine with the bundle as its disk, by libvirt's embedded driver or a daemon of the user's.

Source: libvirt, drvqemu.html (the embedded driver); QEMU, qcow2 images with backing files.
"""

from __future__ import annotations

import os
import platform
import select
import shutil
import socket
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from math import ceil
from pathlib import Path

from harness import bundle as bundles
from harness import cgroup, guest, machine, signals, workloads
from harness.backends import Backend, Image, Instance, Options, Part, Unseen
from harness.bundle import Bundle
from harness.command import find, run, version_of
from harness.doorbell import Doorbell, Mark
from harness.engines import libvirt as engine
from harness.engines import peer_of
from harness.engines.libvirt import LibvirtEngine
from harness.errors import BadInput, EngineError, RunError, Unavailable
from harness.guest import GuestKernel
from harness.ledger import Ledger
from harness.machine import Accelerator, Machine
from harness.model import Applied, Group, Limits, Plan, TargetRecord
from harness.process import END_TIMEOUT, tail

MACHINES = ("pc",)
KVM_DEADLINE = 20.0
"""Seconds. KVM that works boots this guest in one or two; KVM that does not may spin for minutes."""


@dataclass(frozen=True)
class DiskImage(Image):
    """empty: a qcow2 overlay on `disk` to which nothing was written yet; every instance gets a copy of it."""

    kernel: GuestKernel
    initramfs: Path
    disk: Path
    empty: Path


class VirtualMachine(Instance):
    guest_ram = machine.GUEST_RAM

    def __init__(self, engine: LibvirtEngine, name: str, pid: int, folder: Path, limits: Limits) -> None:
        self.engine = engine
        self._name = name
        self.pid = pid
        self.folder = folder
        self._limits = limits

    def processes(self) -> Mapping[Group, list[int] | Unseen]:
        hidden = Unseen("inside the guest: its processes are not visible from the host")
        return {"workload": hidden, "guest": [self.pid], "vmm": [self.pid]}

    def cgroups(self) -> Mapping[str, Path]:
        """Those that are named after the domain: without a partition QEMU stays in the one of whoever started it."""
        found = {}
        for controller, folder in cgroup.of_process(self.pid).items():
            for above in (folder, *folder.parents):
                if self._name in above.name.replace("\\x2d", "-"):  # as systemd writes a dash
                    found[controller] = above
                    break
        return found

    def limits(self) -> Mapping[str, Applied]:
        vcpus = _vcpus(self._limits)
        whole = vcpus == self._limits.cpus
        reason = None if whole else f"a machine has whole vCPUs; this one has {vcpus}"
        return {
            "cpus": Applied(self._limits.cpus, f"{vcpus} vCPU" if whole else None, reason=reason),
            "memory": Applied(self._limits.memory, "guest RAM"),
        }

    def parts(self) -> tuple[Part, ...]:
        return (
            Part("overlay", (self.folder / "overlay",)),
            Part("metadata", self.engine.metadata(self._name)),
            Part("log", (self.folder / "console",)),
        )

    def log(self) -> str:
        return tail(self.folder / "console")


class Libvirt(Backend):
    name = "libvirt"

    @classmethod
    def check(cls, options: Options) -> None:
        options.only(*MACHINES, "accel=")
        if len(options.words()) != 1:
            raise BadInput(f"target {options.target}: name one machine type of {', '.join(MACHINES)}, as in libvirt/pc")
        if options.get("accel") not in (None, "kvm", "tcg"):
            raise BadInput(f"target {options.target}: accel is kvm or tcg")

    def __init__(self, options: Options, ledger: Ledger, plan: Plan) -> None:
        super().__init__(options, ledger, plan)
        if plan.libvirt_uri not in (None, *engine.URIS):
            raise BadInput(f"libvirt URI {plan.libvirt_uri!r}: this machine's are {' and '.join(engine.URIS)}")
        self._stack = ExitStack()
        self._accelerator: Accelerator = "tcg"
        if plan.emulator is not None and not os.access(plan.emulator, os.X_OK):
            raise BadInput(f"emulator: {plan.emulator} is no program")
        if plan.kernel is not None or plan.modules is not None:  # what is none is told before anything is started
            guest.kernel(plan.kernel, plan.modules)

    def probe(self) -> TargetRecord:
        self.engine: LibvirtEngine = self._stack.enter_context(engine.find(self.plan, self.ledger))
        self._kernel = guest.kernel(self.plan.kernel, self.plan.modules)
        self._accelerator, reason = self._choose_accelerator()
        profile = {
            "libvirt": self.engine.libvirt_version,
            "uri": self.engine.uri.partition("?")[0],
            "machine": self.options.words()[0],
            "cpu": "host-passthrough" if self._accelerator == "kvm" else "QEMU's default",
            "kernel": self._kernel.version,
            "kernel package": self._kernel.package,
            "kernel sha256": self._kernel.sha256,
            "command line": machine.COMMAND_LINE,
            "disk": "qcow2 overlay on a raw ext4 base, virtio-blk",
            "network": "none",
            "domain": machine.describe(
                self._machine("NAME", Path("INITRAMFS"), Path("DISK"), Path(), self.plan.limits)
            ),
        }
        return TargetRecord(
            self.options.target,
            "QEMU",
            self._version(),
            self.engine.whose,
            self._accelerator,
            reason,
            profile,
        )

    def _version(self) -> str:
        """Of the emulator: of libvirt's choice libvirt tells it, of another the program itself."""
        if self.plan.emulator is None:
            return self.engine.version
        told = version_of(self.plan.emulator)
        return told.removeprefix("QEMU emulator version ").partition(" ")[0]

    def close(self) -> None:
        self._stack.close()

    def daemons(self) -> list[int] | Unseen:
        return self.engine.daemons()

    @contextmanager
    def prepare(self, bundle: Bundle, limits: Limits) -> Iterator[DiskImage]:
        if limits.memory < (least := machine.least_memory(self._kernel.image)):
            told = f"its kernel needs {least / 2**20:g} MiB to begin with, the guest has {limits.memory / 2**20:g}"
            raise Unavailable(told, "give more by --memory, or name a smaller kernel by --kernel")
        disk, initramfs = bundle.disk(), guest.initramfs(bundle.root / "bin/busybox", self._kernel)
        parts = (
            Part("kernel", (self._kernel.image,)),
            Part("initramfs", (initramfs,)),
            Part("base disk", (disk,)),
        )
        with self.ledger.holding_folder() as folder:
            empty = folder / "empty"
            run([find("qemu-img", "qemu-utils"), "create", "-q", "-f", "qcow2", "-F", "raw", "-b", disk, empty])
            yield DiskImage(bundle, limits, parts, self._kernel, initramfs, disk, empty)

    @contextmanager
    def launch(self, image: DiskImage, doorbell: Doorbell, mark: Mark) -> Iterator[Instance]:
        name = self.ledger.name()
        with ExitStack() as stack:
            folder = stack.enter_context(self.ledger.holding_folder())
            shutil.copyfile(image.empty, folder / "overlay")
            (folder / "console").touch()
            self.engine.give(folder, folder / "overlay", folder / "console")
            stack.enter_context(self.ledger.holding(engine.destroy_domain, uri=self.engine.uri, name=name))
            vm = self._machine(name, image.initramfs, image.disk, folder, image.limits)
            domain = self.engine.create(machine.describe(vm))
            mark("created")
            bell = stack.enter_context(_connected(vm.doorbell))
            doorbell.attach(bell.fileno())
            pid = peer_of(bell)
            stack.enter_context(_gone_afterwards(pid))
            stack.callback(engine.destroy_domain, self.engine.uri, name)
            engine.resume(domain)
            yield VirtualMachine(self.engine, name, pid, folder, image.limits)

    def _machine(self, name: str, initramfs: Path, disk: Path, folder: Path, limits: Limits) -> Machine:
        return Machine(
            name=name,
            accelerator=self._accelerator,
            machine=self.options.words()[0],
            architecture=platform.machine(),
            vcpus=_vcpus(limits),
            memory=limits.memory,
            kernel=self._kernel.image,
            initramfs=initramfs,
            base=disk,
            overlay=folder / "overlay",
            doorbell=folder / "bell",
            console=folder / "console",
            emulator=self.plan.emulator,
            partition=self.engine.partition,
            owner=self.engine.label if self.engine.whose == "user" else None,
        )

    def _choose_accelerator(self) -> tuple[Accelerator, str | None]:
        """KVM only after it ran this very guest kernel to its doorbell; else software emulation, and the reason.

        A /dev/kvm that opens, and a libvirt that lists KVM, prove nothing: such a KVM may still not run a kernel.
        """
        asked = self.options.get("accel")
        if asked == "tcg":
            return "tcg", "asked for by the target"
        refusal = (
            self.engine.kvm_refusal(self.plan.emulator, platform.machine(), self.options.words()[0])
            or self._kvm_boot_failure()
        )
        if refusal is None:
            return "kvm", "a guest booted to its doorbell under KVM"
        if asked == "kvm":
            raise Unavailable(f"KVM does not work here: {refusal}", "leave out accel=kvm for software emulation")
        return "tcg", refusal

    def _kvm_boot_failure(self) -> str | None:
        self._accelerator = "kvm"
        hello = bundles.build(workloads.load("hello"))
        try:
            with (
                self.prepare(hello, self.plan.limits) as image,
                self.ledger.holding_folder() as folder,
                Doorbell(folder) as bell,
                self.launch(image, bell, bell.mark),
            ):
                bell.wait_ready(KVM_DEADLINE)
        except RunError as error:
            signals.check()
            return f"a guest did not boot under KVM: {error}"
        return None


def _vcpus(limits: Limits) -> int:
    return ceil(limits.cpus)


@contextmanager
def _connected(path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(path))
        yield connection


@contextmanager
def _gone_afterwards(pid: int) -> Iterator[None]:
    """Returns, at the end of the block in which its domain is destroyed, when QEMU is gone."""
    pidfd = os.pidfd_open(pid)
    try:
        yield
    finally:
        gone = select.select([pidfd], [], [], END_TIMEOUT)[0]
        os.close(pidfd)
    if not gone:
        raise EngineError(f"QEMU is still there {END_TIMEOUT:g} s after its domain was destroyed")
