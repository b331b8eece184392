"""One run: a lifecycle of one instance, from the request to its end, as the record that is kept of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import msgspec
from msgspec import UnsetType

from harness import cgroup, meters, pace, signals
from harness.backends import Backend, Image, Instance, Unseen
from harness.cold import check_dropped, drop_cached
from harness.doorbell import Doorbell, timed_window
from harness.errors import ExitedBeforeReady, RunError, WrongBundle, as_unavailable
from harness.ledger import Ledger
from harness.meters import cpu, disk, memory
from harness.model import Accelerated, Applied, Cold, Failure, Phase, Run, Sample, Side, headline

READY_TIMEOUT = 60.0
"""Seconds, at least, that an instance may take to be ready unless the plan says how many."""
FACTS_TIMEOUT = 15.0
PATIENCE = 10
"""An instance may take this multiple of the slowest start of its cell so far."""
REST = 0.5
SETTLE_INTERVAL = 0.1
SETTLE_READINGS = 20
SETTLED_WITHIN = 0.01

Say = Callable[[str], None]
"""Told each phase as it begins: starting, waiting, weighing, stopping."""


@dataclass(frozen=True)
class Cell:
    """One target with one workload, of one side where there are two: what a round visits once."""

    target: str
    workload: str
    backend: Backend
    image: Image
    side: Side | None = None

    @property
    def carrier(self) -> str:
        """The target, told from that of the other side."""
        return sided(self.target, self.side)


def sided(name: str, side: Side | None) -> str:
    """`docker (base)`, or just `docker` where there are no sides."""
    return name if side is None else f"{name} ({side})"


@dataclass
class _Notes:
    """What is known of a run so far; a failure keeps what was noted before it."""

    phase: str = "starting"
    facts: dict[str, Any] = field(default_factory=dict)
    samples: list[Sample] = field(default_factory=list)
    limits: dict[str, Applied] = field(default_factory=dict)
    marks: list[tuple[str, float]] = field(default_factory=list)
    accelerated: Accelerated | None = None
    error: Failure | None = None


def ready_timeout(asked: float | UnsetType, cell: Cell, slowest: float = 0.0) -> float:
    """Return the seconds that the next instance of a cell may take to be ready.

    asked: the plan's timeout; UNSET for one that suits the machine and the engine. slowest: the longest start of the
    cell so far, in seconds.
    """
    if not isinstance(asked, UnsetType):
        return asked
    return max(pace.deadline(READY_TIMEOUT, cell.backend.ready_factor()), PATIENCE * slowest)


def measure(
    cell: Cell, ledger: Ledger, timeout: float, seq: int, number: int, phase: Phase, say: Say, cold: Cold | None = None
) -> Run:
    """Measures one instance and never raises for what goes wrong with it: that is the record's `error`.

    timeout: seconds to READY. number: of the round. cold: what is dropped of the page cache before.
    """
    notes = _Notes()

    def enter(name: str) -> None:
        notes.phase = name
        say(name)

    name = ledger.name()
    try:
        enter("starting")
        cell.backend.refresh(cell.image)
        if cold:
            left = drop_cached(cell.image.parts, cold)
            notes.samples = [part.sample() for part in left]
            check_dropped(left)
        with ledger.holding_folder() as folder, Doorbell(folder) as bell:
            try:
                _live(cell, bell, timeout, notes, enter)
            finally:
                bell.mark("gone")
                notes.marks = bell.marks()
    except Exception as error:
        signals.check()
        notes.error = Failure(notes.phase, type(error).__name__, str(error), getattr(error, "log", ""))
    return Run(
        id=name,
        seq=seq,
        target=cell.target,
        workload=cell.workload,
        round=number,
        phase=phase,
        bundle_sha256=cell.image.bundle.sha256,
        ok=notes.error is None,
        error=notes.error,
        marks=notes.marks,
        samples=notes.samples,
        limits=notes.limits,
        facts=notes.facts,
        cold=cold is not None,
        side=cell.side,
        accelerated=notes.accelerated,
        timeout=timeout,
    )


def _live(cell: Cell, bell: Doorbell, timeout: float, notes: _Notes, enter: Say) -> None:
    with ExitStack() as stack:
        idle = _daemons(cell.backend)
        with timed_window():
            bell.mark("requested")
            instance = stack.enter_context(cell.backend.launch(cell.image, bell, bell.mark))
            bell.mark("start-returned")
            enter("waiting")
            bell.at_ready(lambda: cpu.read(instance))
            with _telling(instance):
                bell.wait_ready(timeout)
                notes.samples += cpu.start(idle, {**bell.readings(), **_daemons(cell.backend)})
        enter("weighing")
        notes.limits = dict(instance.limits())
        with _telling(instance):
            notes.facts = bell.wait_facts(pace.deadline(FACTS_TIMEOUT, cell.backend.ready_factor() / 4))
            notes.limits = _with_seen(notes.limits, notes.facts)
            if notes.facts.get("bundle") != cell.image.bundle.sha256:
                raise WrongBundle(f"the instance runs bundle {notes.facts.get('bundle')}, not the one asked for")
            notes.samples += _weigh(bell, instance)
            notes.accelerated = instance.accelerated()
        enter("stopping")
        bell.mark("stopping")


@contextmanager
def _telling(instance: Instance) -> Iterator[None]:
    """A failure in the block is told with the tail of the instance's log, and with its status where it ended."""
    try:
        yield
    except ExitedBeforeReady:
        raise ExitedBeforeReady(instance.status(), instance.log()) from None
    except RunError as error:
        error.log = error.log or instance.log()
        raise


