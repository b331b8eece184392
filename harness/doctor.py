"""What can run here, and for the rest why not and what to do."""

from __future__ import annotations

from dataclasses import dataclass

from harness import backends, delegation, signals
from harness.errors import BadInput, as_unavailable
from harness.ledger import Ledger
from harness.model import Plan, TargetRecord


@dataclass(frozen=True)
class Finding:
    """One target: what stands behind it, or why it cannot run here; hint: what to do about either."""

    target: str
    record: TargetRecord | None = None
    reason: str | None = None
    hint: str | None = None


def examine(plan: Plan) -> list[Finding]:
    """Probes every target of a plan for real: engines are started, KVM boots a guest; all is ended again."""
    with Ledger() as ledger, delegation.entered(ledger):
        return [_examine(target, ledger, plan) for target in plan.targets]


def _examine(target: str, ledger: Ledger, plan: Plan) -> Finding:
    try:
        backend = backends.create(target, ledger, plan)
        try:
            return Finding(target, backend.probe(), hint=backend.remedy or None)
        finally:
            backend.close()
    except BadInput:
        raise
    except Exception as error:  # of an engine or its SDK, of whatever kind
        signals.check()
        absent = as_unavailable(error)
        return Finding(target, reason=absent.reason, hint=absent.hint)
