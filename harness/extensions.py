"""What packages of others add: they name it in an entry-point group, and nothing of this program is edited.

The groups are `weighbridge.backends`, `weighbridge.meters` and `weighbridge.reports`.
"""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from typing import Any

from harness.errors import Unavailable


def installed(group: str) -> dict[str, EntryPoint]:
    """{name: what it stands for, not imported yet} in order of names; of two of one name the first that is found."""
    found: dict[str, EntryPoint] = {}
    for point in entry_points(group=group):
        found.setdefault(point.name, point)
    return dict(sorted(found.items()))


def load(point: EntryPoint) -> Any:
    """What an entry point stands for. Raises Unavailable where it cannot be imported."""
    try:
        return point.load()
    except Exception as error:  # somebody else's module may fail in any way; that is no reason for us to
        told = f"{point.value} cannot be imported: {error}"
        raise Unavailable(told, "install what it needs, or a release that works") from error
