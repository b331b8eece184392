"""libvirt: a virtual machine with the bundle as its disk, by libvirt's embedded driver or a daemon of the user's.

Source: libvirt, drvqemu.html (the embedded driver); QEMU, qcow2 images with backing files.
"""

from __future__ import annotations

import os
import platform
import socket
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path

from harness import cgroup, pace
from harness.backends import Instance, Options, Part, Unseen
from harness.doorbell import Doorbell, Mark
from harness.engines import libvirt as engine
from harness.engines import libvirt_traces, peer_of
from harness.engines.libvirt import LibvirtEngine
from harness.errors import BadInput, EngineError
from harness.ledger import Ledger
from harness.model import Limits, Plan, TargetRecord
from harness.process import END_FACTOR, END_TIMEOUT
from harness.vm import firmware, machine
from harness.vm.acceleration import Ask
from harness.vm.backend import OVERLAY, DiskImage, Saved, VirtualMachine, VmBackend, ring
from harness.vm.kvm import Verdict
from harness.vm.machine import Accelerator, Machine


class LibvirtMachine(VirtualMachine):
    """A running domain. identity: its ID, which one libvirt driver never gives to another domain."""

    def __init__(
        self,
        engine: LibvirtEngine,
        name: str,
        identity: int,
        pid: int,
        folder: Path,
        limits: Limits,
        accelerator: Accelerator,
    ) -> None:
        super().__init__(pid, folder, limits, accelerator)
        self.engine = engine
        self.name = name
        self.identity = identity

    def asking(self) -> AbstractContextManager[Ask]:
        return nullcontext(partial(self.engine.ask, self.name))

    def cgroups(self) -> Mapping[str, Path]:
        """Return the domain's groups that libvirt created; if it creates none, QEMU stays in its parent's group."""
        found = {}
        for controller, folder in cgroup.of_process(self.pid).items():
            for above in (folder, *folder.parents):
                if libvirt_traces.is_group_of(above.name, self.identity, self.name):
                    found[controller] = above
                    break
        return found

    def parts(self) -> tuple[Part, ...]:
        overlay, log = super().parts()
        return overlay, Part("metadata", self.engine.metadata(self.name)), log


