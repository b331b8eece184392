"""The registry of metrics: what each number is called, its unit, which way is better, and who may be alarmed by it.

`headline` metrics are the family that verdicts are given on; all others describe. `threshold` is the relative and
`floor` the absolute change (in the metric's unit) below which a difference is of no interest. `by` is what its pieces
are, where a report has a table of them. `stand_in` names the metric that is shown, under its own name, in the place of
one that could not be read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Metric:
    name: str
    unit: str
    title: str
    better: Literal["lower", "higher", "neither"] = "lower"
    headline: bool = False
    threshold: float = 0.05
    floor: float = 0.0
    by: str | None = None
    stand_in: str | None = None


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric(
            "startup.total", "s", "Start-up: requested to ready", headline=True, threshold=0.1, floor=0.0005, by="phase"
        ),
        Metric("shutdown.total", "s", "Stop: stopping to gone", threshold=0.2, floor=0.01),
        Metric(
            "memory.pss",
            "B",
            "Memory at rest, PSS",
            headline=True,
            floor=256 * 1024,
            by="kind",
            stand_in="memory.charged",
        ),
        Metric("memory.rss", "B", "Memory at rest, RSS", floor=256 * 1024),
        Metric("memory.uss", "B", "Memory at rest, USS", floor=256 * 1024),
        Metric("memory.charged", "B", "Memory charged to the control group", floor=256 * 1024, by="kind"),
        Metric("cpu.start", "s", "CPU time that a start takes", threshold=0.1, floor=0.001, by="mode"),
        Metric("cpu.rest", "1", "CPUs in use at rest", threshold=0.2, floor=0.005, by="group"),
        Metric(
            "disk.instance",
            "B",
            "Disk that one more instance adds",
            headline=True,
            threshold=0.02,
            floor=64 * 1024,
            by="part",
            stand_in="disk.reported_instance",
        ),
        Metric(
            "disk.shared",
            "B",
            "Disk that all instances share",
            headline=True,
            threshold=0.02,
            floor=64 * 1024,
            by="part",
            stand_in="disk.reported_shared",
        ),
        Metric(
            "disk.reported_instance",
            "B",
            "Size of one more instance, as reported by the engine",
            threshold=0.02,
            floor=64 * 1024,
            by="part",
        ),
        Metric(
            "disk.reported_shared",
            "B",
            "Size of the image, as reported by the engine",
            threshold=0.02,
            floor=64 * 1024,
            by="part",
        ),
        Metric("cache.resident", "B", "Page cache of the image's files before a cold start", "neither", by="part"),
        Metric("host.load", "1", "Load average over one minute", better="neither"),
        Metric("host.steal", "s", "CPU time stolen by the machine's own hypervisor", better="neither"),
        Metric("host.frequency", "Hz", "Frequency of the CPUs", better="neither"),
        Metric("host.memory_available", "B", "MemAvailable", better="neither"),
    )
}

OF_IMAGE = ("disk.shared", "disk.reported_shared")
"""Metrics of an image: recorded once, when it is prepared, and not for each launch."""
STARTUP_PHASE = "startup."
