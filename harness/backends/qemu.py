"""qemu: a virtual machine by QEMU's own command line, without libvirt, spoken to over QMP.

What libvirt cannot express (microvm), and what libvirt itself costs: `qemu/pc` beside `libvirt/pc`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

from harness import cgroup
from harness.backends import Instance, Part
from harness.cgroup import ControlGroup
from harness.doorbell import Doorbell, Mark
from harness.model import Limits, TargetRecord
from harness.process import Child, tail
from harness.vm import machine, qemu
from harness.vm.backend import DiskImage, Saved, VirtualMachine, VmBackend, ring
from harness.vm.qemu import Monitor


class QemuMachine(VirtualMachine):
    """monitor: of a machine that is to be saved."""

    def __init__(
        self, child: Child, group: ControlGroup, monitor: Monitor | None, folder: Path, limits: Limits
    ) -> None:
        super().__init__(child.pid, folder, limits)
        self.child = child
        self.group = group
        self.monitor = monitor

    def cgroups(self) -> Mapping[str, Path]:
        return self.group.folders

    def log(self) -> str:
        return "\n".join(filter(None, (tail(self.folder / "console"), tail(self.child.log))))

    def parts(self) -> tuple[Part, ...]:
        overlay, _ = super().parts()
        return overlay, Part("log", (self.folder / "console", self.child.log))

    def status(self) -> int | None:
        return self.child.status()


class Qemu(VmBackend):
    name = "qemu"

    def probe(self) -> TargetRecord:
        version = self.version()
        self.accelerator, reason = self.choose_accelerator()
        arguments = machine.arguments(self.profile, self.machine_in_general())
        profile = {**self.describe(), "argv": " ".join([self.emulator, *qemu.SANDBOX, *arguments])}
        return TargetRecord(self.options.target, "QEMU", version, "system", self.accelerator, reason, profile)

    @contextmanager
    def launch(self, image: DiskImage, doorbell: Doorbell, mark: Mark) -> Iterator[Instance]:
        name = self.ledger.name()
        with ExitStack() as stack:
            folder = stack.enter_context(self.layer(image))
            inherited = qemu.Inherited(stack)
            (bell, bell_fd), (console, console_fd) = inherited.pair(), inherited.pair()
            doorbell.overhear(console.fileno(), self.profile.console, folder / "console")
            ring(doorbell, bell, image)
            vm = self.machine(name, image, folder, bell_fd, console_fd)
            arguments = machine.arguments(self.profile, vm)
            if image.saved is not None:
                arguments += ["-incoming", f"fd:{inherited.file(image.saved.memory)}"]
            to_save = self.profile.restore and image.saved is None
            if to_save:
                control, control_fd = inherited.pair()
                arguments += ["-chardev", f"socket,id=qmp,fd={control_fd}", "-mon", "chardev=qmp,mode=control"]
            group = stack.enter_context(cgroup.limited(self.ledger, name, image.limits, enforced=False))
            mark("created")
            argv = group.joining(image.bundle.root, qemu.words(self.emulator, arguments))
            child = stack.enter_context(qemu.started(self.ledger, name, argv, inherited, folder / "qemu.log"))
            doorbell.watch(child.pidfd)
            monitor = stack.enter_context(closing(Monitor(control))) if to_save else None
            yield QemuMachine(child, group, monitor, folder, image.limits)

    def save(self, instance: VirtualMachine, memory: Path) -> Saved:
        assert isinstance(instance, QemuMachine)
        assert instance.monitor is not None
        instance.monitor.save(memory)
        return Saved(memory)
