"""Build the users' machine, run it to its end, and unpack everything that it recorded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import Any

from harness import places
from harness.command import version_of
from harness.ledger import Ledger
from lab import machine
from lab.system import ROOT, ext4, tied
from lab.users import image

BOUND = 90 * 60
"""Deadline in seconds for the whole run, including a build of the disk, on two CPUs."""
MEMORY = "6G"
COMMAND_LINE = "console=ttyS0 quiet panic=-1 mitigations=off net.ifnames=0 systemd.show_status=no"
NETWORK = ("-nic", "user,model=virtio-net-pci")
ROOM = 32 * 2**20


def mark(name: str) -> str:
    """Return the mark of this machine's numbers (see harness.host.lab)."""
    return f"{name} with systemd under emulation"


def run(name: str, kept: Path, say: Callable[[str], None]) -> dict[str, Any]:
    """Run the machine of a system, a key of image.SUITES, unpack its records into `kept`, and return its description.

    Raises Unavailable if it cannot be built, StartTimeout if it takes longer than BOUND, RunError if it writes no
    records.
    """
    deadline = monotonic() + BOUND
    built = image.get(name)
    say(f"the disk of {name}, {len(built.packages)} packages: {'built just now' if built.new else 'from the cache'}")
    with Ledger() as ledger, ledger.holding_folder() as folder:
        arguments = machine.arguments(built, _checkout(folder), mark(name), COMMAND_LINE, MEMORY, NETWORK)
        with machine.ran(arguments, ledger, folder, deadline, say, list(image.SUITES).index(name)) as out:
            machine.take_out(out, kept)
    return {
        "system": name,
        "emulator": version_of(machine.emulator()),
        "arguments": arguments,
        "packages": built.packages,
        "image": "built just now" if built.new else "from the cache",
    }


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
