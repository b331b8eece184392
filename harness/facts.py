"""What one instance of a target is separated from, as read from inside it."""

from __future__ import annotations

from dataclasses import dataclass

from harness import backends, bundle, host, workloads
from harness.ledger import Ledger
from harness.measure import Cell, measure
from harness.meters import isolation
from harness.meters.isolation import Isolation
from harness.model import Plan, Run, TargetRecord


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
    with Ledger() as ledger:
        backend = backends.create(plan.targets[0], ledger, plan)
        try:
            record = backend.probe()
            with backend.prepare(bundle.build(workloads.load(plan.workloads[0])), plan.limits) as image:
                cell = Cell(plan.targets[0], image.bundle.workload, backend, image)
                run = measure(cell, ledger, plan.timeout, 0, 0, "warmup", lambda phase: None)
        finally:
            backend.close()
    outside = host.describe().informational
    return Inside(record, run, isolation.read(run.facts, outside["boot id"], outside["namespaces"]))
