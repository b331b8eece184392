"""Whether the launches of one cell are what a median and its interval take them for: one group, with no trend.

Each function looks for one thing, says None where it is not seen, and never sees anything in constant values. How large
a difference must be to be of interest depends on the metric and is not judged here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from harness.stats.binomial import at_least
from harness.stats.estimate import Floats

TREND = 0.001
"""How often rounds without a trend may show one: a campaign asks of some thirty cells and metrics."""
FEWEST_BY_CHANCE = 0.005
"""How often as many outliers may come together as a group needs launches."""
OUTLIERS, SHARE = 0.05, 0.2
"""The fraction of launches that may be outliers, and the least that is a group."""
GAP = 36.0
"""How wide a gap must be beside the spread of both groups, times the number of launches: gaps close as launches fill
them. By simulation: see bimodal."""
MOST = 100
"""More values than that are looked at as the medians of so many blocks: what counts is seen in these too."""


@dataclass(frozen=True)
class Drift:
    """A trend: by how much the values changed from the first to the last round, in their unit, and its p-value."""

    change: float
    p: float


@dataclass(frozen=True)
class Modes:
    """Two groups: the medians of the lower and the upper one, and the fraction of the launches that is in the upper."""

    low: float
    high: float
    upper: float


def drift(by_round: Mapping[int, float]) -> Drift | None:
    """A trend over the rounds, which a round's number maps to its value; None where there is none.

    Mann and Kendall's test (H. B. Mann, Econometrica 13, 1945; M. G. Kendall, Rank Correlation Methods), two-sided and
    exact, or by its normal limit where values repeat; the change is the slope of Theil and Sen (P. K. Sen, JASA 63,
    1968) times the rounds. Neither minds outliers nor what the distribution is. It assumes that rounds are independent
    of each other, gives one false alarm in 1 / TREND at most, and none with fewer than 7 rounds.
    """
    order = sorted(by_round)
    rounds, values = (_medians(np.asarray(each, dtype=np.float64)) for each in (order, [by_round[r] for r in order]))
    earlier, later = np.triu_indices(values.size, 1)
    differences = values[later] - values[earlier]
    p = _trend(values, int(np.sign(differences).sum()))
    if p > TREND:
        return None
    slope = float(np.median(differences / (rounds[later] - rounds[earlier])))
    return Drift(slope * (order[-1] - order[0]), p)


def _trend(values: Floats, score: int) -> float:
    """The two-sided p-value of Kendall's score: of all pairs, those that rise less those that fall."""
    n = values.size
    repeated = np.unique(values, return_counts=True)[1]
    if n < 2 or repeated.size == n:
        falling = (n * (n - 1) // 2 - abs(score)) // 2
        return min(1.0, 2 * float(_inversions(n)[: falling + 1].sum()))
    variance = (n * (n - 1) * (2 * n + 5) - (repeated * (repeated - 1) * (2 * repeated + 5)).sum()) / 18
    return math.erfc((abs(score) - 1) / math.sqrt(2 * variance)) if abs(score) > 1 else 1.0


@cache
def _inversions(n: int) -> Floats:
    """How probable each number of falling pairs is in a random order: value k falls behind 0 to k - 1 others."""
    chances = np.ones(1)
    for k in range(2, n + 1):
        chances = np.convolve(chances, np.full(k, 1 / k))
    return chances


def bimodal(values: Sequence[float]) -> Modes | None:
    """Two groups with a gap between them that is wide beside their spread; None where it is not so.

    Both must have SHARE of the launches, and more than outliers come to. The gap of each split is divided by the sum of
    both groups' interquartile ranges; the largest decides. A gap criterion and not the dip test (J. A. and P. M.
    Hartigan, Annals of Statistics 13, 1985), which sees next to nothing in ten launches.

    False alarms by simulation (log-normal, sigma 0.02 to 0.7, 5 % of the launches 1.5 to 5 times as large, n = 7 to
    1000) and power are in docs/METHOD.md.
    """
    ordered = _medians(np.sort(np.asarray(values, dtype=np.float64)))
    n = ordered.size
    least = _fewest(n)
    below = np.arange(least, n - least + 1)  # how many are in the lower group
    if not below.size:
        return None
    gaps = ordered[below] - ordered[below - 1]
    spreads = _between_quartiles(ordered, 0 * below, below) + _between_quartiles(ordered, below, n - below)
    excess = gaps - GAP / n * spreads
    best = int(np.argmax(np.divide(gaps, spreads, out=np.where(gaps > 0, np.inf, 0.0), where=spreads > 0)))
    if not (gaps[best] > 0 and excess[best] > 0):
        return None
    split = int(below[best])
    return Modes(float(np.median(ordered[:split])), float(np.median(ordered[split:])), 1 - split / n)


@cache
def _fewest(n: int) -> int:
    """The fewest of n launches that are a group."""
    least = max(3, math.ceil(SHARE * n))
    while at_least(least, n, OUTLIERS) > FEWEST_BY_CHANCE:
        least += 1
    return least


def _between_quartiles(ordered: Floats, first: np.ndarray, size: np.ndarray) -> Floats:
    """The interquartile range of each stretch of ordered values that begins at `first` and has `size` of them."""
    places = np.arange(ordered.size)
    low, high = (np.interp(first + quarter * (size - 1), places, ordered) for quarter in (0.25, 0.75))
    return high - low


def _medians(values: Floats) -> Floats:
    """The values, or the medians of MOST blocks of them in their order where there are more.

    Of very many the last few, which fill no block, are left out.
    """
    if values.size <= MOST:
        return values
    if values.size < 10 * MOST:
        return np.array([np.median(block) for block in np.array_split(values, MOST)])
    size = values.size // MOST
    medians: Floats = np.median(values[: size * MOST].reshape(MOST, size), axis=1)
    return medians
