"""Binomial probabilities agree with SciPy's, on either side of the limit up to which they are our own."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest
from scipy import special

from harness.stats import binomial
from harness.stats.binomial import EXACT

SIZES = [*range(1, 60), 100, 999, EXACT, EXACT + 1, 5000]


@pytest.mark.parametrize("n", SIZES)
def test_half_cdf_is_scipys(n: int) -> None:
    for k in {0, 1, n // 3, n // 2, n - 1, n}:
        assert math.isclose(binomial.half_cdf(k, n), special.bdtr(k, n, 0.5), rel_tol=1e-11)


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("probability", [1e-6, 0.005, 0.025, 0.05, 0.25, 0.4999, 0.5, 0.9])
def test_half_quantile_is_the_least_that_reaches_the_probability(n: int, probability: float) -> None:
    k = binomial.half_quantile(probability, n)
    assert binomial.half_cdf(k, n) >= probability
    assert k == 0 or binomial.half_cdf(k - 1, n) < probability


@pytest.mark.parametrize("n", SIZES)
def test_at_least_is_scipys(n: int) -> None:
    for k in {1, n // 5, n // 3, n}:
        assert math.isclose(binomial.at_least(k, n, 0.05), special.bdtrc(k - 1, n, 0.05), rel_tol=1e-9, abs_tol=1e-300)


def test_table_of_a_campaign_is_made_without_scipy_and_pandas() -> None:
    program = """
import sys
from pathlib import Path
from harness.cli.telling import show_table
show_table([Path("results/sample.jsonl")])
loaded = {name.partition(".")[0] for name in sys.modules} & {"scipy", "pandas", "matplotlib", "jinja2"}
assert not loaded, loaded
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Start-up" in done.stdout