def find_daemons(backend: Backend) -> Sequence[int] | Unseen:
    """Return the pids of the daemons that serve all instances of a backend, or why they cannot be found."""
    try:
        return backend.daemons()
    except Exception as error:  # such as the refused connection of a daemon that has ended
        signals.check()
        return Unseen(as_unavailable(error).reason)


def _daemons(backend: Backend) -> cpu.Reading:
    """What the daemons that serve all instances have used so far: a start is their work too."""
    pids = backend.daemons()
    if isinstance(pids, Unseen):
        return {"daemon": pids}
    return {"daemon": cpu.processes(pids)} if pids else {}


def _weigh(bell: Doorbell, instance: Instance) -> list[Sample]:
    """What an instance costs at rest; CPU for at least REST seconds."""
    weighed = _settled(bell, instance)
    began, before = bell.now(), cpu.read(instance)  # /init has done all that it does
    on_disk = disk.weigh("disk.instance", instance.parts())
    samples = [*weighed, *memory.charged(instance), *on_disk]
    samples += meters.weigh(instance)
    _stay(bell, REST - (bell.now() - began))
    if killed := cgroup.out_of_memory(instance.cgroups()):
        raise RunError(f"the kernel killed {killed} of its processes for want of memory")
    samples += cpu.rest(before, cpu.read(instance), bell.now() - began)
    if any(sample.value is None for sample in on_disk):  # afterwards: the engine works to compute them
        samples += disk.sample_reported("disk.reported_instance", instance.reported())
    return samples


def _stay(bell: Doorbell, seconds: float) -> None:
    if bell.wait_dead(max(0.0, seconds)):
        raise RunError("the instance ended while it was weighed")


def _settled(bell: Doorbell, instance: Instance) -> list[Sample]:
    """Memory at rest. The mark `settled` or `unsettled` tells whether it came to rest."""
    before = memory.weigh(instance)
    for _ in range(SETTLE_READINGS):
        _stay(bell, SETTLE_INTERVAL)
        after = memory.weigh(instance)
        if settled := _agree(before, after):
            break
        before = after
    bell.mark("settled" if settled else "unsettled")
    return after


def _agree(before: list[Sample], after: list[Sample]) -> bool:
    return all(
        _close(headline(before, metric), headline(after, metric))
        for metric in ("memory.rss", "memory.pss", "memory.uss")
    )


def _close(before: float | None, after: float | None) -> bool:
    if before is None or after is None:
        return before is after
    return abs(after - before) <= SETTLED_WITHIN * before


def _with_seen(limits: Mapping[str, Applied], facts: Mapping[str, Any]) -> dict[str, Applied]:
    """The limits with what the inside sees of them: the field of FACTS of the same name, where it is a number."""
    seen = {name: value for name, value in facts.items() if type(value) in (int, float)}
    return {name: msgspec.structs.replace(limit, seen=seen.get(name)) for name, limit in limits.items()}
