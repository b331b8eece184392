"""What one instance of a target is separated from, as read from inside it."""

from __future__ import annotations

from dataclasses import dataclass

from harness import backends, bundle, delegation, host, signals, workloads
from harness.errors import BadInput, LeftBehind, as_unavailable
from harness.ledger import Ledger
from harness.measure import Cell, measure, ready_timeout
from harness.meters import isolation
from harness.meters.isolation import Isolation
from harness.model import Plan, Run, TargetRecord
from harness.preparation import collect_release_errors, start_engine, try_twice


@dataclass(frozen=True)
class Inside:
    """One launch, and what its FACTS say. unreleased: errors of the release of the engine and the image."""

    record: TargetRecord
    run: Run
    isolation: Isolation
    unreleased: tuple[str, ...] = ()


def ask(plan: Plan) -> Inside:
    """Starts the plan's target with its workload once, the first of each. Raises Unavailable where it cannot run here.

    What goes wrong with the instance is the run's `error`.
    """
    unreleased: list[str] = []
    launched: tuple[TargetRecord, Run] | None = None
    try:
        with Ledger() as ledger, collect_release_errors(unreleased) as stack:
            stack.enter_context(delegation.enter_delegated_group(ledger))
            backends.create(plan.targets[0], ledger, plan)  # bad input is reported before anything is built
            launched = _launch(ledger, plan, unreleased)
    except LeftBehind as error:
        if launched is None:
            raise
        unreleased += [f"{error.message}: {failure}" for failure in error.exceptions]
    record, run = launched
    outside = host.describe().informational
    isolated = isolation.read(run.facts, outside["boot id"], outside["namespaces"])
    return Inside(record, run, isolated, tuple(unreleased))


def _launch(ledger: Ledger, plan: Plan, unreleased: list[str]) -> tuple[TargetRecord, Run]:
    with collect_release_errors(unreleased) as stack:
        try:
            built = bundle.build(workloads.load(plan.workloads[0]))
            backend, record = start_engine(plan.targets[0], ledger, plan, stack)
            image, _ = try_twice(lambda: stack.enter_context(backend.prepare(built, plan.limits)))
        except BadInput:
            raise
        except Exception as error:  # an engine or its SDK may raise anything
            signals.check()
            raise as_unavailable(error) from error
        cell = Cell(plan.targets[0], built.workload, backend, image)
        return record, measure(cell, ledger, ready_timeout(plan.timeout, cell), 0, 0, "warmup", lambda phase: None)
