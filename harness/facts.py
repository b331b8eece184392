"""What one instance of a target is separated from, as read from inside it."""

from __future__ import annotations

from dataclasses import dataclass

from harness import backends, bundle, delegation, host, signals, workloads
from harness.backends import Backend
from harness.bundle import Bundle
from harness.errors import BadInput, as_unavailable
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
    with Ledger() as ledger, delegation.entered(ledger):
        backend = backends.create(plan.targets[0], ledger, plan)
        built = bundle.build(workloads.load(plan.workloads[0]))
        try:
            record, run = _launch(backend, built, ledger, plan)
        except BadInput:
            raise
        except Exception as error:  # of an engine or its SDK, of whatever kind
            signals.check()
            raise as_unavailable(error) from error
        finally:
            backend.close()
    outside = host.describe().informational
    return Inside(record, run, isolation.read(run.facts, outside["boot id"], outside["namespaces"]))


def _launch(backend: Backend, built: Bundle, ledger: Ledger, plan: Plan) -> tuple[TargetRecord, Run]:
    record = backend.probe()
    with backend.prepare(built, plan.limits) as image:
        cell = Cell(plan.targets[0], built.workload, backend, image)
        return record, measure(cell, ledger, plan.timeout, 0, 0, "warmup", lambda phase: None)
