"""What was measured of the program beside a floor: raw values by round, and the limit that their ratio is held to."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping

import msgspec

from harness.stats.estimate import Estimate, Ratio, median_interval, ratio_interval

SEED = 1


class Measurement(msgspec.Struct, frozen=True, kw_only=True):
    """One question, its answer's raw values, and what was promised.

    values: {what was measured: its value in each round}, in SI base units. ours and floor name two of them; where
    floor is None the value of `ours` itself is held to the limit. at_most: the greatest ratio of medians (or, without
    a floor, median) that was promised; None where the figures are only disclosed. at_least: the smallest.
    note: what a reader must know to read the figures. skipped: why it could not be measured here, and then no values.
    """

    key: str
    question: str
    unit: str
    ours: str
    floor: str | None = None
    at_most: float | None = None
    at_least: float | None = None
    values: dict[str, list[float]] = {}
    note: str = ""
    skipped: str | None = None

    def estimates(self) -> dict[str, Estimate]:
        """Median and interval of all that was measured."""
        return {name: median_interval(values) for name, values in self.values.items()}

    def ratio(self) -> Ratio | None:
        """Ours divided by the floor, with an interval from resampling rounds."""
        if self.floor is None or not self.values:
            return None
        ours, floor = (dict(enumerate(self.values[name])) for name in (self.ours, self.floor))
        return ratio_interval(ours, floor)

    @property
    def figure(self) -> float | None:
        """What is held to the limit; None where nothing was measured."""
        if not self.values:
            return None
        ratio = self.ratio()
        return ratio.ratio if ratio else median_interval(self.values[self.ours]).median

    @property
    def reached(self) -> bool | None:
        """Whether what was promised holds; None where nothing was, or nothing was measured."""
        if self.figure is None or (self.at_most is None and self.at_least is None):
            return None
        return not (
            (self.at_most is not None and self.figure > self.at_most)
            or (self.at_least is not None and self.figure < self.at_least)
        )


def interleaved(sides: Mapping[str, Callable[[], float]], rounds: int, seed: int = SEED) -> dict[str, list[float]]:
    """Every side once a round, in seeded random order, after one round that is not kept: {side: its values}."""
    order, chance = list(sides), random.Random(seed)
    values: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds + 1):
        chance.shuffle(order)
        for name in order:
            value = sides[name]()
            if number:
                values[name].append(value)
    return values
