"""What runs a guest, by QEMU's own word, and what the host's KVM counted of it.

Source: QEMU, qemu-qmp-ref: query-kvm, and query-stats (7.1 and newer), which hands on the counters of Linux's
KVM_GET_STATS_FD (Documentation/virt/kvm/api.rst, Linux 5.14 and newer): no file of debugfs, which is for root alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from harness.errors import EngineError, RunError
from harness.model import Accelerated
from harness.vm.machine import Accelerator

COUNTERS = ("exits", "io_exits", "mmio_exits", "halt_exits")


Ask = Callable[..., Any]
"""Asks a machine's QEMU over QMP: ask("query-stats", target="vcpu"). Raises EngineError for what it refuses."""


def of(ask: Ask, chosen: Accelerator) -> Accelerated:
    """What QEMU says of a machine that runs. Raises RunError where it is not what was `chosen`."""
    told = ask("query-kvm")
    found = Accelerated(told["present"], told["enabled"], *_counters(ask, told["enabled"]))
    if found.enabled != (chosen == "kvm"):
        raise RunError(f"QEMU says that it runs with KVM {'on' if found.enabled else 'off'}, and {chosen} was chosen")
    return found


def _counters(ask: Ask, enabled: bool) -> tuple[dict[str, int], str | None]:
    """Summed over the vCPUs, or why there are none."""
    if not enabled:
        return {}, "KVM is not what runs it"
    try:
        of_vcpus = ask("query-stats", target="vcpu", providers=[{"provider": "kvm", "names": list(COUNTERS)}])
    except EngineError as error:
        return {}, str(error)
    found: dict[str, int] = {}
    for counter in (counter for vcpu in of_vcpus for counter in vcpu["stats"]):
        found[counter["name"]] = found.get(counter["name"], 0) + counter["value"]
    return found, None if found else "this QEMU or this kernel tells no counters of KVM"
