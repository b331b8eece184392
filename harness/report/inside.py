"""What the launches of each target found inside, the alike ones counted."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace

import msgspec

from harness.meters import isolation
from harness.meters.isolation import Isolation
from harness.model import LARGEST, Applied, Host, Run
from harness.report.rows import Cell
from harness.wording import Labels, line


@dataclass(frozen=True)
class Inside:
    """What launches of one target are separated from, as each of these `runs` found it inside.

    A target has several where its launches differ in that. Only `processes` may differ within one: the fewest and
    the most that a launch saw. `limits` are as they were applied to all of them.
    """

    target: str
    label: str
    workloads: tuple[str, ...]
    runs: int
    isolation: Isolation
    processes: tuple[int, int] | None
    limits: dict[str, Applied]


def found(host: Host, cells: Mapping[Cell, Sequence[Run]], labels: Labels) -> tuple[Inside, ...]:
    """What the launches found inside, target by target; alike ones are told once, with their count."""
    known = host.informational
    boot_id, inodes = known.get("boot id"), known.get("namespaces")
    boot_id = boot_id if isinstance(boot_id, str) else None
    inodes = inodes if isinstance(inodes, dict) else {}
    told: dict[Hashable, tuple[Isolation, list[Run], list[int]]] = {}
    by_target = sorted(cells, key=lambda cell: labels.order(cell[1]))
    for run in (run for cell in by_target for run in cells[cell] if run.ok):
        inside = isolation.read(run.facts, boot_id, inodes)
        limits = tuple([(name, how.asked, how.mechanism, how.reason) for name, how in run.limits.items()])
        _, alike, processes = told.setdefault((run.target, inside.configuration, limits), (inside, [], []))
        alike.append(run)
        if inside.processes is not None and inside.processes < LARGEST:
            processes.append(inside.processes)
    return tuple(_inside(*alike, labels) for alike in told.values())


def _inside(found: Isolation, alike: Sequence[Run], processes: Sequence[int], labels: Labels) -> Inside:
    run = alike[0]
    return Inside(
        target=line(run.target),
        label=labels[run.target],
        workloads=tuple(sorted({line(workload) for workload in {each.workload for each in alike}})),
        runs=len(alike),
        isolation=_printable(found),
        processes=(min(processes), max(processes)) if processes else None,
        limits={name: msgspec.structs.replace(applied, seen=None) for name, applied in run.limits.items()},
    )


def _printable(found: Isolation) -> Isolation:
    """FACTS are foreign: their text on one line, no count beyond what can be one."""
    cpus, memory = (count if count is not None and count < LARGEST else None for count in (found.cpus, found.memory))
    version = found.kernel_version and line(found.kernel_version)
    return replace(found, kernel_version=version, cpus=cpus, memory=memory, processes=None)
