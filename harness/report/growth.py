"""What the disk of N instances comes to: computed from what they share and what one more adds, and not measured."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from harness.report import axis
from harness.report.axis import Axis
from harness.report.charts import by_workload, campaign_of, key_of, median_of, ran_of
from harness.report.looks import PALETTE
from harness.report.rows import Row
from harness.report.summary import Summary
from harness.wording import Words, quantity

INSTANCES = (1, 10, 100, 1000)
"""For so many the disk is computed."""
STEPS = 40


@dataclass(frozen=True)
class Curve:
    """One target's disk over the number of instances: a path in a box of 100 x 100, and `amounts` at INSTANCES."""

    campaign: str
    target: str
    ran: str
    path: str
    colour: str
    amounts: tuple[str, ...]


@dataclass(frozen=True)
class Growth:
    workload: str
    axis: Axis
    curves: tuple[Curve, ...]
    lacking: tuple[tuple[str, str], ...]


def across() -> list[tuple[float, str]]:
    """Where INSTANCES are from left to right, in percent, and what stands there."""
    return [(100 * math.log10(n) / math.log10(INSTANCES[-1]), f"N = {n}") for n in INSTANCES]


def growths(summary: Summary) -> list[Growth]:
    """The disk that N instances take: what they share, and N times what one more adds. Computed, not measured."""
    once, each = summary.rows("disk.shared"), summary.rows("disk.instance")
    sizes = {key_of(row): median_of(row) for row in each}
    made = []
    for workload, rows in by_workload(once).items():
        totals: dict[tuple[str, str, str], list[float]] = {}
        lacking = []
        for row in rows:
            shared, more = median_of(row), sizes.get(key_of(row))
            if shared is None or more is None:
                lacking.append((row.target, row.reason or Words("it was not weighed")))
            else:
                totals[key_of(row)] = [shared + n * more for n in INSTANCES]
        if totals or lacking:
            scale = axis.over((amount for amounts in totals.values() for amount in amounts), "B")
            made.append(Growth(workload, scale, tuple(_curves(summary, rows, sizes, totals, scale)), tuple(lacking)))
    return made


def _curves(
    summary: Summary,
    rows: Sequence[Row],
    sizes: Mapping[tuple[str, str, str], float | None],
    totals: Mapping[tuple[str, str, str], Sequence[float]],
    scale: Axis,
) -> Iterable[Curve]:
    most = math.log10(INSTANCES[-1])
    for number, row in enumerate(row for row in rows if key_of(row) in totals):
        shared, more = median_of(row) or 0.0, sizes[key_of(row)] or 0.0
        steps = [most * step / STEPS for step in range(STEPS + 1)]
        spots = [(100 * step / most, 100 - scale.at(shared + 10**step * more)) for step in steps]
        path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in spots)
        amounts = tuple(quantity(amount, "B") for amount in totals[key_of(row)])
        yield Curve(campaign_of(summary, row), row.target, ran_of(row), path, PALETTE[number % len(PALETTE)], amounts)
