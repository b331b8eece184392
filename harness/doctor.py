"""What can run here, and for the rest why not and what to do."""

from __future__ import annotations

from dataclasses import dataclass

from harness import backends
from harness.errors import EngineError, Unavailable
from harness.ledger import Ledger
from harness.model import Plan, TargetRecord


@dataclass(frozen=True)
class Finding:
    """One target: what stands behind it, or why it cannot run here and what to do about it."""

    target: str
    record: TargetRecord | None = None
    reason: str | None = None
    hint: str | None = None


def examine(plan: Plan) -> list[Finding]:
    """Probes every target of a plan for real: engines are started, KVM boots a guest; all is ended again."""
    with Ledger() as ledger:
        return [_examine(target, ledger, plan) for target in plan.targets]


def _examine(target: str, ledger: Ledger, plan: Plan) -> Finding:
    try:
        backend = backends.create(target, ledger, plan)
        try:
            return Finding(target, backend.probe())
        finally:
            backend.close()
    except Unavailable as error:
        return Finding(target, reason=error.reason, hint=error.hint)
    except EngineError as error:
        return Finding(target, reason=str(error), hint="run it as a target: its run keeps the log")
