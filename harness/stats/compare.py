"""Whether two series differ by more than is of interest: tests, intervals that agree with them, and what they can show.

Everything is about a change: the log of a ratio, or a plain difference where a value of 0 leaves no ratio. Two designs:

* paired: both sides were measured in each round of one campaign. Wilcoxon's signed ranks of the changes of the rounds,
  and as the estimate the median of their Walsh averages (Hollander, Wolfe & Chicken, Nonparametric Statistical Methods,
  3rd edition, sections 3.1 to 3.3). Assumed: a round's change scatters symmetrically about the true one, which it does
  where one side is the other times a factor. The test is of that change, not of two medians.
* predicted: separate campaigns, each of which is one observation. Student's t prediction interval for the head's mean
  from the base's (Hahn & Meeker, Statistical Intervals, 2nd edition, section 4.8), n - 1 degrees of freedom.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import special

ALPHA = 0.05
"""Of one whole comparison, all its headline metrics together: the risk that any of them is wrongly said to have changed
by more than its threshold."""
POWER = 0.8
"""How often the smallest effect would be found."""
CONFIDENCE = 0.95
FEWEST_CAMPAIGNS = 5
EXACT = 200
"""Up to so many rounds the distribution of signed ranks is exact, beyond it normal."""

Floats = np.ndarray[tuple[int], np.dtype[np.float64]]


@dataclass(frozen=True)
class Change:
    """How far head is from base, as `low <= estimate <= high` at CONFIDENCE; `n` rounds, or campaigns of the base.

    worse, better: p-values of "it changed by no more than `margin`", upwards and downwards. margin: what is of no
    interest, as a change. smallest: the least change that would be found with probability POWER, None where so few
    observations could show none. All are on the scale of the change.
    """

    estimate: float
    low: float
    high: float
    n: int
    margin: float
    worse: float
    better: float
    smallest: float | None


def paired(changes: Sequence[float], margin: float, alpha: float = ALPHA) -> Change:
    """The change that the rounds of one campaign show, from the change of each of them.

    alpha: what the strictest test of the family has left, for `smallest`. Raises ValueError without changes and on one
    that is not finite.
    """
    values = np.asarray(changes, dtype=np.float64)
    if values.ndim != 1 or not values.size or not np.isfinite(values).all():
        raise ValueError("a comparison needs finite changes, and one at least")
    n = values.size
    walsh = _walsh(values)
    low, high = _between(walsh, n, (1 - CONFIDENCE) / 2)
    return Change(
        estimate=float(np.median(walsh)),
        low=low,
        high=high,
        n=n,
        margin=margin,
        worse=_p_above(walsh - margin, n),
        better=_p_above(-walsh[::-1] - margin, n),
        smallest=_smallest_paired(walsh, n, margin, alpha),
    )


def lower_bound(changes: Floats, alpha: float) -> float:
    """What the true change is above of, at the level alpha; minus infinity where so few rounds cannot tell."""
    walsh, out = _walsh(changes), _allowed(changes.size, alpha)
    return float(walsh[out]) if out >= 0 else -math.inf


def predicted(base: Sequence[float], head: Sequence[float], margin: float, alpha: float = ALPHA) -> Change:
    """The change from campaigns of the base to those of the head, from one value (a log, or not) of each.

    Raises ValueError for fewer than FEWEST_CAMPAIGNS of the base, or none of the head.
    """
    theirs, ours = np.asarray(base, dtype=np.float64), np.asarray(head, dtype=np.float64)
    if theirs.size < FEWEST_CAMPAIGNS or not ours.size:
        raise ValueError(f"a prediction needs {FEWEST_CAMPAIGNS} campaigns of the base, and one of the head")
    freedom = theirs.size - 1
    # What is the same in all campaigns must not differ from its mean by a rounding.
    spread = 0.0 if np.ptp(theirs) == 0 else float(np.std(theirs, ddof=1))
    estimate = float(np.mean(ours) - (theirs[0] if spread == 0 else np.mean(theirs)))
    error = spread * math.sqrt(1 / theirs.size + 1 / ours.size)
    half = error * float(special.stdtrit(freedom, (1 + CONFIDENCE) / 2))
    critical = float(special.stdtrit(freedom, 1 - alpha))
    return Change(
        estimate=estimate,
        low=estimate - half,
        high=estimate + half,
        n=theirs.size,
        margin=margin,
        worse=_t_above(estimate - margin, error, freedom),
        better=_t_above(-estimate - margin, error, freedom),
        smallest=margin + error * float(special.nctdtrinc(freedom, 1 - POWER, critical)),
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values adjusted for their number: what is at most alpha is rejected at a family-wise error of alpha.

    Source: Holm, A simple sequentially rejective multiple test procedure, Scand. J. Statist. 6 (1979).
    """
    order = np.argsort(p_values, kind="stable")
    adjusted, most, left = [0.0] * len(p_values), 0.0, len(p_values)
    for rank, at in enumerate(order):
        most = max(most, min(1.0, (left - rank) * p_values[at]))
        adjusted[at] = most
    return adjusted


