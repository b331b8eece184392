"""How often the nominal 95 % intervals hold the truth, by simulation."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from harness.stats import compare
from harness.stats.estimate import CONFIDENCE, median_interval, ratio_interval
from selfbench.proofs.finding import Finding

REPETITIONS = 2000
ROUNDS = (10, 30, 100)
CAMPAIGNS = (5, 10, 30)
SPREADS = (0.05, 0.3)
"""Standard deviations of the logs of launches; rounds, which both sides share, have half of it."""
OUTLIERS, FAR = 0.05, 3.0
AT_LEAST = 0.93

Array = np.ndarray[tuple[int], np.dtype[np.float64]]
Interval = Callable[[int, float, np.random.Generator], tuple[float, float, float]]
"""(low, true value, high) of n simulated launches, rounds or campaigns that scatter so much."""


def findings(seed: int, repetitions: int = REPETITIONS) -> Iterator[Finding]:
    for name, interval, counts in (
        ("a median", _median, ROUNDS),
        ("a ratio of medians", _ratio, ROUNDS),
        ("a change of interleaved sides", _paired, ROUNDS),
        ("a change of campaigns", _predicted, CAMPAIGNS),
    ):
        for count in counts:
            for spread in SPREADS:
                chance = np.random.default_rng([seed, count, round(1000 * spread), *map(ord, name)])
                held = sum(low <= true <= high for low, true, high in (
                    interval(count, spread, chance) for _ in range(repetitions)
                ))  # fmt: skip
                question = f"{CONFIDENCE:.0%} interval of {name}, n={count}, {spread:.0%} a launch: holds the truth"
                yield Finding(
                    proof="coverage", question=question, count=held, of=repetitions, at_least=AT_LEAST, simulated=True
                )  # fmt: skip


def _launches(count: int, spread: float, chance: np.random.Generator) -> Array:
    """Of a median of 1: outliers are far on either side, so that they leave it where it is."""
    far = np.where(chance.random(count) < OUTLIERS, chance.uniform(1, FAR, count), 1.0)
    values: Array = np.exp(chance.normal(0, spread, count)) * far ** chance.choice([-1, 1], count)
    return values


def _sides(count: int, spread: float, chance: np.random.Generator) -> tuple[Array, Array]:
    """Two sides with a ratio of 1 that share the effects of their rounds."""
    rounds = np.exp(chance.normal(0, spread / 2, count))
    return rounds * _launches(count, spread, chance), rounds * _launches(count, spread, chance)


def _median(count: int, spread: float, chance: np.random.Generator) -> tuple[float, float, float]:
    found = median_interval(_launches(count, spread, chance).tolist())
    return found.low, 1.0, found.high


def _ratio(count: int, spread: float, chance: np.random.Generator) -> tuple[float, float, float]:
    ours, theirs = (dict(enumerate(side.tolist())) for side in _sides(count, spread, chance))
    found = ratio_interval(ours, theirs, seed=int(chance.integers(2**31)))
    assert found is not None  # nothing simulated here is 0
    assert found.low is not None
    assert found.high is not None
    return found.low, 1.0, found.high


def _paired(count: int, spread: float, chance: np.random.Generator) -> tuple[float, float, float]:
    base, head = _sides(count, spread, chance)
    found = compare.paired((np.log(head) - np.log(base)).tolist(), 0.0)
    return found.low, 0.0, found.high


def _predicted(count: int, spread: float, chance: np.random.Generator) -> tuple[float, float, float]:
    found = compare.predicted(chance.normal(0, spread, count).tolist(), [float(chance.normal(0, spread))], 0.0)
    return found.low, 0.0, found.high
