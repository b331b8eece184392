"""What QEMU says of what runs a guest is believed, and nothing else: with a stand-in for its monitor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from harness.errors import EngineError, RunError
from harness.model import Accelerated
from harness.vm import acceleration
from harness.vm.acceleration import Ask

ENABLED: Mapping[str, Any] = {"present": True, "enabled": True}
VCPUS = [
    {"provider": "kvm", "stats": [{"name": "exits", "value": 40}, {"name": "io_exits", "value": 3}]},
    {"provider": "kvm", "stats": [{"name": "exits", "value": 2}, {"name": "io_exits", "value": 4}]},
]


def monitor(**answers: Any) -> Ask:
    def ask(command: str, **arguments: Any) -> Any:
        answer = answers[command.replace("-", "_")]
        if isinstance(answer, Exception):
            raise answer
        return answer

    return ask


def test_exits_are_counted_over_all_vcpus() -> None:
    found = acceleration.of(monitor(query_kvm=ENABLED, query_stats=VCPUS), "kvm")
    assert found == Accelerated(True, True, {"exits": 42, "io_exits": 7})


@pytest.mark.parametrize(
    ("stats", "reason"),
    [
        ([], "this QEMU or this kernel tells no counters of KVM"),
        (EngineError("QEMU's monitor: no query-stats"), "QEMU's monitor: no query-stats"),
    ],
)
def test_counters_that_cannot_be_had_have_a_reason(stats: Any, reason: str) -> None:
    found = acceleration.of(monitor(query_kvm=ENABLED, query_stats=stats), "kvm")
    assert found == Accelerated(True, True, {}, reason)


def test_software_emulation_counts_nothing() -> None:
    found = acceleration.of(monitor(query_kvm={"present": True, "enabled": False}), "tcg")
    assert found == Accelerated(True, False, {}, "KVM is not what runs it")


@pytest.mark.parametrize(("enabled", "chosen"), [(False, "kvm"), (True, "tcg")])
def test_a_label_that_qemu_contradicts_is_a_failed_run(enabled: bool, chosen: Any) -> None:
    told = f"KVM {'on' if enabled else 'off'}, and {chosen} was chosen"
    with pytest.raises(RunError, match=told):
        acceleration.of(monitor(query_kvm={"present": True, "enabled": enabled}, query_stats=VCPUS), chosen)
