"""A comparison as a page: the verdicts first, all changes on one axis, and what they rest on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from harness.comparison import Compared
from harness.report import axis, page
from harness.report.compared import NOTABLE, change, first_line, from_to, remarks, side
from harness.report.language import ENGLISH, Language
from harness.report.tables import About, Table
from harness.verdict import Comparison, Verdict
from harness.wording import Words

SIGNS = {"regressed": "✗", "improved": "✓", "unchanged": "=", "undecided": "?"}
WIDEST = 1.0
"""Changes by more than this fraction are beyond the end of the axis."""


@dataclass(frozen=True)
class Mark:
    """One change. `low`, `middle`, `high` in percent of an axis with no change in its middle; None without a ratio.

    `threshold` is half of the band that is of no interest, in percent of the axis. `beyond`: the ends of the axis, 0
    and 100, that something of the change is beyond.
    """

    comparison: Comparison
    change: str
    from_to: str
    low: float | None
    middle: float | None
    high: float | None
    threshold: float
    beyond: tuple[int, ...]


def render(compared: Compared, language: Language = ENGLISH) -> str:
    """The whole page."""
    reach = _reach(compared.comparisons)
    order: tuple[Verdict, ...] = (*NOTABLE, "unchanged")
    said = language(first_line(compared))
    return page.render(
        "compared.html",
        language,
        title=language.say("Weighbridge comparison"),
        description=said,
        made=compared.started,
        verdicts=[(Words(verdict), SIGNS[verdict], _marks(compared.of(verdict), reach)) for verdict in order],
        ticks=list(_ticks(reach)),
        content=_table(compared),
        remarks=list(remarks(compared)),
    )


def _marks(comparisons: Iterable[Comparison], reach: float) -> list[Mark]:
    return [_mark(each, reach) for each in comparisons]


def _mark(each: Comparison, reach: float) -> Mark:
    """What of a change is beyond the axis is drawn at its end."""
    amounts = (each.low, each.change, each.high) if each.relative else (None, None, None)
    places = [None if amount is None else 50 + 50 * amount / reach for amount in amounts]
    low, middle, high = (None if place is None else max(0.0, min(100.0, place)) for place in places)
    known = [place for place in places if place is not None]
    beyond = [
        end for end, is_beyond in ((0, min(known, default=0) < 0), (100, max(known, default=0) > 100)) if is_beyond
    ]
    threshold = min(50.0, 50 * each.threshold.relative / reach)
    return Mark(each, change(each), from_to(each), low, middle, high, threshold, tuple(beyond))


def _ticks(reach: float) -> Iterator[tuple[float, str]]:
    """Round changes on both sides of none."""
    steps = axis.steps(100 * reach, "%", some=2)
    for percent in (*(-step for step in reversed(steps[1:])), *steps):
        yield 50 + percent / (2 * reach), f"{percent:+g} %" if percent else "0 %"


def _reach(comparisons: Iterable[Comparison]) -> float:
    """Half of the axis, as a fraction of the base."""
    mine = list(comparisons)
    bounds = [abs(bound) for each in mine if each.relative for bound in (each.low, each.high) if bound is not None]
    return min(WIDEST, 1.05 * max([*bounds, *(2 * each.threshold.relative for each in mine)], default=WIDEST)) or WIDEST


def _table(compared: Compared) -> Table:
    """All comparisons."""
    columns = ("Verdict", "Metric", "Target", "Workload", "Base", "Head", "Change, 95% interval", "Why")
    rows = tuple(
        (
            Words(each.verdict),
            each.metric,
            each.target,
            each.workload,
            side(each, each.base),
            side(each, each.head),
            change(each),
            each.reason,
        )
        for each in compared.comparisons
    )
    about = tuple(About(each.target, each.workload, each.metric) for each in compared.comparisons)
    return Table(Words("All comparisons"), tuple(map(Words, columns)), rows, about=about)
