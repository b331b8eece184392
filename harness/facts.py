"""What one instance of a target is separated from, as read from inside it."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass

from harness import backends, bundle, delegation, host, signals, workloads
from harness.bundle import Bundle
from harness.errors import BadInput, as_unavailable
from harness.ledger import Ledger
from harness.measure import Cell, measure, ready_timeout
from harness.meters import isolation
from harness.meters.isolation import Isolation
from harness.model import Plan, Run, TargetRecord
from harness.preparation import start_engine, try_twice


@dataclass(frozen=True)
class Inside:
    """One launch, and what its FACTS say."""

    record: TargetRecord
    run: Run
    isolation: Isolation


def ask(plan: Plan) -> Inside:
    """Starts the plan's target with its workload once, the first of each. Raises Unavailable where it cannot run here.

    What goes wrong with the instance is the run's `error`.
    """
    with Ledger() as ledger, delegation.enter_delegated_group(ledger):
        backends.create(plan.targets[0], ledger, plan)  # bad input is reported before anything is built
        try:
            built = bundle.build(workloads.load(plan.workloads[0]))
            record, run = _launch(built, ledger, plan)
        except BadInput:
            raise
        except Exception as error:  # of an engine or its SDK, of whatever kind
            signals.check()
            raise as_unavailable(error) from error
    outside = host.describe().informational
    return Inside(record, run, isolation.read(run.facts, outside["boot id"], outside["namespaces"]))


def _launch(built: Bundle, ledger: Ledger, plan: Plan) -> tuple[TargetRecord, Run]:
    with ExitStack() as stack:
        backend, record = start_engine(plan.targets[0], ledger, plan, stack)
        image, _ = try_twice(lambda: stack.enter_context(backend.prepare(built, plan.limits)))
        cell = Cell(plan.targets[0], built.workload, backend, image)
        return record, measure(cell, ledger, ready_timeout(plan.timeout, cell), 0, 0, "warmup", lambda phase: None)
