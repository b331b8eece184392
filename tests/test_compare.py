"""Base against head: the tests and intervals against SciPy and simulation, verdicts on data with a known truth."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from harness import comparison, gate, store
from harness.comparison import Compared
from harness.errors import BadInput, Incomparable
from harness.model import Side, UnavailableRecord
from harness.stats import compare
from tests.campaigns import MIB, Series, write

changes = st.lists(st.floats(-1, 1, allow_nan=False).map(lambda value: round(value, 6)), min_size=1, max_size=25)


@pytest.mark.parametrize("n", [5, 10, 30, 60, 250])
def test_signed_ranks_agree_with_scipy(n: int) -> None:
    values = np.random.default_rng(n).normal(0.02, 0.05, n)
    ours = compare.paired(values.tolist(), 0.01)
    method: Any = "exact" if n <= compare.EXACT else "approx"
    alternative: Any
    for alternative, shift, p in (("greater", -0.01, ours.worse), ("less", 0.01, ours.better)):
        theirs: Any = stats.wilcoxon(values + shift, alternative=alternative, method=method, correction=True)
        assert p == pytest.approx(theirs.pvalue, rel=1e-6)


@given(changes)
def test_the_interval_holds_what_its_test_does_not_reject(values: list[float]) -> None:
    found = compare.paired(values, 0.0)
    assert found.low <= found.estimate <= found.high
    tail = (1 - compare.CONFIDENCE) / 2
    if compare.fewest_rounds(tail) <= len(values):  # else the interval is the range, and the test rejects nothing
        below, above = (compare.paired(values, margin).worse for margin in (found.low - 1e-9, found.high + 1e-9))
        assert below <= tail
        assert above > tail


@given(changes, st.floats(0, 0.5))
def test_a_comparison_turned_round_says_the_opposite(values: list[float], margin: float) -> None:
    ours, theirs = compare.paired(values, margin), compare.paired([-value for value in values], margin)
    assert (ours.worse, ours.better) == pytest.approx((theirs.better, theirs.worse))
    assert (ours.low, ours.high) == pytest.approx((-theirs.high, -theirs.low))


def test_constant_changes_are_exact() -> None:
    found = compare.paired([0.1] * 10, 0.02)
    assert (found.low, found.estimate, found.high, found.worse) == (0.1, 0.1, 0.1, 2**-10)
    assert found.smallest == pytest.approx(0.02)


@pytest.mark.parametrize("values", [[], [math.nan], [math.inf, 1.0]])
def test_changes_that_are_no_numbers_are_refused(values: list[float]) -> None:
    with pytest.raises(ValueError, match="finite"):
        compare.paired(values, 0.0)


def test_too_few_rounds_can_decide_nothing_and_say_so() -> None:
    assert compare.paired([0.5] * 4, 0.0, alpha=0.05).smallest is None
    assert compare.paired([0.5] * compare.fewest_rounds(0.05), 0.0, alpha=0.05).smallest is not None


def test_a_prediction_agrees_with_the_two_sample_t_of_one_against_many() -> None:
    base = np.random.default_rng(3).normal(0, 0.03, 7)
    found = compare.predicted(base.tolist(), [0.09], 0.0)
    theirs: Any = stats.ttest_ind(
        [0.09], base, alternative="greater"
    )  # one has no spread: the pooled one is the base's
    assert found.worse == pytest.approx(theirs.pvalue)
    interval = stats.ttest_ind([0.09], base).confidence_interval(compare.CONFIDENCE)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))


def test_a_prediction_finds_its_smallest_effect_as_often_as_it_says() -> None:
    chance, found, smallest = np.random.default_rng(1), 0, []
    for _ in range(4000):
        base = chance.normal(0, 1, 5)
        smallest.append(compare.predicted(base.tolist(), [0.0], 0.0).smallest)
    effect = float(np.sqrt(np.mean(np.square(np.array(smallest, dtype=float)))))
    for _ in range(4000):
        found += compare.predicted(chance.normal(0, 1, 5).tolist(), [chance.normal(effect, 1)], 0.0).worse <= 0.05
    assert abs(found / 4000 - compare.POWER) < 0.05


def test_holm_agrees_with_its_definition() -> None:
    assert compare.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert compare.holm([0.5, 0.9]) == [1.0, 1.0]
    assert compare.holm([]) == []


def interleaved(path: Path, base: Series, head: Series, **more: Any) -> Compared:
    sides: dict[Side, Series] = {"base": base, "head": head}
    return comparison.interleaved(store.read(write(path / "ab.jsonl", sides, **more)), gate.default())


def verdict(compared: Compared, metric: str, target: str = "docker") -> str:
    return next(each.verdict for each in compared.comparisons if (each.metric, each.target) == (metric, target))


def noisy(seed: int, factor: float = 1.0, n: int = 30, spread: float = 0.03) -> list[float | None]:
    values = factor * 0.2 * np.exp(np.random.default_rng(seed).normal(0, spread, n))
    return [float(value) for value in values]


@pytest.mark.parametrize(
    ("factor", "wanted"), [(1.0, "unchanged"), (1.3, "regressed"), (0.7, "improved"), (1.1, "undecided")]
)
def test_the_verdict_is_the_truth(tmp_path: Path, factor: float, wanted: str) -> None:
    compared = interleaved(tmp_path, {"docker": noisy(1)}, {"docker": noisy(2, factor)})
    assert verdict(compared, "startup.total") == wanted
    assert {verdict(compared, metric) for metric in ("memory.pss", "disk.instance", "disk.shared")} == {"unchanged"}


@pytest.mark.parametrize(
    ("what", "metric", "from_", "to"),
    [
        ("pss", "memory.pss", 8 * MIB, 8.8 * MIB),
        ("disk", "disk.instance", 4 * MIB, 4.4 * MIB),
        ("image", "disk.shared", 4 * MIB, 4.4 * MIB),
        ("disk", "disk.instance", 0, 4 * MIB),
        ("image", "disk.shared", 0, 4 * MIB),
    ],
)
def test_memory_and_disk_regress_too(tmp_path: Path, what: str, metric: str, from_: float, to: float) -> None:
    series: Series = {"docker": noisy(1)}
    compared = interleaved(tmp_path, series, series, **{what: {"base": from_, "head": to}})
    found = next(each for each in compared.comparisons if each.metric == metric)
    assert found.verdict == "regressed"
    assert found.relative == bool(from_)
    assert found.change == pytest.approx(0.1 if from_ else to)
    assert (found.low, found.high) == (found.change, found.change)
    turned = interleaved(tmp_path, series, series, **{what: {"base": to, "head": from_}})
    assert verdict(turned, metric) == "improved"


def test_a_change_below_the_floor_is_of_no_interest(tmp_path: Path) -> None:
    fast: list[float | None] = [0.001] * 20
    slower: list[float | None] = [0.0014] * 20  # 40 % more, and 0.4 ms
    assert verdict(interleaved(tmp_path, {"docker": fast}, {"docker": slower}), "startup.total") == "unchanged"


def test_one_round_decides_nothing_and_says_what_would(tmp_path: Path) -> None:
    compared = interleaved(tmp_path, {"docker": [0.2]}, {"docker": [0.4]})
    found = next(each for each in compared.comparisons if each.metric == "startup.total")
    assert found.verdict == "undecided"
    assert found.reason == "1 rounds can decide nothing here, 6 can"
    enough = interleaved(tmp_path, {"docker": [0.2] * 6}, {"docker": [0.4] * 6})
    assert verdict(enough, "startup.total") == "regressed"


def test_the_rounds_that_are_said_to_decide_do(tmp_path: Path) -> None:
    compared = interleaved(
        tmp_path, {"docker": noisy(1, n=12, spread=0.1)}, {"docker": noisy(5, 1.2, n=12, spread=0.1)}
    )
    found = next(each for each in compared.comparisons if each.metric == "startup.total")
    assert found.verdict == "undecided"
    rounds = int(found.reason.removeprefix("about ").partition(" ")[0])
    assert rounds > 12
    base, head = noisy(3, n=2 * rounds, spread=0.1), noisy(4, 1.2, n=2 * rounds, spread=0.1)
    more = interleaved(tmp_path, {"docker": base}, {"docker": head})
    assert verdict(more, "startup.total") == "regressed"


def test_a_head_that_fails_is_no_improvement(tmp_path: Path) -> None:
    compared = interleaved(tmp_path, {"docker": noisy(1)}, {"docker": [None] * 30})
    assert compared.head_failed == 30
    assert {each.verdict for each in compared.comparisons if each.metric != "disk.shared"} == {"undecided"}
    assert all("30 launches failed" in each.reason for each in compared.comparisons if each.metric == "memory.pss")


def test_only_rounds_that_both_have_are_compared(tmp_path: Path) -> None:
    head = noisy(2, 1.3)
    head[3:6] = [None] * 3
    compared = interleaved(tmp_path, {"docker": noisy(1)}, {"docker": head})
    found = next(each for each in compared.comparisons if each.metric == "startup.total")
    assert (found.n, found.verdict, compared.head_failed) == (27, "regressed", 3)


def separate(path: Path, factors: list[float], head: float, **more: Any) -> Compared:
    def one(number: int, factor: float) -> store.Result:
        return store.read(write(path / f"{number}.jsonl", {None: {"docker": noisy(number, factor, 10)}}))

    base = [one(number, factor) for number, factor in enumerate(factors)]
    return comparison.campaigns(base, [one(99, head)], gate.default(), **more)


@pytest.mark.parametrize(("head", "wanted"), [(1.0, "unchanged"), (1.6, "regressed"), (0.6, "improved")])
def test_five_campaigns_give_a_verdict(tmp_path: Path, head: float, wanted: str) -> None:
    compared = separate(tmp_path, [1.0, 1.01, 0.99, 1.02, 1.0], head)
    assert verdict(compared, "startup.total") == wanted
    assert verdict(compared, "disk.shared") == "unchanged"


def test_fewer_campaigns_give_none_however_large_the_change(tmp_path: Path) -> None:
    compared = separate(tmp_path, [1.0] * 4, 100.0)
    assert {each.verdict for each in compared.comparisons} == {"undecided"}
    assert "4 campaigns against 1, not interleaved" in compared.comparisons[0].reason


def test_a_baseline_that_scatters_is_no_reason_for_alarm(tmp_path: Path) -> None:
    compared = separate(tmp_path, [1.0, 1.2, 0.85, 1.1, 0.95], 1.25)
    assert verdict(compared, "startup.total") == "undecided"


def test_hosts_that_differ_are_not_comparable_unless_it_is_allowed_by_name(tmp_path: Path) -> None:
    one = store.read(write(tmp_path / "a.jsonl", {None: {"docker": noisy(1)}}))
    other = store.read(
        write(tmp_path / "b.jsonl", {None: {"docker": noisy(2)}}, gating={"kernel": "6.2"}, version="24.0")
    )
    with pytest.raises(Incomparable, match=r"kernel: 6.1 or 6.2; docker version: 20.10 or 24.0"):
        comparison.campaigns([one], [other], gate.default())
    with pytest.raises(Incomparable, match=r"docker version") as refused:
        comparison.campaigns([one], [other], gate.default(), ["kernel"])
    assert "kernel:" not in str(refused.value)
    compared = comparison.campaigns([one], [other], gate.default(), ["kernel", "docker version"])
    assert "kernel differs: 6.1 or 6.2" in compared.notes
    with pytest.raises(BadInput, match="cores: it does not differ"):
        comparison.campaigns([one], [other], gate.default(), ["kernel", "docker version", "cores"])


def test_what_only_one_side_has_is_told_with_its_reason(tmp_path: Path) -> None:
    both: Series = {"docker": noisy(1), "host": noisy(3)}
    base = store.read(write(tmp_path / "a.jsonl", {None: both}))
    absent = UnavailableRecord("host", "chroot(8) needs root", "run as root")
    head = store.read(write(tmp_path / "b.jsonl", {None: {"docker": noisy(2)}}, unavailable=[absent]))
    compared = comparison.campaigns([base], [head], gate.default())
    assert compared.missing == ("head has not measured host with hello: chroot(8) needs root",)


def test_nothing_in_common_is_one_line(tmp_path: Path) -> None:
    one, other = (
        store.read(write(tmp_path / f"{name}.jsonl", {None: {name: noisy(1)}})) for name in ("docker", "host")
    )
    with pytest.raises(Incomparable, match="no target with the same workload"):
        comparison.campaigns([one], [other], gate.default())
    with pytest.raises(BadInput, match="given twice"):
        comparison.campaigns([one], [one], gate.default())
    with pytest.raises(BadInput, match="holds no two sides"):
        comparison.interleaved(one, gate.default())


def test_a_threshold_for_what_nobody_recorded_is_one_line(tmp_path: Path) -> None:
    sides: dict[Side, Series] = {"base": {"docker": noisy(1)}, "head": {"docker": noisy(2)}}
    result = store.read(write(tmp_path / "ab.jsonl", sides))
    with pytest.raises(BadInput, match=r"a threshold for cpu.start, and neither side recorded any"):
        comparison.interleaved(result, gate.parse("cpu.start:5%"))


def test_a_stand_in_is_never_compared(tmp_path: Path) -> None:
    result = store.read(write(tmp_path / "fake.jsonl", {None: {"fake": noisy(1)}}))
    with pytest.raises(BadInput, match="stand-in"):
        comparison.campaigns([], [result], gate.default())


def test_what_is_not_confirmed_is_undecided(tmp_path: Path) -> None:
    regressed = interleaved(tmp_path, {"docker": noisy(1)}, {"docker": noisy(2, 1.3)})
    calm = interleaved(tmp_path, {"docker": noisy(3)}, {"docker": noisy(4)})
    unconfirmed = comparison.confirmed(regressed, calm)
    assert not unconfirmed.of("regressed")
    assert "unchanged when it was measured again" in unconfirmed.of("undecided")[0].reason
    assert comparison.confirmed(regressed, regressed).of("regressed") == regressed.of("regressed")
    assert comparison.confirmed(calm, regressed).of("regressed") == []
