"""Check a target completely: each requirement, the limits that apply, and the readings that this user may take.

Each check does the real work: it builds a bundle, starts an engine, boots a guest under KVM, launches one instance.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TypeVar

from harness import backends, bundle, delegation, limiting, signals, steps, workloads
from harness.backends import Backend, Image
from harness.bundle import Bundle
from harness.errors import BadInput, Unavailable, as_unavailable
from harness.ledger import Ledger
from harness.measure import Cell, find_daemons, measure, ready_timeout
from harness.meters import disk, memory
from harness.model import Applied, Plan, Run, Sample, TargetRecord, headline
from harness.preparation import collect_release_errors, explain_missing_bundle, start_engine, try_twice
from harness.wording import quantity

WORKLOAD = "hello"
"""The workload that is launched once in each target."""
CLEAN = "run `weighbridge clean`"
"""The remedy if something could not be released."""
NO_RIGHT = re.compile("not permitted|permission denied", re.IGNORECASE)

T = TypeVar("T")
Progress = Callable[[str], None]
"""Takes the name of each check as it begins, such as `docker: engine`."""


@dataclass(frozen=True)
class Check:
    """One requirement or reading of a target. remedy: how to fix a failure, such as a command."""

    name: str
    works: bool
    finding: str
    remedy: str | None = None


@dataclass(frozen=True)
class Finding:
    """One target: its record, or the reason why it cannot run here. hint: the remedy for either.

    detail: a failed command and its output, or the log of a failed launch, as lines.
    """

    target: str
    record: TargetRecord | None = None
    reason: str | None = None
    hint: str | None = None
    detail: str | None = None
    checks: tuple[Check, ...] = ()


class _CheckProgress:
    """Pass on the name of the current check, followed by its long step, such as a download."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._name = ""

    def __call__(self, name: str) -> None:
        self._name = name
        self._progress(name)

    def step(self, step: str) -> None:
        if step:
            self._progress(f"{self._name}: {step}")


class _Failed(Exception):
    """A requirement failed: end the checks of this target."""

    def __init__(self, check: Check, absent: Unavailable) -> None:
        super().__init__(absent.reason)
        self.check = check
        self.absent = absent


def examine(plan: Plan, progress: Progress = lambda name: None) -> Generator[Finding, None, None]:
    """Check the targets of a plan, one for each `next`. Everything that was started is stopped at the end.

    Raises BadInput for a target that does not exist, before anything is started.
    """
    # What is not released here the ledger releases, or raises as LeftBehind.
    with Ledger() as ledger, collect_release_errors([]) as stack:
        stack.enter_context(delegation.enter_delegated_group(ledger))
        for target in plan.targets:
            _create(target, ledger, plan)
        shown = _CheckProgress(progress)
        with steps.watch_steps(shown.step):
            shown(f"bundle {WORKLOAD}")
            built = _build()
            for target in plan.targets:
                yield _Examination(target, ledger, plan, shown).run(built)


def _create(target: str, ledger: Ledger, plan: Plan) -> Backend | Unavailable:
    try:
        return backends.create(target, ledger, plan)
    except BadInput:
        raise
    except Exception as error:  # a plug-in may raise anything
        return as_unavailable(error)


def _build() -> Bundle | Unavailable:
    try:
        return bundle.build(workloads.load(WORKLOAD))
    except BadInput:
        raise
    except Exception as error:
        signals.check()
        return as_unavailable(error)


