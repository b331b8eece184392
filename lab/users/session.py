"""Build the users' machine, run it twice at the same time, each with the steps of other users, and unpack the records.

One machine has one CPU (see lab.machine), so two of them use both CPUs of a small host.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any

from harness import places
from harness.command import version_of
from harness.ledger import Ledger
from lab import machine
from lab.machine import Machine
from lab.system import ROOT, ext4, tied
from lab.users import image
from lab.users.steps import MACHINES

BOUND = 90 * 60
"""Deadline in seconds for the whole run, including a build of the disk, on two CPUs."""
MEMORY = "6G"
COMMAND_LINE = "console=ttyS0 quiet panic=-1 mitigations=off net.ifnames=0 systemd.show_status=no"
NETWORK = ("-nic", "user,model=virtio-net-pci")
ROOM = 32 * 2**20
STEPS = "steps.json"


def mark(name: str) -> str:
    """Return the mark of this machine's numbers (see harness.host.lab)."""
    return f"{name} with systemd under emulation"


def run(name: str, kept: Path, say: Callable[[str], None]) -> dict[str, Any]:
    """Run the machines of a system, a key of image.SUITES, unpack their records into `kept`; return their description.

    Raises Unavailable if it cannot be built, StartTimeout if it takes longer than BOUND.
    """
    deadline = monotonic() + BOUND
    built = image.get(name)
    say(f"the disk of {name}, {len(built.packages)} packages: {'built just now' if built.new else 'from the cache'}")
    arguments: dict[str, list[str]] = {}
    with Ledger() as ledger, ExitStack() as stack:
        carried = _checkout(stack.enter_context(ledger.holding_folder()))
        machines: list[Machine] = []
        for cpu, whose in enumerate(MACHINES):
            arguments[whose] = machine.arguments(
                built, carried, mark(name), f"{COMMAND_LINE} lab.machine={whose}", MEMORY, NETWORK
            )
            folder = stack.enter_context(ledger.holding_folder())
            hear = partial(_hear, say, whose)
            machines.append(stack.enter_context(machine.started(arguments[whose], ledger, folder, hear, cpu)))
        try:
            machine.wait(machines, deadline)
        finally:
            take_out(machines, kept)
    return {
        "system": name,
        "emulator": version_of(machine.emulator()),
        "arguments": arguments,
        "packages": built.packages,
        "image": "built just now" if built.new else "from the cache",
    }


def _hear(say: Callable[[str], None], whose: str, line: str) -> None:
    say(f"{whose}: {line}")


def take_out(machines: Sequence[Machine], kept: Path) -> None:
    """Unpack what the machines recorded, and join the records of their steps as STEPS."""
    for each in machines:
        if each.has_written:
            machine.take_out(each.out, kept)
    parts = [path for name in MACHINES if (path := kept / f"steps-{name}.json").exists()]
    done = [step for path in parts for step in json.loads(path.read_text())]
    (kept / STEPS).write_text(json.dumps(done, indent=1) + "\n")
    for path in parts:
        path.unlink()


def _checkout(folder: Path) -> Path:
    """Create a disk with this checkout's commit as a Git bundle, and the files that run there."""
    tree = places.folder(folder / "carried")
    tied(["git", "-C", ROOT, "bundle", "create", "--quiet", tree / "weighbridge.bundle", "HEAD", "main"])
    for path in sorted((ROOT / "lab").rglob("*.py")):
        place = tree / "checkout" / path.relative_to(ROOT)
        places.folder(place.parent)
        place.write_bytes(path.read_bytes())
    disk = folder / "carried.ext4"
    ext4(tree, disk, ROOM)
    places.remove(tree)
    return disk
