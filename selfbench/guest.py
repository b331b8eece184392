"""guest: what leads from a guest's kernel to a workload. The least that a start of a machine can take.

The floor is the same machine with the same kernel, whose initramfs rings as soon as the doorbell's driver is there: no
disk is mounted, no root is switched to, and no /init of a bundle runs. What is more in ours is guest-init and /init.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from harness.doorbell import Doorbell, timed_window
from harness.ledger import Ledger
from harness.measure import Cell
from harness.vm import guest
from harness.vm.backend import DiskImage
from selfbench.host import TIMEOUT, cell, started
from selfbench.measurement import Measurement, interleaved

TARGET = "libvirt/direct"
QUESTION = f"How long does `{TARGET}` take to be ready, beside the same kernel with an init that rings at once?"
ROUNDS = 12
FLOOR = Path(__file__).parent / "floors/guest-init"


def measure(rounds: int) -> Sequence[Measurement]:
    with Ledger() as ledger, cell(TARGET, ledger) as direct:
        assert isinstance(direct.image, DiskImage)
        busybox = direct.image.bundle.root / "bin/busybox"
        initramfs = guest.initramfs(busybox, guest.kernel(), (guest.TRANSPORTS["pci"], "virtio_console"), FLOOR)
        floor = replace(direct.image, initramfs=initramfs)
        sides = {TARGET: lambda: started(direct, ledger), "an init that rings": lambda: rung(direct, floor, ledger)}
        values = interleaved(sides, rounds)
    return [
        Measurement(
            key="guest.init",
            question=QUESTION,
            unit="s",
            ours=TARGET,
            floor="an init that rings",
            values=values,
        )
    ]


def rung(cell: Cell, image: DiskImage, ledger: Ledger) -> float:
    """Seconds from the request to READY, of a machine that tells nothing more."""
    with ledger.holding_folder() as folder, Doorbell(folder) as bell, timed_window():
        bell.mark("requested")
        with cell.backend.launch(image, bell, bell.mark):
            bell.wait_ready(TIMEOUT)
            return dict(bell.marks())["ready"]
