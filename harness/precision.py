"""How precise the medians of a campaign are so far, and which of them keeps it from its end.

It imports NumPy, so campaign.py imports it only where a precision is asked for, before the first start.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass

from harness.measure import sided
from harness.metrics import METRICS
from harness.model import Run, headline
from harness.stats.estimate import median_interval
from harness.store import startup

HEADLINES = tuple(metric.name for metric in METRICS.values() if metric.headline)


@dataclass(frozen=True)
class Width:
    """Half the width of a median's 95 % interval as a fraction of it, infinite where there is none. told: in words."""

    metric: str
    target: str
    workload: str
    half: float
    told: str

    @property
    def name(self) -> str:
        return f"{self.metric} of {self.target} with {self.workload}"

    def __str__(self) -> str:
        return f"{self.name} {self.told}"


class Precision:
    """Takes the runs of a campaign as they come, and tells what keeps the medians from being precise enough.

    What is null is left out, and what never changes is exact.
    """

    def __init__(self, wanted: float, least: int) -> None:
        """wanted: the largest half width, as a fraction of the median. least: the fewest measured rounds."""
        self.wanted = wanted
        self._least = least
        self._round = 0
        self._values: dict[tuple[str, str, str], list[float]] = defaultdict(list)
        self._last: Width | None = None

    def add(self, run: Run) -> None:
        """Takes what a run shows, if it was measured and succeeded."""
        self._round = max(self._round, run.round)
        if run.phase != "measured":
            return
        target = sided(run.target, run.side)
        self._values["startup.total", target, run.workload] += []  # of a cell that only failed nothing is known
        if not run.ok:
            return
        intervals = dict(startup(run))
        for metric in HEADLINES:
            value = intervals.get(metric, headline(run.samples, metric))
            if value is not None:
                self._values[metric, target, run.workload].append(value)

    def shortfall(self) -> str | None:
        """What is not precise enough, the widest of them, and how wide it is; None where all are."""
        widest = self._widest()
        if widest is not None and widest.half > self.wanted:
            self._last = widest
            return f"{widest}, {percent(self.wanted)} was asked for"
        if self._round < self._least:
            return f"{self._round} of at least {self._least} rounds were begun"
        self._last = self._last or widest
        return None

    def reached(self) -> str:
        """That it is, after how many rounds, and by which median as the last one."""
        last = "none of them varies" if self._last is None else f"the last one was {self._last.name}"
        return f"after {self._round} rounds every median is within {percent(self.wanted)}: {last}"

    def _widest(self) -> Width | None:
        """None where nothing varies."""
        widths = [Width(*key, *_half(values)) for key, values in self._values.items()]
        return max((width for width in widths if width.half > 0), key=lambda width: width.half, default=None)


def percent(fraction: float) -> str:
    return f"{100 * fraction:.3g} %"


def _half(values: list[float]) -> tuple[float, str]:
    if not values:
        return math.inf, "has no value: every run failed"
    estimate = median_interval(values)
    if estimate.coverage < estimate.confidence:
        return math.inf, f"has only {estimate.n} values, too few for an interval"
    width = estimate.high - estimate.low
    if width and not estimate.median:
        return math.inf, "has a median of 0, of which there is no fraction"
    half = width / 2 / estimate.median if width else 0.0
    return half, f"is at {percent(half)}"
