"""namespace: what the programs that make a sandbox add to the system calls that make it.

The floor is a program in C (floors/namespace.c) that makes the same layer, the same control group with the same limits,
the same seven namespaces by one clone3(2), the same uid map and mounts, brings up the loopback, pivots, and becomes the
same /init: from posix_spawn(3) of it to READY. What is more in ours is the harness, and the programs that make these
calls: two shells, setpriv(1), unshare(1) and mount(8), one after the other.

The steps come one after another until all that `namespace` starts is there, on a layer and in a control group that are
made before the clock starts. The last step is the harness, with both of these.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from harness import cgroup
from harness.backends import DOORBELL
from harness.backends.namespace import SCRIPT, Namespace, SandboxImage
from harness.cgroup import ControlGroup
from harness.command import find, run
from harness.ledger import Ledger
from harness.measure import Cell
from harness.stats.estimate import median_interval
from selfbench.host import cell, spawned, started
from selfbench.measurement import Measurement, interleaved

QUESTION = "How long does `namespace` take to be ready, beside a program in C that makes the same?"
ROUNDS = 40
AT_MOST = 3.0
OURS, FLOOR, INSIDE = "namespace", "program in C", "program in C, from its first line"
SOURCE = Path(__file__).parent / "floors" / "namespace.c"
NOTE = (
    "The floor is timed from posix_spawn of the program, because nothing calls clone(2) without a process. "
    "A helper in C would take nearly all of the difference away, and is not worth its keep: it would be compiled on "
    "every machine or trusted as a binary, and the target would no longer be the sandbox anyone makes with unshare(1)."
)
STEPS = (
    "a shell",
    "and the control group joined",
    "and setpriv",
    "and unshare",
    "and the mounts and the loopback",
    "and pivot_root",
    "and umount",
    "and /init",
)


def measure(rounds: int) -> Sequence[Measurement]:
    with Ledger() as ledger, cell("namespace", ledger) as namespace:
        program, inside = compiled(ledger.folder / "floor"), list[float]()
        sides = {
            OURS: partial(started, namespace, ledger),
            FLOOR: partial(by_c, program, namespace, ledger, inside),
            **{step: partial(by_step, step, namespace, ledger) for step in STEPS},
        }
        values = interleaved(sides, rounds)
    values[INSIDE] = inside[-rounds:]
    return [
        Measurement(
            key="namespace.start",
            question=QUESTION,
            unit="s",
            ours=OURS,
            floor=FLOOR,
            at_most=AT_MOST,
            values={name: values[name] for name in (OURS, FLOOR, INSIDE)},
            note=NOTE,
        ),
        Measurement(
            key="namespace.steps",
            question="What is the start of `namespace` made of?",
            unit="s",
            ours=OURS,
            values={name: values[name] for name in (*STEPS, OURS)},
            note=_told({name: values[name] for name in (*STEPS, OURS)}),
        ),
    ]


def compiled(program: Path) -> Path:
    """The floor. Raises Unavailable where there is no compiler."""
    run([find("cc", "gcc"), "-O2", "-Wall", "-o", program, SOURCE])
    return program


def by_c(program: Path, cell: Cell, ledger: Ledger, inside: list[float]) -> float:
    """Seconds to READY of the floor, from posix_spawn of it. `inside` takes those from its own first line."""
    backend, image = _mine(cell)
    name = ledger.name()
    with (
        cgroup.limited(ledger, ledger.name(), image.limits) as like,
        ledger.holding_folder() as folder,
        ledger.holding_folder() as layer,
        ledger.holding(cgroup.remove, name=name),
    ):
        fifo = _doorbell(folder)
        argv = [str(program), str(fifo), str(image.tree), str(layer), str(backend.uid), *_grouped(like, name)]
        requested, ready = spawned(ledger, argv, fifo, folder / "began")
        inside.append(ready - int((folder / "began").read_text()) / 1e9)
        return ready - requested


def _grouped(like: ControlGroup, name: str) -> Iterator[str]:
    """What the floor does to be in a group of this name, with the same limits."""
    folders = {controller: folder.with_name(name) for controller, folder in like.folders.items()}
    for folder in dict.fromkeys(folders.values()):
        yield from ("mkdir", str(folder))
    for controller, folder in folders.items():
        for file, value in cgroup.settings(like.limits)[controller].items():
            yield from ("write", f"{folder}/{file}", value)
    for door in ControlGroup(like.limits, folders).doors:
        yield from ("write", door, "0")


def by_step(step: str, cell: Cell, ledger: Ledger) -> float:
    """Seconds to READY of what `namespace` starts up to that step, from posix_spawn of it."""
    backend, image = _mine(cell)
    with (
        ledger.holding_folder() as folder,
        ledger.holding_folder() as layer,
        cgroup.limited(ledger, ledger.name(), image.limits) as group,
    ):
        fifo = _doorbell(folder)
        backend.lay(image.tree, layer, fifo)
        requested, ready = spawned(ledger, _steps(backend, image.tree, layer, group, fifo)[step], fifo)
        return ready - requested


def _steps(backend: Namespace, tree: Path, layer: Path, group: ControlGroup, fifo: Path) -> Mapping[str, list[str]]:
    """The argv of each step: what is started, and rings instead of going on."""
    outside, inside = (f"echo READY >{bell}" for bell in (fifo, DOORBELL))
    shell = [f"{tree}/bin/busybox", "sh", "-c", outside]

    def up_to(command: str, ring: str) -> list[str]:
        before, found, _ = SCRIPT.partition(f"\n{command}")
        assert found
        return backend.argv(tree, layer, group, f"{before}\n{ring}")

    argvs = [
        shell,
        group.joining(tree, shell),
        group.joining(tree, [*backend.setpriv, *shell]),
        group.joining(tree, [*backend.entry, *shell]),
        up_to("cd ", outside),
        up_to("umount ", inside),
        up_to("exec /init", inside),
        backend.argv(tree, layer, group),
    ]
    return dict(zip(STEPS, argvs, strict=True))


def _mine(cell: Cell) -> tuple[Namespace, SandboxImage]:
    assert isinstance(cell.backend, Namespace)
    assert isinstance(cell.image, SandboxImage)
    return cell.backend, cell.image


def _doorbell(folder: Path) -> Path:
    fifo = folder / "doorbell"
    os.mkfifo(fifo)
    fifo.chmod(0o666)  # whoever is root inside rings it
    return fifo


def _told(values: Mapping[str, Sequence[float]]) -> str:
    """What each step adds, as the difference of two medians."""
    medians = [(name, median_interval(list(series)).median) for name, series in values.items()]
    added = (f"{name} {(median - before) * 1e3:+.2f}" for (_, before), (name, median) in itertools.pairwise(medians))
    return f"Each step has those before it. In ms, {', '.join(added)}."
