"""Making ready, untimed: the cells that a campaign can measure, and a record of every target that cannot be had."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TypeVar

import msgspec

from harness import backends, bundle, signals, steps, workloads
from harness.backends import Backend
from harness.bundle import Bundle
from harness.cold import check_right
from harness.engine_errors import is_transient
from harness.errors import BadInput, TransientFailure, Unavailable, as_unavailable
from harness.ledger import Ledger
from harness.measure import Cell, sided
from harness.meters import disk
from harness.model import BundleRecord, ImageRecord, Plan, Record, Side, TargetRecord, UnavailableRecord

Say = Callable[[str, str], None]
"""Told what is being prepared: a target and a workload, either of them empty where it is about the other alone."""


T = TypeVar("T")


def try_twice(attempt: Callable[[], T]) -> tuple[T, str | None]:
    """Return the attempt's result, and the reason of its first failure if the second try succeeded.

    Only an error that is_transient is followed by a second try. A launch never is: a failed run stays in the record.
    """
    try:
        return attempt(), None
    except Exception as error:
        if not is_transient(error):
            raise
        signals.check()
        first = as_unavailable(error)
    with steps.report_step(f"a second try; the first failed: {first.reason}"):
        try:
            return attempt(), first.reason
        except Exception as error:
            if not is_transient(error):
                raise
            second = as_unavailable(error)
            again = second.reason if second.reason == first.reason else f"{second.reason}; at first: {first.reason}"
            raise TransientFailure(f"{again} (tried twice)", second.hint, second.detail) from error


@contextmanager
def collect_release_errors(errors: list[str]) -> Iterator[ExitStack]:
    """Yield a stack for prepared engines and images. Append the error of their release to `errors`; do not raise it.

    The ledger then tries again to release them, and reports what is left behind. An error of the block is raised.
    """
    stack = ExitStack()
    try:
        yield stack
    finally:
        try:
            stack.close()
        except Exception as error:  # an SDK may raise anything
            errors.append(as_unavailable(error).reason)
            signals.check()


def start_engine(target: str, ledger: Ledger, plan: Plan, stack: ExitStack) -> tuple[Backend, TargetRecord]:
    """Create the backend of a target, probe it and return both; `stack` closes it.

    Raises Unavailable where the target cannot run here, BadInput where it does not exist.
    """

    def start() -> tuple[Backend, TargetRecord]:
        with ExitStack() as held:
            backend = backends.create(target, ledger, plan)
            held.callback(backend.close)
            record = probe(backend)
            stack.push(held.pop_all())
        return backend, record

    (backend, record), failure = try_twice(start)
    return backend, msgspec.structs.replace(record, retried=failure)


def probe(engine: Backend) -> TargetRecord:
    """Return an engine's record, with its remedy if it has one. Raises Unavailable if the engine cannot run here."""
    record = engine.probe()
    return msgspec.structs.replace(record, remedy=record.remedy or engine.remedy or None)


def explain_missing_bundle(workload: str, absent: Unavailable) -> Unavailable:
    """Return the error of every target for a workload whose bundle could not be built."""
    return Unavailable(f"workload {workload}: {absent.reason}", absent.hint, absent.detail)


class Preparation:
    """Of one plan: of one side, where a campaign has two."""

    def __init__(self, plan: Plan, side: Side | None, ledger: Ledger, append: Callable[[Record], None]) -> None:
        """append: takes the records of what there is, and of what there is not."""
        self.plan = plan
        self.side: Side | None = side
        self.unavailable: list[UnavailableRecord] = []
        self.targets: list[TargetRecord] = []
        self._ledger = ledger
        self._append = append

    def check(self) -> None:
        """Raises BadInput for a target or a workload that does not exist, two workloads of one name, or no right."""
        check_right(self.plan.cold)
        for target in self.plan.targets:
            try:
                backends.create(target, self._ledger, self.plan)
            except BadInput:
                raise
            except Exception:  # told when it is prepared
                continue
        called: dict[str, str] = {}
        for workload in self.plan.workloads:
            other = called.setdefault(workloads.load(workload).name, workload)
            if other != workload:
                raise BadInput(f"the workloads {other} and {workload} have the same name: rename one of the folders")

    def prepare(self, stack: ExitStack, say: Say) -> list[Cell]:
        """The cells that can be measured. A target that cannot be prepared becomes a record, not an end.

        Bundles come first: what is wrong with a workload is told before any engine is started.
        """
        bundles = [self._built(workload, say) for workload in self.plan.workloads]
        engines: dict[str, Backend] = {}
        for target in self.plan.targets:
            say(sided(target, self.side), "")
            try:
                engines[target] = self._engine(target, stack)
            except BadInput:
                raise
            except Exception as error:
                self._is_unavailable(target, error)
        cells = []
        for workload, built in bundles:
            if isinstance(built, Unavailable):
                for target in engines:
                    self._is_unavailable(target, explain_missing_bundle(workload, built))
                continue
            self._append(BundleRecord(workload, built.sha256, built.bytes, dict(built.packages), self.side))
            for target, engine in engines.items():
                say(sided(target, self.side), workload)
                if cell := self._cell(target, workload, engine, built, stack):
                    cells.append(cell)
        return cells

    def _built(self, named: str, say: Say) -> tuple[str, Bundle | Unavailable]:
        """A workload's name and its bundle, or why it cannot be had. Raises BadInput where that is the workload's."""
        workload = workloads.load(named)
        say("", sided(workload.name, self.side))
        try:
            return workload.name, bundle.build(workload)
        except BadInput:
            raise
        except Exception as error:
            signals.check()
            return workload.name, as_unavailable(error)

    def _engine(self, target: str, stack: ExitStack) -> Backend:
        engine, record = start_engine(target, self._ledger, self.plan, stack)
        self.targets.append(msgspec.structs.replace(record, side=self.side))
        self._append(self.targets[-1])
        return engine

    def _cell(self, target: str, workload: str, engine: Backend, built: Bundle, stack: ExitStack) -> Cell | None:
        try:
            image, failure = try_twice(lambda: stack.enter_context(engine.prepare(built, self.plan.limits)))
        except BadInput:
            raise
        except Exception as error:
            self._is_unavailable(target, error)
            return None
        samples = disk.weigh("disk.shared", image.parts)
        if any(sample.value is None for sample in samples):
            samples += disk.sample_reported("disk.reported_shared", image.reported)
        self._append(ImageRecord(target, workload, samples, self.side, failure))
        return Cell(target, workload, engine, image, self.side)

    def _is_unavailable(self, target: str, error: Exception) -> None:
        signals.check()
        absent = as_unavailable(error)
        record = UnavailableRecord(target, absent.reason, absent.hint, self.side, absent.detail or None)
        self.unavailable.append(record)
        self._append(record)