def fewest_rounds(alpha: float) -> int:
    """The least number of rounds at which a paired test can reach alpha: n signs have 2^n outcomes."""
    return math.ceil(-math.log2(alpha))


def rounds_needed(change: Change, alpha: float) -> float:
    """The rounds that would decide, should the estimate and the scatter stay as they are: infinite on the margin."""
    beyond = abs(change.estimate) > change.margin
    tail = special.ndtri(1 - alpha) / special.ndtri((1 + CONFIDENCE) / 2) if beyond else 1.0
    distance = abs(abs(change.estimate) - change.margin)
    half = (change.high - change.low) / 2
    if not distance:
        return math.inf
    return max(change.n * (half * float(tail) / distance) ** 2, fewest_rounds(alpha), change.n + 1)


def campaigns_needed(change: Change, heads: int, alpha: float, most: int) -> float:
    """The campaigns of the base that would, with as many of the head; infinite where `most` would not."""
    tail = 1 - alpha if abs(change.estimate) > change.margin else (1 + CONFIDENCE) / 2
    distance = abs(abs(change.estimate) - change.margin)
    half = (change.high - change.low) / 2
    spread = half / float(special.stdtrit(change.n - 1, (1 + CONFIDENCE) / 2)) / math.sqrt(1 / change.n + 1 / heads)
    for number in range(change.n + 1, most + 1):
        if spread * math.sqrt(1 / number + 1 / heads) * float(special.stdtrit(number - 1, tail)) <= distance:
            return number
    return math.inf


def _walsh(values: Floats) -> Floats:
    """The averages of all pairs, each value's with itself among them, in order."""
    first, second = np.triu_indices(values.size)
    return np.sort((values[first] + values[second]) / 2)


def _p_above(walsh: Floats, n: int) -> float:
    """The probability of signed ranks as high as these, were the true change 0.

    Their sum is the number of Walsh averages above 0 (Tukey); those at 0 are counted as below, which can only make a
    change harder to find.
    """
    return _at_least(n, int(np.count_nonzero(walsh > 0)))


def _between(walsh: Floats, n: int, tail: float) -> tuple[float, float]:
    """The narrowest interval that leaves at most `tail` on either side; the whole range where n is too small."""
    out = max(0, _allowed(n, tail))
    return float(walsh[out]), float(walsh[walsh.size - 1 - out])


def _allowed(n: int, tail: float) -> int:
    """How many Walsh averages may lie outside on one side, so that this happens with a probability of at most `tail`.

    Negative where not even one may.
    """
    most = n * (n + 1) // 2
    low, high = -1, most  # _at_least(n, most - low) <= tail holds for low
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if _at_least(n, most - middle) <= tail else (low, middle)
    return low


def _at_least(n: int, count: int) -> float:
    """P(the sum of positive ranks >= count) where every sign is a toss."""
    if n <= EXACT:
        return float(_upper_tail(n)[count])
    mean, variance = n * (n + 1) / 4, n * (n + 1) * (2 * n + 1) / 24
    return float(special.ndtr((mean - count + 0.5) / math.sqrt(variance)))


@lru_cache(maxsize=64)
def _upper_tail(n: int) -> Floats:
    """P(sum >= 0), P(sum >= 1), ...: every rank is in the sum or not."""
    chances = np.ones(1)
    for rank in range(1, n + 1):
        longer = np.zeros(chances.size + rank)
        longer[: chances.size] += chances / 2
        longer[rank:] += chances / 2
        chances = longer
    return np.append(np.cumsum(chances[::-1])[::-1], 0.0)


def _smallest_paired(walsh: Floats, n: int, margin: float, alpha: float) -> float | None:
    """The lower bound that the strictest test looks at must clear the margin, and so it does POWER of the time.

    Between the estimate and that bound lies what these data show; how far the estimate itself scatters is told by the
    width of the interval, as if it were normal.
    """
    out = _allowed(n, alpha)
    if out < 0:
        return None
    low, high = _between(walsh, n, (1 - CONFIDENCE) / 2)
    scatter = (high - low) / 2 / float(special.ndtri((1 + CONFIDENCE) / 2))
    return margin + float(np.median(walsh) - walsh[out]) + float(special.ndtri(POWER)) * scatter


def _t_above(distance: float, error: float, freedom: int) -> float:
    if error == 0:
        return 0.0 if distance > 0 else 1.0
    return float(special.stdtr(freedom, -distance / error))
