"""The scale of a chart: linear from 0, or logarithmic where the smallest would be a sliver."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from dataclasses import dataclass

from harness.wording import scale

LOG_SPAN = 12.0
"""From so many times the least on, the least would be a sliver on a linear axis."""
_HEADROOM = 1.06
_NICE = (1.0, 2.0, 2.5, 5.0, 10.0)


@dataclass(frozen=True)
class Axis:
    """From `low` to `high` in `unit`. `ticks` are the values that are marked."""

    low: float
    high: float
    log: bool
    unit: str
    ticks: tuple[float, ...]

    def at(self, value: float) -> float:
        """Where a value is, in percent of the length."""
        if not self.log:
            return 100 * value / self.high
        return 100 * math.log(max(value, self.low) / self.low) / math.log(self.high / self.low)

    def marks(self) -> list[tuple[float, str]]:
        return [(self.at(value), tick(value, self.unit)) for value in self.ticks]


def needs_log(values: Iterable[float]) -> bool:
    found = list(values)
    return 0 < min(found, default=0) < max(found, default=0) / LOG_SPAN


def over(values: Iterable[float], unit: str) -> Axis:
    """The axis on which all of these have a place."""
    found = list(values)
    least, most = min(found, default=0.0), max(found, default=0.0)
    if needs_log(found):
        ticks = marks(least / 1.1, most * 1.1, unit)
        return Axis(ticks[0], ticks[-1], True, unit, tuple(ticks[:: math.ceil(len(ticks) / 6)]))
    high = most * _HEADROOM or 1.0
    return Axis(0.0, high, False, unit, tuple(steps(high, unit)))


def marks(least: float, most: float, unit: str) -> list[float]:
    """What a log axis is marked at, from below the least to above the most: 1, 10 and 100 of each unit."""
    found = [ten * (1024.0 if unit == "B" else 1000.0) ** power for power in range(-4, 6) for ten in (1, 10, 100)]
    return found[bisect_right(found, least) - 1 : bisect_left(found, most) + 1]


def tick(value: float, unit: str) -> str:
    size, name = scale(value, unit)
    return f"{value / size:g} {name}".rstrip()


def steps(high: float, unit: str, some: int = 4) -> list[float]:
    """Some round numbers of the unit in which the end is told, from 0."""
    size, _ = scale(high, unit)
    rough = high / size / some
    ten = 10.0 ** math.floor(math.log10(rough))
    step = next(nice * ten for nice in _NICE if nice * ten >= rough * 0.999)
    return [step * number * size for number in range(int(high / size / step) + 1)]
