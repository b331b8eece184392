"""What all engines of virtual machines share: a profile, a guest kernel, an accelerator, a disk an instance."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from math import ceil
from pathlib import Path

from harness import bundle as bundles
from harness import pace, workloads
from harness.backends import Backend, Image, Instance, Options, Part, Unseen
from harness.bundle import Bundle
from harness.command import find, run, version_of
from harness.doorbell import Doorbell, Mark
from harness.errors import BadInput, Unavailable
from harness.ledger import Ledger
from harness.model import Accelerated, Applied, Group, Limits, Plan
from harness.process import tail
from harness.steps import report_step
from harness.vm import acceleration, bootdisk, guest, kvm, machine, profile, vmlinux
from harness.vm.acceleration import Ask
from harness.vm.guest import GuestKernel
from harness.vm.kvm import Verdict
from harness.vm.machine import Accelerator, Machine
from harness.vm.profile import Profile

OVERLAY = "overlay.qcow2"
"""File name of an instance's disk. libvirt's virt-aa-helper reads a disk to find its backing file, and AppArmor lets it
read only paths such as /**.qcow{,2}, /**.img and /**/disk{,.*}. The base disks match too (disk.ext4 of a bundle, disk
of bootdisk.py). Source: src/security/apparmor/usr.lib.libvirt.virt-aa-helper.in."""
SAVE_TIMEOUT = 180.0
"""Floor in seconds of the deadline for a guest that is to be saved: three times that of a launch."""
EMULATED = 4
"""Deadlines of a guest under software emulation are this multiple of those under KVM."""


@dataclass(frozen=True)
class Saved:
    """A machine that was saved when it was ready: the file of its memory, and for libvirt its XML."""

    memory: Path
    description: str = ""


@dataclass(frozen=True)
class DiskImage(Image):
    """empty: a qcow2 overlay on `disk` that every instance gets a copy of: nothing was written to it, or what a
    machine had written when it was saved. name, uuid: those of the machine that is saved and restored, for libvirt."""

    kernel: Path
    initramfs: Path
    disk: Path
    empty: Path
    saved: Saved | None = None
    name: str = ""
    uuid: str | None = None


class VirtualMachine(Instance):
    """pid: of QEMU. folder: its disk and what its serial console said. accelerator: what is to run its guest."""

    guest_ram = machine.GUEST_RAM

    def __init__(self, pid: int, folder: Path, limits: Limits, accelerator: Accelerator) -> None:
        self.pid = pid
        self.folder = folder
        self._limits = limits
        self._accelerator = accelerator

    @abstractmethod
    def asking(self) -> AbstractContextManager[Ask]:
        """A QMP session, the only one of this machine."""

    def accelerated(self) -> Accelerated:
        with self.asking() as ask:
            return acceleration.of(ask, self._accelerator)

    def processes(self) -> Mapping[Group, list[int] | Unseen]:
        hidden = Unseen("inside the guest: its processes are not visible from the host")
        return {"workload": hidden, "guest": [self.pid], "vmm": [self.pid]}

    def limits(self) -> Mapping[str, Applied]:
        vcpus = whole(self._limits)
        reason = None if vcpus == self._limits.cpus else f"a machine has whole vCPUs; this one has {vcpus}"
        return {
            "cpus": Applied(self._limits.cpus, None if reason else f"{vcpus} vCPU", reason=reason),
            "memory": Applied(self._limits.memory, "guest RAM"),
        }

    def parts(self) -> tuple[Part, ...]:
        return (Part("overlay", (self.folder / OVERLAY,)), Part("log", (self.folder / "console",)))

    def log(self) -> str:
        return tail(self.folder / "console")


class VmBackend(Backend):
    """Subclasses start a machine, and save one."""

    @classmethod
    def check(cls, options: Options) -> None:
        ours = profile.names(cls.name)
        options.only(*ours, "accel=", "profile=")
        if len(options.words()) + (options.get("profile") is not None) != 1:
            raise BadInput(
                f"target {options.target}: name one profile of {', '.join(ours)}, as in {cls.name}/pc, or a "
                "file by profile="
            )
        if options.get("accel") not in (None, "kvm", "tcg"):
            raise BadInput(f"target {options.target}: accel is kvm or tcg")

    def __init__(self, options: Options, ledger: Ledger, plan: Plan) -> None:
        super().__init__(options, ledger, plan)
        self.accelerator: Accelerator = "tcg"
        named = options.get("profile")
        self.profile: Profile = (
            profile.of_file(self.name, Path(named)) if named else profile.of_name(self.name, options.words()[0])
        )
        if plan.emulator is not None and not os.access(plan.emulator, os.X_OK):
            raise BadInput(f"emulator: {plan.emulator} is no program")
        if plan.kernel is not None or plan.modules is not None:  # what is none is told before anything is started
            guest.check(guest.kernel(plan.kernel, plan.modules), self.drivers)

    @property
    def drivers(self) -> tuple[str, ...]:
        """What the guest needs to have, as modules or built in."""
        return (*guest.drivers(self.profile.transport), *self.profile.modules)

    @cached_property
    def emulator(self) -> str:
        return self.plan.emulator or find("qemu-system-x86_64", "qemu-system-x86")

    @cached_property
    def kernel(self) -> GuestKernel:
        return guest.kernel(self.plan.kernel, self.plan.modules)

    def ready_factor(self) -> float:
        return super().ready_factor() * (1 if self.accelerator == "kvm" else EMULATED)

    def requirements(self) -> Mapping[str, Callable[[], str]]:
        return {"guest kernel": lambda: f"{self.kernel.version} ({self.kernel.package or self.kernel.image})"}

    def version(self) -> str:
        """Of the emulator, by itself."""
        return version_of(self.emulator).removeprefix("QEMU emulator version ").partition(" ")[0]

    def describe(self) -> dict[str, object]:
        """What a record says of the configuration, whichever engine starts it."""
        told: dict[str, object] = {
            "profile": self.options.get("profile") or self.options.words()[0],
            "about": self.profile.about,
            "boot": {"kernel": "the VMM loads the kernel", "disk": "SeaBIOS and GRUB from the disk"}[self.profile.boot],
            "kernel": self.kernel.version,
            "kernel package": self.kernel.package,
            "kernel sha256": self.kernel.sha256,
            "kernel image": {"bzImage": "as it was packaged", "vmlinux": "unpacked"}[self.profile.kernel],
            "command line": machine.command_line(self.profile, self.accelerator, "TSC"),
            "disk": "qcow2 overlay on a raw ext4 base, virtio-blk",
            "network": "none",
        }
        if self.profile.restore:
            told["boot"] = "restored from the memory saved when it was ready"
        return told

    def choose_accelerator(self, ask: Callable[[], Verdict | None] = lambda: None) -> tuple[Accelerator, str]:
        """KVM only after it ran this very guest kernel to its doorbell; else software emulation, and the reason.

        ask: returns why the engine does not use KVM, called where /dev/kvm opens.
        """
        found = kvm.decide(self.options.get("accel"), lambda: ask() or self._kvm())
        self.remedy = found.hint
        return "kvm" if found.works else "tcg", found.reason

    def _kvm(self) -> Verdict:
        return kvm.verdict(self.ledger, self.emulator, self.kernel, bundles.build(workloads.load("hello")))

    def machine_in_general(self) -> Machine:
        """Without what differs from one campaign, or one launch, to the next: what a record describes."""
        return Machine(
            name="NAME",
            accelerator=self.accelerator,
            vcpus=whole(self.plan.limits),
            memory=self.plan.limits.memory,
            kernel=Path("KERNEL"),
            initramfs=Path("INITRAMFS"),
            disk=Path("DISK"),
            doorbell="DOORBELL",
            console="CONSOLE",
            agent="AGENT",
            tsc="TSC",
            emulator=self.plan.emulator,
        )

    def machine(self, name: str, image: DiskImage, folder: Path, doorbell: str, console: str) -> Machine:
        """The machine of one instance, whose files are in this folder."""
        return replace(
            self.machine_in_general(),
            name=name,
            vcpus=whole(image.limits),
            memory=image.limits.memory,
            kernel=image.kernel,
            initramfs=image.initramfs,
            disk=folder / OVERLAY,
            doorbell=doorbell,
            console=console,
            agent=str(folder / "agent"),
            tsc=machine.tsc_khz(),
        )

    def check_limits(self, limits: Limits) -> None:
        """Raises Unavailable where the guest could not use them, or not begin with them."""
        if self.profile.most_cpus is not None and whole(limits) > self.profile.most_cpus:
            told = f"this machine has {self.profile.most_cpus} vCPU at the most, and {limits.cpus:g} CPUs are asked for"
            raise Unavailable(told, "ask for less by --cpus, or take another profile")
        if limits.memory < (least := machine.least_memory(self.kernel.image)):
            told = f"its kernel needs {least / 2**20:g} MiB to begin with, the guest has {limits.memory / 2**20:g}"
            raise Unavailable(told, "give more by --memory, or name a smaller kernel by --kernel")

    @contextmanager
    def prepare(self, bundle: Bundle, limits: Limits) -> Iterator[DiskImage]:
        self.check_limits(limits)
        guest.check(self.kernel, self.profile.modules)
        image = self.kernel.image
        if self.profile.kernel == "vmlinux":
            image = vmlinux.unpacked(image, self.kernel.sha256)
        initramfs = guest.initramfs(bundle.root / "bin/busybox", self.kernel, self.drivers)
        if self.profile.boot == "kernel":
            disk = bundle.disk()
            parts = [Part("kernel", (image,)), Part("initramfs", (initramfs,)), Part("base disk", (disk,))]
        else:
            told = machine.command_line(self.profile, self.accelerator, machine.tsc_khz())
            disk = bootdisk.make(bundle, self.kernel, initramfs, told)
            parts = [Part("base disk", (disk,))]
        with self.ledger.holding_folder() as folder:
            empty = folder / "empty.qcow2"
            run([find("qemu-img", "qemu-utils"), "create", "-q", "-f", "qcow2", "-F", "raw", "-b", disk, empty])
            ready = DiskImage(bundle, limits, tuple(parts), image, initramfs, disk, empty)
            if not self.profile.restore:
                yield ready
                return
            with self._saved(ready) as saved:
                yield saved

    @contextmanager
    def _saved(self, image: DiskImage) -> Iterator[DiskImage]:
        """The image of a machine that was booted until it was ready, and saved then, with what it had written."""
        with self.ledger.holding_folder() as folder:
            memory = folder / "memory"
            self.refresh(image)
            timeout = pace.deadline(SAVE_TIMEOUT, 3 * self.ready_factor())
            with (
                report_step("booting the guest to save its memory"),
                Doorbell(folder) as bell,
                self.launch(image, bell, bell.mark) as instance,
            ):
                bell.wait_ready(timeout)
                bell.wait_facts(timeout)
                assert isinstance(instance, VirtualMachine)
                saved = self.save(instance, memory)
                shutil.copyfile(instance.folder / OVERLAY, folder / OVERLAY)
            part = Part("saved memory", (memory,))
            yield replace(image, parts=(*image.parts, part), empty=folder / OVERLAY, saved=saved)

    @abstractmethod
    def save(self, instance: VirtualMachine, memory: Path) -> Saved:
        """Writes the machine's state to a new file `memory`, and ends it."""

    @abstractmethod
    @contextmanager
    def launch(self, image: DiskImage, doorbell: Doorbell, mark: Mark) -> Iterator[Instance]:
        """See Backend.launch."""

    @contextmanager
    def layer(self, image: DiskImage) -> Iterator[Path]:
        """A folder with an instance's own disk, and room for what its console says."""
        with self.ledger.holding_folder() as folder:
            shutil.copyfile(image.empty, folder / OVERLAY)
            (folder / "console").touch()
            yield folder


def ring(doorbell: Doorbell, bell: socket.socket, image: DiskImage) -> None:
    """Has the doorbell listen to a machine's port; of one that is restored it believes the answer to a nonce alone."""
    nonce = secrets.token_hex(8) if image.saved else ""
    if nonce:
        bell.sendall(f"{nonce}\n".encode())  # it waits in the socket until the guest reads
    doorbell.attach(bell.fileno(), nonce)


def whole(limits: Limits) -> int:
    """A machine has whole vCPUs."""
    return ceil(limits.cpus)