class Libvirt(VmBackend):
    name = "libvirt"

    def __init__(self, options: Options, ledger: Ledger, plan: Plan) -> None:
        super().__init__(options, ledger, plan)
        if plan.libvirt_uri not in (None, *engine.URIS):
            raise BadInput(f"libvirt URI {plan.libvirt_uri!r}: this machine's are {' and '.join(engine.URIS)}")
        self._stack = ExitStack()

    def probe(self) -> TargetRecord:
        self.engine: LibvirtEngine = self._stack.enter_context(engine.find(self.plan, self.ledger))
        self.firmware = firmware.copy_rom(self.profile) if self.engine.confines() else None
        kind = machine.machine_type(self.profile)
        refusal = self.engine.kvm_refusal(self.plan.emulator, platform.machine(), kind)
        self.accelerator, reason = self.choose_accelerator(
            lambda: Verdict(False, refusal, self.engine.find_kvm_remedy(self.emulator)) if refusal else None
        )
        profile = {
            "libvirt": self.engine.libvirt_version,
            "uri": self.engine.uri.partition("?")[0],
            **self.describe(),
            "domain": machine.domain(self.profile, self.machine_in_general()),
        }
        version = self.engine.version if self.plan.emulator is None else self.version()
        return TargetRecord(self.options.target, "QEMU", version, self.engine.whose, self.accelerator, reason, profile)

    def refresh(self, image: DiskImage) -> None:
        """Reopen the connection if its daemon has ended: before the timed window, and before it creates anything."""
        self.engine.reconnect()

    def close(self) -> None:
        self._stack.close()

    def daemons(self) -> list[int] | Unseen:
        return self.engine.daemons()

    @contextmanager
    def _saved(self, image: DiskImage) -> Iterator[DiskImage]:
        """Keep the machine's name and UUID, which its saved state contains, for it as long as the image exists."""
        name = self.ledger.name()
        with self.engine.choose_uuid(name) as uuid, super()._saved(replace(image, name=name, uuid=uuid)) as saved:
            yield saved

    @contextmanager
    def launch(self, image: DiskImage, doorbell: Doorbell, mark: Mark) -> Iterator[Instance]:
        name = image.name or self.ledger.name()  # libvirt restores a domain under its own name alone
        with ExitStack() as stack:
            folder = stack.enter_context(self.layer(image))
            self.engine.give(folder, folder / OVERLAY)
            bells = stack.enter_context(_listening(folder / "bell"))
            consoles = stack.enter_context(_listening(folder / "serial"))
            stack.enter_context(self.ledger.holding(engine.destroy_domain, uri=self.engine.uri, name=name))
            if saved := image.saved:
                description = saved.description.replace(FOLDER, str(folder))
                domain = self.engine.restore(saved.memory, description, name)
            else:
                vm = self.machine(name, image, folder, str(folder / "bell"), str(folder / "serial"))
                uuid = image.uuid if image.name else stack.enter_context(self.engine.choose_uuid(name))
                domain = self.engine.create(machine.domain(self.profile, replace(vm, uuid=uuid)))
            mark("created")
            if console := _accepted(stack, consoles):
                doorbell.overhear(console.fileno(), self.profile.console, folder / "console")
            bell = _accepted(stack, bells)
            if bell is None:
                raise EngineError(
                    "QEMU has not connected the doorbell: is it in the profile as <source mode='connect'>?"
                )
            ring(doorbell, bell, image)
            pid = peer_of(bell)
            stack.enter_context(_gone_afterwards(pid))
            stack.callback(engine.destroy_domain, self.engine.uri, name)
            engine.resume(domain)
            yield LibvirtMachine(self.engine, name, domain.ID(), pid, folder, image.limits, self.accelerator)

    def save(self, instance: VirtualMachine, memory: Path) -> Saved:
        assert isinstance(instance, LibvirtMachine)
        description = self.engine.save(instance.name, memory)
        return Saved(memory, description.replace(str(instance.folder), FOLDER))

    def machine(self, name: str, image: DiskImage, folder: Path, doorbell: str, console: str) -> Machine:
        owner = self.engine.label if self.engine.whose == "user" else None
        vm = super().machine(name, image, folder, doorbell, console)
        return replace(vm, partition=self.engine.partition, owner=owner, firmware=self.firmware)


FOLDER = "/weighbridge-instance"
"""Stands for an instance's folder in what is known of a saved machine."""


@contextmanager
def _listening(path: Path) -> Iterator[socket.socket]:
    """A socket that QEMU connects to as it starts, whoever it runs as: only we and it can enter the folder's path."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        path.chmod(0o666)
        listener.listen()
        listener.setblocking(False)
        yield listener


def _accepted(stack: ExitStack, listener: socket.socket) -> socket.socket | None:
    """QEMU's connection. It connects before it can be asked anything: one that is not there by now is not to come."""
    try:
        connection, _ = listener.accept()
    except BlockingIOError:
        return None
    connection.setblocking(True)
    return stack.enter_context(connection)


@contextmanager
def _gone_afterwards(pid: int) -> Iterator[None]:
    """Returns, at the end of the block in which its domain is destroyed, when QEMU is gone."""
    pidfd = os.pidfd_open(pid)
    try:
        yield
    finally:
        gone = pace.wait_readable([pidfd], END_TIMEOUT, END_FACTOR)
        os.close(pidfd)
    if not gone:
        waited = pace.deadline(END_TIMEOUT, END_FACTOR)
        raise EngineError(f"QEMU has not ended {waited:g} s after its domain was destroyed")
