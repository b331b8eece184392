"""The median's interval and the ratio of medians: against SciPy, against simulation, and at their edges."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from harness.stats import estimate
from harness.stats.estimate import FEWEST_ROUNDS, MANY_ROUNDS, median_interval, ratio_interval

finite = st.floats(min_value=-1e12, max_value=1e12, allow_nan=False)
positive = st.floats(min_value=1e-6, max_value=1e12, allow_nan=False)


@pytest.mark.parametrize("n", range(6, 40))
def test_median_interval_agrees_with_scipy(n: int) -> None:
    values = np.random.default_rng(n).lognormal(size=n)
    ours = median_interval(values.tolist())
    theirs: Any = stats.quantile_test(values, q=1.0, p=0.5).confidence_interval(0.95)
    assert (ours.low, ours.high) == (theirs.low, theirs.high)


@pytest.mark.parametrize("n", [7, 8, 10, 15, 20, 30])
def test_median_interval_covers_the_true_median_as_often_as_it_says(n: int) -> None:
    rng = np.random.default_rng(20250611)
    campaigns = rng.lognormal(mean=-3, sigma=0.7, size=(4000, n))
    estimates = [median_interval(campaign) for campaign in campaigns]
    covered = np.mean([estimate.low <= math.exp(-3) <= estimate.high for estimate in estimates])
    said = estimates[0].coverage
    assert said >= 0.95
    # Four standard errors of a simulated proportion: wide enough never to fail by chance with this seed or another.
    assert abs(covered - said) < 4 * math.sqrt(said * (1 - said) / 4000) + 1e-9


@pytest.mark.parametrize(("n", "coverage"), [(1, 0.0), (2, 0.5), (3, 0.75), (4, 0.875), (5, 0.9375)])
def test_too_few_values_give_the_whole_range_and_say_what_it_covers(n: int, coverage: float) -> None:
    estimate = median_interval(list(range(n)))
    assert (estimate.low, estimate.high) == (0, n - 1)
    assert estimate.coverage == pytest.approx(coverage)
    assert estimate.coverage < estimate.confidence


def test_seven_launches_need_their_whole_range_and_nine_do_not() -> None:
    assert (median_interval(range(7)).low, median_interval(range(7)).high) == (0, 6)
    assert (median_interval(range(9)).low, median_interval(range(9)).high) == (1, 7)


@given(finite, st.integers(1, 30))
def test_constant_values_give_an_exact_interval(value: float, n: int) -> None:
    estimate = median_interval([value] * n)
    assert estimate.low == estimate.median == estimate.high == value


@given(st.lists(finite, min_size=1, max_size=40))
def test_the_interval_holds_the_median_and_stays_within_the_values(values: list[float]) -> None:
    estimate = median_interval(values)
    assert min(values) <= estimate.low <= estimate.median <= estimate.high <= max(values)
    assert estimate.n == len(values)
    assert estimate == median_interval(values[::-1])


@pytest.mark.parametrize("values", [[], [math.nan], [1.0, math.inf]])
def test_values_that_are_no_data_are_refused(values: list[float]) -> None:
    with pytest.raises(ValueError, match="an estimate needs"):
        median_interval(values)


@pytest.mark.parametrize("confidence", [0, 1, 95])
def test_a_confidence_that_is_no_probability_is_refused(confidence: float) -> None:
    with pytest.raises(ValueError, match="not between 0 and 1"):
        median_interval([1.0], confidence)


def test_ratio_pairs_rounds_so_that_a_drifting_machine_cancels_out() -> None:
    drift = {r: 1.5**r for r in range(12)}
    ratio = ratio_interval({r: 3 * value for r, value in drift.items()}, drift)
    assert ratio is not None
    assert (ratio.ratio, ratio.low, ratio.high) == pytest.approx((3, 3, 3))
    # The same values in other rounds: now the drift is noise, and the interval has to show it.
    unpaired = ratio_interval({11 - r: 3 * value for r, value in drift.items()}, drift)
    assert unpaired is not None and unpaired.low is not None and unpaired.high is not None
    assert unpaired.high / unpaired.low > 2


@given(positive, positive, st.integers(FEWEST_ROUNDS, 12))
def test_ratio_of_constants_is_exact(ours: float, theirs: float, rounds: int) -> None:
    ratio = ratio_interval(dict.fromkeys(range(rounds), ours), dict.fromkeys(range(rounds), theirs))
    assert ratio is not None
    assert ratio.low == ratio.ratio == ratio.high == ours / theirs


def test_ratio_uses_common_rounds_only_and_needs_three_for_an_interval() -> None:
    two = ratio_interval({1: 2.0, 2: 4.0, 9: 1e9}, {1: 1.0, 2: 2.0, 8: 1e-9})
    assert two is not None
    assert (two.ratio, two.low, two.high, two.n) == (2.0, None, None, 2)
    assert ratio_interval({1: 1.0}, {2: 1.0}) is None
    assert ratio_interval({}, {}) is None


def test_ratio_to_nothing_is_no_number() -> None:
    assert ratio_interval({1: 1.0, 2: 1.0, 3: 1.0}, {1: 0.0, 2: 0.0, 3: 0.0}) is None
    assert ratio_interval({1: 1.0, 2: 1.0, 3: 1.0}, {1: 0.0, 2: 1.0, 3: 1.0}) is None


def test_ratio_is_the_same_each_time_and_holds_what_simulation_expects() -> None:
    rng = np.random.default_rng(3)
    covered = 0
    for _ in range(60):
        machine = rng.lognormal(sigma=0.3, size=20)
        theirs = dict(enumerate(machine * rng.lognormal(sigma=0.1, size=20)))
        ours = dict(enumerate(2 * machine * rng.lognormal(sigma=0.1, size=20)))
        ratio = ratio_interval(ours, theirs)
        assert ratio is not None and ratio.low is not None and ratio.high is not None
        assert ratio == ratio_interval(ours, theirs)
        covered += ratio.low <= 2 <= ratio.high
    assert covered >= 50


@pytest.mark.long
@pytest.mark.parametrize("shared", [0.0, 0.7, 1.0])
@pytest.mark.parametrize("rounds", [MANY_ROUNDS, MANY_ROUNDS + 1, 2501])
def test_many_rounds_give_the_interval_that_drawing_them_would(
    monkeypatch: pytest.MonkeyPatch, rounds: int, shared: float
) -> None:
    """Within a twentieth of its width. shared: how much of what a round does it does to both."""
    chance = np.random.default_rng(5)
    common, own, other = chance.standard_normal((3, rounds))
    ours, theirs = (
        dict(enumerate(np.exp(spread * (shared * common + math.sqrt(1 - shared**2) * mine))))
        for spread, mine in ((0.1, own), (0.2, other))
    )
    told = ratio_interval(ours, theirs)
    monkeypatch.setattr(estimate, "MANY_ROUNDS", math.inf)
    drawn = ratio_interval(ours, theirs)
    assert told and drawn and told.low and told.high and drawn.low and drawn.high
    assert told.ratio == drawn.ratio
    width = drawn.high - drawn.low
    assert told.low == pytest.approx(drawn.low, abs=width / 20)
    assert told.high == pytest.approx(drawn.high, abs=width / 20)


def test_many_rounds_of_the_same_have_an_exact_ratio() -> None:
    varied = dict(enumerate(np.random.default_rng(5).exponential(size=MANY_ROUNDS)))
    constant = dict.fromkeys(varied, 3.0)
    for values in (varied, constant):
        told = ratio_interval({key: 2 * value for key, value in values.items()}, values)
        assert told is not None
        assert (told.ratio, told.low, told.high) == (2.0, 2.0, 2.0)
