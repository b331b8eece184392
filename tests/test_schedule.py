"""The order of runs: every round visits every cell once, and the seed decides how."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from harness.schedule import schedule

cells = st.lists(st.text(), unique=True, max_size=12)


@given(cells=cells, rounds=st.integers(1, 20), seed=st.integers())
def test_every_round_visits_every_cell_once(cells: list[str], rounds: int, seed: int) -> None:
    visits = list(schedule(cells, rounds, seed))
    assert [number for number, _, _ in visits] == list(range(rounds + 1))
    assert [phase for _, phase, _ in visits] == ["warmup"] + ["measured"] * rounds
    for _, _, order in visits:
        assert sorted(order) == sorted(cells)


@given(cells=cells, rounds=st.integers(1, 20), seed=st.integers())
def test_the_seed_is_all_that_decides(cells: list[str], rounds: int, seed: int) -> None:
    assert list(schedule(cells, rounds, seed)) == list(schedule(cells, rounds, seed))


def test_rounds_and_seeds_differ() -> None:
    def orders(seed: int) -> set[tuple[str, ...]]:
        return {tuple(order) for _, _, order in schedule("abcd", 30, seed)}

    assert len(orders(1)) > 10
    assert list(schedule("abcd", 30, 1)) != list(schedule("abcd", 30, 2))


def test_no_cell_has_a_fixed_place() -> None:
    """Whoever always came after the same one, or always first, would inherit its warm caches."""
    orders = [order for _, _, order in schedule("abc", 300, 7)]
    for place in range(3):
        for cell in "abc":
            assert 60 < sum(order[place] == cell for order in orders) < 140
