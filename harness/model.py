"""The records of a result file, schema "weighbridge/1": frozen, and JSON in and out.

A result is JSON Lines: a header, then records in the order in which they came to be. `schema/weighbridge-1.json`
is generated from this module. Seconds and bytes throughout; a value that could not be had is None with a reason.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Annotated, Any, Literal

import msgspec

SCHEMA = "weighbridge/1"
LARGEST = 2**63
"""No count of bytes and no time is beyond it; sums of what is below stay finite."""

Seconds = Annotated[float, msgspec.Meta(ge=0)]
Count = Annotated[int, msgspec.Meta(ge=0)]
Group = Literal["workload", "guest", "vmm", "supervisor", "daemon"]
Phase = Literal["warmup", "measured"]
Side = Literal["base", "head"]
"""Of the two that `weighbridge ab` measures in turn; None in all other campaigns."""
Cold = Literal["image", "all"]
"""Whose page cache is dropped before a start: that of the image's files, or the whole machine's too."""


class Sample(msgspec.Struct, frozen=True, gc=False):
    """One value of one metric (see metrics.py). `value` is None exactly where `reason` says why."""

    metric: str
    unit: str
    value: int | float | None
    group: str | None = None
    part: str | None = None
    reason: str | None = None

    def __post_init__(self) -> None:
        if (self.value is None) == (self.reason is None):
            raise ValueError(f"{self.metric}: a sample has either a value or a reason why it has none")
        if self.value is not None and not abs(self.value) < LARGEST:  # nor is NaN
            raise ValueError(f"{self.metric}: {self.value} is not a number that can be recorded")
        if self.unit in ("s", "B") and self.value is not None and self.value < 0:
            raise ValueError(f"{self.metric}: {self.value} {self.unit} is negative")


class Limits(msgspec.Struct, frozen=True):
    """What every instance is asked to keep to: CPUs (may be a fraction) and memory in bytes."""

    cpus: Annotated[float, msgspec.Meta(gt=0)] = 1.0
    memory: Annotated[int, msgspec.Meta(gt=0)] = 256 * 2**20


class Applied(msgspec.Struct, frozen=True, gc=False):
    """How one limit was applied. `mechanism` is None, with a reason, where it could not be; `seen` is from inside."""

    asked: float | int
    mechanism: str | None
    seen: float | int | None = None
    reason: str | None = None


class Plan(msgspec.Struct, frozen=True):
    """What a campaign is to do. `rounds` are measured ones, one warm-up round comes before. `budget` in seconds.

    `precision` is a fraction: rounds go on until half the width of the 95 % interval of every headline median is at
    most that fraction of it, and `rounds` is the least number of them. `timeout` is in seconds; left out: as many as
    suit the machine, the engine and the workload, recorded in every run. `sides` has, where two are measured in turn in
    one campaign, what each changes in the plan: {"base": {...}, "head": {...}}, by the names of the plan file.
    """

    targets: tuple[str, ...] = ("host", "namespace", "docker", "libvirt/pc")
    workloads: tuple[str, ...] = ("hello",)
    rounds: Annotated[int, msgspec.Meta(ge=1)] = 7
    budget: Annotated[float, msgspec.Meta(gt=0)] | None = 600.0
    timeout: Annotated[float, msgspec.Meta(gt=0)] | msgspec.UnsetType = msgspec.UNSET
    cold: Cold | None = None
    precision: Annotated[float, msgspec.Meta(gt=0, lt=1)] | None = None
    seed: int = 0
    engines: Literal["auto", "private", "user"] = "auto"
    docker_host: str | None = None
    libvirt_uri: str | None = None
    emulator: str | None = None
    kernel: str | None = None
    modules: str | None = None
    limits: Limits = msgspec.field(default_factory=Limits)
    sides: dict[Side, dict[str, Any]] = {}


class Host(msgspec.Struct, frozen=True):
    """The machine: `gating` fields must agree for two results to be compared, `informational` ones are noted."""

    gating: dict[str, Any]
    informational: dict[str, Any]

    @property
    def lab(self) -> str | None:
        """How numbers of a lab are marked; None for a machine that is none. See host.lab."""
        return f"lab: {self.gating['lab']}" if self.gating.get("lab") else None


class Header(msgspec.Struct, frozen=True, tag_field="kind", tag="header"):
    schema: str
    campaign: str
    started: str
    command: list[str]
    commit: str | None
    dirty: bool | None
    plan: Plan
    host: Host


class BundleRecord(msgspec.Struct, frozen=True, tag_field="kind", tag="bundle"):
    """The rootfs of a workload: digest of its content, apparent bytes, Debian packages and their versions."""

    workload: str
    sha256: str
    bytes: Count
    packages: dict[str, str]
    side: Side | None = None


class TargetRecord(msgspec.Struct, frozen=True, tag_field="kind", tag="target"):
    """What stands behind a target's key: the engine, whose it is, and its whole configuration in `profile`.

    retried: why the engine failed to start at first, where a second try succeeded.
    remedy: how to change what `accelerator_reason` says, such as a command.
    """

    target: str
    engine: str
    version: str
    whose: Literal["private", "user", "system"]
    accelerator: str | None = None
    accelerator_reason: str | None = None
    profile: dict[str, Any] = msgspec.field(default_factory=dict)
    side: Side | None = None
    retried: str | None = None
    remedy: str | None = None


class UnavailableRecord(msgspec.Struct, frozen=True, tag_field="kind", tag="unavailable"):
    """Why a target could not be measured.

    hint: how to change that. detail: a failed command and its output, as lines.
    """

    target: str
    reason: str
    hint: str
    side: Side | None = None
    detail: str | None = None


class ImageRecord(msgspec.Struct, frozen=True, tag_field="kind", tag="image"):
    """The disk parts that all instances of a target use together, for one workload.

    retried: why the image could not be prepared at first, where a second try succeeded.
    """

    target: str
    workload: str
    samples: list[Sample]
    side: Side | None = None
    retried: str | None = None


class HostRecord(msgspec.Struct, frozen=True, tag_field="kind", tag="host"):
    """The machine before, between and after the rounds: load, steal, available memory, shared daemons."""

    at: Literal["before", "between", "after"]
    samples: list[Sample]


class Failure(msgspec.Struct, frozen=True):
    """Why a run failed: in which phase, as which type of error, and the tail of the instance's log."""

    phase: str
    type: str
    message: str
    log: str = ""


