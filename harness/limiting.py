"""Record why limits cannot be applied, and the delegated control group in which they can.

`harness.delegation` finds or requests that group; `harness.cgroup` creates groups below it.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Refusal:
    """A limit cannot be applied here. reason: why. command: the shell command that changes it."""

    reason: str
    command: str

    def __str__(self) -> str:
        return f"{self.reason}. Try: {self.command}"


@dataclass(frozen=True)
class Place:
    """A delegated group in which this process creates groups. refused: {controller: why groups there lack it}."""

    top: Path
    refused: Mapping[str, Refusal]


KERNEL_PARAMETERS = "boot with the kernel parameters systemd.unified_cgroup_hierarchy=1 cgroup_enable=memory"
_places: list[Place] = []


@contextmanager
def use_place(place: Place) -> Iterator[None]:
    """Have `limited` create groups in this place inside the block. Blocks nest."""
    _places.append(place)
    try:
        yield
    finally:
        _places.pop()


def get_current_place() -> Place | None:
    """Return the place of the innermost `use_place` block; None if groups are created at the root of each hierarchy."""
    return _places[-1] if _places else None


def format_root_command() -> str:
    """Return the shell command that measures as root with this installation; for root, that starts a container."""
    if os.geteuid() == 0:
        return "docker run --privileged --cgroupns=private"
    return f"sudo {shlex.quote(str(Path(sys.executable).with_name('weighbridge')))} run"
