"""What an instance costs at rest, read from the host: one file a question, and the meters that packages of others add.

A meter of somebody else's is an object `Meter` that is named in the entry-point group `weighbridge.meters`. Every
instance is weighed by all that are installed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from harness import extensions, signals
from harness.errors import Unavailable, as_unavailable
from harness.metrics import METRICS, Metric
from harness.model import Sample

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

    from harness.backends import Instance

ENTRY_POINTS = "weighbridge.meters"


@dataclass(frozen=True)
class Meter:
    """Weighs one instance, once, after its memory has come to rest. It reads, and asks nothing of the instance.

    metrics: all that `weigh` gives samples of; names that the program itself has none of.
    """

    metrics: tuple[Metric, ...]
    weigh: Callable[[Instance], Iterable[Sample]]


def weigh(instance: Instance) -> list[Sample]:
    """What the installed meters of others say of an instance. What one of them cannot tell is null with the reason."""
    return [sample for meter in installed() for sample in _weigh(meter, instance)]


@cache
def installed() -> tuple[Meter, ...]:
    """The meters of others. One that does not work has the metric `meter.<its name>`, of which it tells why."""
    return tuple(_load(point) for point in extensions.installed(ENTRY_POINTS).values())


def metric(name: str, unit: str) -> Metric:
    """The metric of that name: the program's own or an installed meter's; of any other nothing is known but `unit`."""
    if name in METRICS:
        return METRICS[name]
    added = (metric for meter in installed() for metric in meter.metrics if metric.name == name)
    return next(added, Metric(name, unit, name, better="neither"))


def _weigh(meter: Meter, instance: Instance) -> list[Sample]:
    try:
        samples = list(meter.weigh(instance))
        known = {(metric.name, metric.unit) for metric in meter.metrics}
        if foreign := {(sample.metric, sample.unit) for sample in samples} - known:
            raise ValueError(f"its meter gave a sample of {' in '.join(min(foreign))}, which it did not name")
    except Exception as error:  # somebody else's: it must not take with it what was weighed besides
        signals.check()
        reason = as_unavailable(error).reason
        return [Sample(metric.name, metric.unit, None, reason=reason) for metric in meter.metrics]
    return samples


def _load(point: EntryPoint) -> Meter:
    try:
        meter = extensions.load(point)
        if not isinstance(meter, Meter):
            raise Unavailable(f"{point.value} is no Meter", "install a release that works")
        if taken := {metric.name for metric in meter.metrics} & METRICS.keys():
            raise Unavailable(f"{point.value} names a metric {min(taken)}, which is the program's own", "rename it")
    except Unavailable as absent:
        return _failing(point.name, absent)
    return meter


def _failing(name: str, absent: Unavailable) -> Meter:
    def weigh(instance: Instance) -> Iterable[Sample]:
        raise absent

    return Meter((Metric(f"meter.{name}", "1", f"The meter {name}", better="neither"),), weigh)
