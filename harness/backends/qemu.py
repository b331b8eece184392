"""qemu: a virtual machine by QEMU's own command line, without libvirt, spoken to over QMP.

What libvirt cannot express (microvm), and what libvirt itself costs: `qemu/pc` beside `libvirt/pc`.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from pathlib import Path

from harness import cgroup
from harness.backends import Instance, Part
from harness.cgroup import ControlGroup
from harness.doorbell import Doorbell, Mark
from harness.model import Limits, TargetRecord
from harness.process import Child, tail
from harness.vm import machine, qemu
from harness.vm.acceleration import Ask
from harness.vm.backend import DiskImage, Saved, VirtualMachine, VmBackend, ring
from harness.vm.machine import Accelerator
from harness.vm.qemu import Monitor


class QemuMachine(VirtualMachine):
    """control: our end of its monitor's socket, for one session, which no launch waits for."""

    def __init__(
        self,
        child: Child,
        group: ControlGroup,
        control: socket.socket,
        folder: Path,
        limits: Limits,
        accelerator: Accelerator,
    ) -> None:
        super().__init__(child.pid, folder, limits, accelerator)
        self.child = child
        self.group = group
        self._control = control

    def monitor(self) -> AbstractContextManager[Monitor]:
        return closing(Monitor(self._control))

    @contextmanager
    def asking(self) -> Iterator[Ask]:
        with self.monitor() as monitor:
            yield monitor.command

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
        arguments = [*machine.arguments(self.profile, self.machine_in_general()), *qemu.monitor("MONITOR")]
        profile = {**self.describe(), "argv": " ".join([self.emulator, *qemu.SANDBOX, *arguments])}
        return TargetRecord(self.options.target, "QEMU", version, "system", self.accelerator, reason, profile)

    @contextmanager
    def launch(self, image: DiskImage, doorbell: Doorbell, mark: Mark) -> Iterator[Instance]:
        name = self.ledger.name()
        with ExitStack() as stack:
            folder = stack.enter_context(self.layer(image))
            inherited = qemu.Inherited(stack)
            (bell, bell_fd), (console, console_fd), (control, control_fd) = (inherited.pair() for _ in range(3))
            doorbell.overhear(console.fileno(), self.profile.console, folder / "console")
            ring(doorbell, bell, image)
            vm = self.machine(name, image, folder, bell_fd, console_fd)
            arguments = [*machine.arguments(self.profile, vm), *qemu.monitor(control_fd)]
            if image.saved is not None:
                arguments += ["-incoming", f"fd:{inherited.file(image.saved.memory)}"]
            group = stack.enter_context(cgroup.limited(self.ledger, name, image.limits, enforced=False))
            mark("created")
            argv = group.joining(image.bundle.root, qemu.words(self.emulator, arguments))
            child = stack.enter_context(qemu.started(self.ledger, name, argv, inherited, folder / "qemu.log"))
            doorbell.watch(child.pidfd)
            yield QemuMachine(child, group, control, folder, image.limits, self.accelerator)

    def save(self, instance: VirtualMachine, memory: Path) -> Saved:
        assert isinstance(instance, QemuMachine)
        with instance.monitor() as monitor:
            monitor.save(memory)
        return Saved(memory)