class Accelerated(msgspec.Struct, frozen=True):
    """What ran a guest, by QEMU's own word over QMP, asked in every run.

    present, enabled: of `query-kvm`. counters: of `query-stats`, what the host's KVM counted of the guest's vCPUs since
    they were made: `exits` (how often the CPU left the guest), some of them by cause; reason: why there are none.
    """

    present: bool
    enabled: bool
    counters: dict[str, Count] = {}
    reason: str | None = None


class Run(msgspec.Struct, frozen=True, tag_field="kind", tag="run"):
    """One lifecycle of one instance. `marks` are seconds since requested, in the order of time.

    timeout: the seconds within which it had to be ready.
    """

    id: str
    seq: Count
    target: str
    workload: str
    round: Count
    phase: Phase
    bundle_sha256: str
    ok: bool
    error: Failure | None
    marks: list[tuple[str, Seconds]]
    samples: list[Sample]
    limits: dict[str, Applied]
    facts: dict[str, Any]
    cold: bool = False
    instances: Count = 1
    instance: Count = 0
    side: Side | None = None
    accelerated: Accelerated | None = None
    timeout: Seconds | None = None

    def __post_init__(self) -> None:
        times = [at for _, at in self.marks]
        if not all(math.isfinite(at) and at >= 0 for at in times):
            raise ValueError(f"a mark of run {self.id} is not a time since requested")
        if times != sorted(times):
            raise ValueError(f"the marks of run {self.id} are not in the order of time")
        if self.ok != (self.error is None):
            raise ValueError(f"run {self.id} is {'ok and has' if self.ok else 'not ok and lacks'} an error")

    def mark(self, name: str) -> float | None:
        """Seconds from requested to the mark of that name; None where the run never came to it."""
        return next((at for mark, at in self.marks if mark == name), None)


class Footer(msgspec.Struct, frozen=True, tag_field="kind", tag="footer"):
    """The end of a campaign. `complete` is False where it was cut short, and `stopped` says by what."""

    complete: bool
    stopped: str | None
    runs: Count
    failed: Count


Record = (
    Header | BundleRecord | TargetRecord | UnavailableRecord | ImageRecord | HostRecord | Run | Footer
)  # told apart by "kind"


def headline(samples: Iterable[Sample], metric: str) -> float | None:
    """The sum of a metric over its groups and parts, or None where any of them could not be read.

    A VM's workload cannot be seen from the host and is part of `guest`: its null is skipped where guest has a value.
    """
    mine = [s for s in samples if s.metric == metric]
    guest_known = any(s.group == "guest" and s.value is not None for s in mine)
    counted = [s.value for s in mine if not (guest_known and s.group == "workload" and s.value is None)]
    if not counted or any(value is None for value in counted):
        return None
    return sum(value for value in counted if value is not None)
