"""Who is measured when: every round visits every cell once, in an order that the seed decides."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import TypeVar

from harness.model import Phase

Cell = TypeVar("Cell")

LEAST, MOST = 10, 1000
"""Measured rounds where a precision decides how many: fewer tell too little of it, more are a night of their own."""


def schedule(cells: Sequence[Cell], rounds: int, seed: int) -> Iterator[tuple[int, Phase, list[Cell]]]:
    """(round, phase, cells in their order): round 0 warms up, then come `rounds` measured ones."""
    order = random.Random(seed)
    for number in range(rounds + 1):
        yield number, "measured" if number else "warmup", order.sample(cells, len(cells))
