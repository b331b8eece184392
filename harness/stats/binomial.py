"""Binomial probabilities: computed here for up to EXACT trials, by SciPy for more.

Importing SciPy takes longer than everything else that a campaign's table needs, and few campaigns exceed EXACT.
"""

from __future__ import annotations

import math
from fractions import Fraction
from functools import cache

EXACT = 1000
"""Also the maximum number of rounds with --precision, so that such a campaign needs no SciPy while it measures."""


@cache
def half_cdf(k: int, n: int) -> float:
    """Return P(B <= k) for B binomial(n, 1/2), correctly rounded for n <= EXACT."""
    if n > EXACT:
        from scipy import special

        return float(special.bdtr(k, n, 0.5))
    return sum(math.comb(n, i) for i in range(min(k, n) + 1)) / (1 << n)


@cache
def half_quantile(probability: float, n: int) -> int:
    """Return the least k for which P(B <= k) is at least `probability`, B binomial(n, 1/2)."""
    if n > EXACT:
        from scipy import special

        k = max(0, math.ceil(special.bdtrik(probability, n, 0.5)))
        return k - 1 if k and half_cdf(k - 1, n) >= probability else k
    least, total = Fraction(probability) * (1 << n), 1
    k = 0
    while total < least:
        k += 1
        total += math.comb(n, k)
    return k


def at_least(k: int, n: int, p: float) -> float:
    """Return P(B >= k) for B binomial(n, p) and 0 < p < 1."""
    if n > EXACT:
        from scipy import special

        return float(special.bdtrc(k - 1, n, p))
    inside, outside = math.log(p), math.log1p(-p)
    return math.fsum(math.exp(math.log(math.comb(n, i)) + i * inside + (n - i) * outside) for i in range(k, n + 1))