class _Examination:
    """The checks of one target."""

    def __init__(self, target: str, ledger: Ledger, plan: Plan, progress: Progress) -> None:
        self.target, self.ledger, self.plan, self.progress = target, ledger, plan, progress
        self.checks: list[Check] = []

    def run(self, built: Bundle | Unavailable) -> Finding:
        unreleased: list[str] = []
        with collect_release_errors(unreleased) as stack:
            finding = self._find(built, stack)
        checks = (Check("release", False, reason, CLEAN) for reason in unreleased)
        return replace(finding, checks=(*finding.checks, *checks))

    def _find(self, built: Bundle | Unavailable, stack: ExitStack) -> Finding:
        try:
            record = self._run(built, stack)
        except _Failed as failed:
            absent, checks = failed.absent, (*self.checks, failed.check)
            detail = absent.detail or None
            return Finding(self.target, reason=absent.reason, hint=absent.hint, detail=detail, checks=checks)
        return Finding(self.target, record, hint=record.remedy, checks=tuple(self.checks))

    def _run(self, built: Bundle | Unavailable, stack: ExitStack) -> TargetRecord:
        created = _create(self.target, self.ledger, self.plan)
        if isinstance(created, Unavailable):
            raise _Failed(Check("engine", False, created.reason, created.hint), created)
        stack.callback(created.close)
        if isinstance(built, Unavailable):
            absent = explain_missing_bundle(WORKLOAD, built)
            raise _Failed(Check("bundle", False, absent.reason, absent.hint), absent)
        self.checks.append(Check("bundle", True, f"{built.workload}, {quantity(built.bytes, 'B')}"))
        for name, provide in created.requirements().items():
            self.checks.append(Check(name, True, self._attempt(name, provide)))
        engine, record = self._attempt("engine", lambda: start_engine(self.target, self.ledger, self.plan, stack))
        self.checks.append(Check("engine", True, f"{record.engine} {record.version}, whose: {record.whose}"))
        if record.accelerator is not None:
            self.checks.append(_check_kvm(record, engine))
        image = self._attempt("image", lambda: self._prepare(engine, built, stack))
        self.checks.append(Check("image", True, "prepared"))
        self._launch(engine, image)
        return record

    def _prepare(self, engine: Backend, built: Bundle, stack: ExitStack) -> Image:
        return try_twice(lambda: stack.enter_context(engine.prepare(built, self.plan.limits)))[0]

    def _attempt(self, name: str, provide: Callable[[], T]) -> T:
        """Return the result of `provide`. Raises _Failed for any error of the engine or its SDK, except BadInput."""
        self.progress(f"{self.target}: {name}")
        try:
            return provide()
        except BadInput:
            raise
        except Exception as error:
            signals.check()
            absent = as_unavailable(error)
            raise _Failed(Check(name, False, absent.reason, absent.hint), absent) from error

    def _launch(self, engine: Backend, image: Image) -> None:
        cell = Cell(self.target, WORKLOAD, engine, image)
        self.progress(f"{self.target}: launch")
        run = measure(cell, self.ledger, ready_timeout(self.plan.timeout, cell), 0, 0, "warmup", lambda stage: None)
        if run.error is not None:
            reason = f"an instance failed while {run.error.phase}: {run.error.message}"
            hint = f"run `weighbridge facts {self.target}`, which starts one instance and shows its log"
            raise _Failed(Check("launch", False, reason, hint), Unavailable(reason, hint, run.error.log))
        self.checks.append(Check("launch", True, _describe_ready(run)))
        self.checks += [_check_limit(name, applied) for name, applied in run.limits.items()]
        daemons = find_daemons(engine)
        samples = [*run.samples, *disk.weigh("disk.shared", image.parts)]
        samples += memory.daemons({self.target: daemons} if daemons != [] else {})
        self.checks += list(_check_readings(samples))


def _check_kvm(record: TargetRecord, engine: Backend) -> Check:
    """Return the check of a machine's accelerator; software emulation that the target asks for is no failure."""
    if record.accelerator != "kvm" and engine.options.get("accel") == record.accelerator:
        return Check("KVM", True, f"not used, as the target asks by accel={record.accelerator}")
    reason = record.accelerator_reason or record.accelerator or ""
    return Check("KVM", record.accelerator == "kvm", reason, record.remedy)


def _describe_ready(run: Run) -> str:
    ready = run.mark("ready")
    return "ready" if ready is None else f"ready after {quantity(ready, 's')}"


def _check_limit(name: str, applied: Applied) -> Check:
    """Return the check of a limit; its reason may end with a remedy (see limiting.Refusal)."""
    asked = quantity(applied.asked, "B") if name == "memory" else f"{applied.asked:g}"
    if applied.mechanism is not None:
        note = f" ({applied.reason})" if applied.reason else ""
        return Check(f"limit {name}", True, f"{asked} by {applied.mechanism}{note}")
    reason, _, remedy = (applied.reason or "no reason recorded").partition(". Try: ")
    return Check(f"limit {name}", False, reason, remedy or limiting.format_root_command())


def _check_readings(samples: Iterable[Sample]) -> Iterator[Check]:
    """Yield a check for each metric that this user may not read completely; else one check that all are readable."""
    found = list(samples)
    refused: dict[str, str] = {}
    for sample in found:
        metric = f"{sample.metric} of the {sample.group}" if sample.group == "daemon" else sample.metric
        if sample.reason is not None and (headline(found, sample.metric) is None or sample.group == "daemon"):
            refused.setdefault(metric, sample.reason)
    checks = [_check_refused(metric, *text.partition(". Try: ")[::2]) for metric, text in refused.items()]
    yield from filter(None, checks) if any(checks) else [Check("readings", True, "this user may take all of them")]


def _check_refused(metric: str, reason: str, remedy: str) -> Check | None:
    """Return the check of a reading that needs more rights; None if no user of this machine can take it."""
    if not remedy and not NO_RIGHT.search(reason):
        return None
    return Check(f"reading {metric}", False, reason, remedy or limiting.format_root_command())
