"""libvirt: what libvirt and the harness add to the virtual machine itself.

The floor is QEMU alone: the command line that libvirt runs, read from a running domain's /proc/PID/cmdline, started by
hand on a fresh overlay of the same base, from just before it is started to READY, heard by the same doorbell. What
libvirt hands QEMU as open files (the monitor, the agent's socket) are paths there; its secret is left
out, since nothing is encrypted by it; and the guest runs at once instead of being made first and resumed then. The
overlay is made before the clock starts, in ours after it.

The accelerator is what `libvirt/pc` finds: KVM where a guest boots under it. A start under software emulation is
mostly the guest's boot, and hides what is added.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path

from harness.doorbell import Doorbell, timed_window
from harness.ledger import Ledger
from harness.measure import Cell
from harness.process import NAME_VARIABLE, end_processes, told
from harness.vm.backend import OVERLAY, DiskImage, VirtualMachine
from selfbench.host import TIMEOUT, cell, started
from selfbench.measurement import Measurement, interleaved

TARGET = "libvirt/pc"
QUESTION = f"How long does `{TARGET}` take to be ready, beside QEMU alone with the same command line?"
ROUNDS = 12
AT_MOST = 1.25
LEFT_OUT = {"-S": 1, "-add-fd": 2}
"""Options that are left out, and of how many words they are."""


def measure(rounds: int) -> Sequence[Measurement]:
    with Ledger() as ledger, cell(TARGET, ledger) as libvirt:
        argv = command_line(libvirt, ledger)
        sides = {TARGET: lambda: started(libvirt, ledger), "QEMU": lambda: by_hand(libvirt, ledger, argv)}
        values = interleaved(sides, rounds)
    accelerator = argv[argv.index("-accel") + 1].upper()
    return [
        Measurement(
            key="libvirt.start",
            question=QUESTION,
            unit="s",
            ours=TARGET,
            floor="QEMU",
            at_most=AT_MOST,
            values=values,
            note=f"Under {accelerator}.",
        )
    ]


def command_line(cell: Cell, ledger: Ledger) -> list[str]:
    """What libvirt runs for an instance; the folder of its files is the word FOLDER in it."""
    with (
        ledger.holding_folder() as folder,
        Doorbell(folder) as bell,
        cell.backend.launch(cell.image, bell, bell.mark) as instance,
    ):
        bell.wait_ready(TIMEOUT)
        assert isinstance(instance, VirtualMachine)
        words = [os.fsdecode(word) for word in told(instance.pid, "cmdline")[:-1]]
        place = str(instance.folder)
    kept: list[str] = []
    skipped = 0
    for word, following in zip(words, [*words[1:], ""], strict=True):
        skipped = skipped or LEFT_OUT.get(word, 0) or (2 if word == "-object" and '"secret"' in following else 0)
        if skipped:
            skipped -= 1
        else:
            kept.append(word.replace(place, "FOLDER"))
    return kept


def by_hand(cell: Cell, ledger: Ledger, argv: Sequence[str]) -> float:
    """Seconds from just before QEMU is started to READY."""
    assert isinstance(cell.image, DiskImage)
    name = ledger.name()
    with (
        ledger.holding_folder() as folder,
        Doorbell(folder) as bell,
        ledger.holding(end_processes, name=name),
        socket.socket(socket.AF_UNIX) as listener,
        socket.socket(socket.AF_UNIX) as console,
        (folder / "log").open("wb") as log,
    ):
        shutil.copyfile(cell.image.empty, folder / OVERLAY)
        listener.bind(str(folder / "bell"))
        listener.listen()
        listener.settimeout(TIMEOUT)
        console.bind(str(folder / "serial"))
        console.listen()
        console.settimeout(TIMEOUT)
        mine = [_by_path(word, folder) for word in argv]
        environment = {"LC_ALL": "C", "PATH": os.environ["PATH"], NAME_VARIABLE: name}
        with timed_window():
            bell.mark("requested")
            with subprocess.Popen(mine, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log) as qemu:
                try:
                    (said, _), (connection, _) = console.accept(), listener.accept()
                    with said, connection:
                        # Read as ours is: a console that nobody reads is full after some hundred characters.
                        bell.overhear(said.fileno(), {}, folder / "said")
                        bell.attach(connection.fileno())
                        bell.wait_ready(TIMEOUT)
                finally:
                    qemu.kill()
    return dict(bell.marks())["ready"]


def _by_path(word: str, folder: Path) -> str:
    """A word of the command line with paths in the place of open files."""
    place = str(folder).replace(",", ",,")
    word = re.sub(r"^socket,id=charmonitor,fd=\d+,", f"socket,id=charmonitor,path={place}/monitor,", word)
    word = re.sub(r"^socket,id=charchannel1,fd=\d+,", f"socket,id=charchannel1,path={place}/agent,", word)
    return word.replace("FOLDER", place)
