"""What launches of one campaign tell of one number: a median with an interval, and a ratio of two medians."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from harness.stats.binomial import half_cdf, half_quantile

CONFIDENCE = 0.95
RESAMPLES = 9999
FEWEST_ROUNDS = 3  # two rounds resampled give three outcomes: no interval worth printing
MANY_ROUNDS = 1000
"""From so many on the bootstrap takes its limit for many rounds, which they agree with to a digit."""

Floats = np.ndarray[tuple[int], np.dtype[np.float64]]


@dataclass(frozen=True)
class Estimate:
    """A median and its interval, in the unit of the values.

    `coverage` is what the interval reaches at the least; below `confidence` where `n` is too small for it.
    """

    median: float
    low: float
    high: float
    n: int
    coverage: float
    confidence: float


@dataclass(frozen=True)
class Ratio:
    """A median divided by the reference's, over the `n` rounds that both have.

    `low` and `high` are None where fewer than FEWEST_ROUNDS rounds are shared.
    """

    ratio: float
    low: float | None
    high: float | None
    n: int
    confidence: float


def median_interval(values: Sequence[float], confidence: float = CONFIDENCE) -> Estimate:
    """The median and the narrowest symmetric pair of order statistics that covers the true one often enough.

    The number of values below the true median is binomial(n, 1/2) whatever the distribution, so [x(k), x(n+1-k)]
    covers it with probability 1 - 2 P(B < k), or more where values repeat (David & Nagaraja, Order Statistics, 3rd
    edition, section 7.1). Nothing is assumed but independent launches. Where even the whole range falls short (n < 6
    at 95 %), the range is given with the coverage that it has: none at all for a single value.

    Raises ValueError without values, on one that is not finite, and on a confidence outside (0, 1).
    """
    ordered = np.sort(_finite(values))
    if not 0 < confidence < 1:
        raise ValueError(f"a confidence of {confidence} is not between 0 and 1")
    n = ordered.size
    k = max(1, half_quantile((1 - confidence) / 2, n))
    return Estimate(
        median=float(np.median(ordered)),
        low=float(ordered[k - 1]),
        high=float(ordered[n - k]),
        n=n,
        coverage=1 - 2 * half_cdf(k - 1, n),
        confidence=confidence,
    )


def ratio_interval(
    values: Mapping[int, float], reference: Mapping[int, float], confidence: float = CONFIDENCE, seed: int = 0
) -> Ratio | None:
    """The ratio of two medians, with a percentile interval from a bootstrap of whole rounds.

    Both arguments map a round to its value. Rounds are drawn, not launches: what a round did to one target it did
    to the other, and that must not be counted as noise (Efron & Tibshirani, An Introduction to the Bootstrap, sections
    8.2 and 13.3). Only rounds that both have are used. The same seed gives the same interval; constant data give an
    exact one. With few rounds a percentile interval is too narrow rather than too wide: verdicts come from elsewhere.

    None where no round is shared or the reference's median is 0 in any draw. Raises ValueError on a value that is
    not finite.
    """
    rounds = sorted(values.keys() & reference.keys())
    if not rounds:
        return None
    ours, theirs = _finite([values[r] for r in rounds]), _finite([reference[r] for r in rounds])
    if np.median(theirs) == 0:
        return None
    ratio = float(np.median(ours) / np.median(theirs))
    if len(rounds) < FEWEST_ROUNDS:
        return Ratio(ratio, None, None, len(rounds), confidence)
    if len(rounds) < MANY_ROUNDS:
        above, below = (_medians(series.tobytes(), seed) for series in (ours, theirs))
    else:
        above, below = _many_medians(ours, theirs, np.random.default_rng(seed))
    if not below.all():
        return None
    tail = (1 - confidence) / 2
    low, high = np.quantile(above / below, [tail, 1 - tail])
    return Ratio(ratio, float(low), float(high), len(rounds), confidence)


@lru_cache(maxsize=512)
def _medians(values: bytes, seed: int) -> Floats:
    """Return the median in each of RESAMPLES draws of as many rounds. values: an array of float64, as bytes.

    The rounds that are drawn depend only on the number of rounds and the seed, so that the draws of two series are of
    the same rounds. A campaign's series are in many ratios: their medians are kept.
    """
    series = np.frombuffer(values)
    drawn = np.random.default_rng(seed).integers(0, series.size, size=(RESAMPLES, series.size))
    return np.asarray(np.median(series[drawn], axis=1))


def _many_medians(ours: Floats, theirs: Floats, chance: np.random.Generator) -> tuple[Floats, Floats]:
    """Return the medians of both series without drawing rounds, for so many that the draws would take seconds.

    The median of a draw is one of the values. It is among the k least where at least half of n draws fall on these, of
    which there are binomial(n, k/n): so its rank is normal, with mean n/2 and variance n/4. The ranks of two series of
    the same rounds are as correlated as being below one's median and below the other's.
    """
    n, low = ours.size, ours.size // 2
    ordered = [np.argsort(values, kind="stable") for values in (ours, theirs)]
    below = np.zeros(n, dtype=bool)
    below[ordered[0][:low]] = True
    correlation = (np.count_nonzero(below[ordered[1][:low]]) * n - low * low) / (low * (n - low))
    first, second = chance.standard_normal((2, RESAMPLES))
    normals = (first, correlation * first + np.sqrt(1 - correlation**2) * second)
    chosen = (np.clip(np.ceil(n / 2 + np.sqrt(n) / 2 * normal).astype(int), 1, n) - 1 for normal in normals)
    mine, others = (order[ranks] for order, ranks in zip(ordered, chosen, strict=True))
    return ours[mine], theirs[others]


def _finite(values: Sequence[float]) -> Floats:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or array.size == 0:
        raise ValueError("an estimate needs at least one value")
    if not np.isfinite(array).all():
        raise ValueError("an estimate needs finite values")
    return array
