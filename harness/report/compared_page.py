"""A comparison as a page: the verdicts first, all changes on one axis, and what they rest on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from harness.comparison import Compared
from harness.report import page
from harness.report.compared import NOTABLE, change, first_line, from_to, remarks, side
from harness.report.language import ENGLISH, Language
from harness.report.tables import About, Table
from harness.verdict import Comparison, Verdict
from harness.wording import Words

SIGNS = {"regressed": "✗", "improved": "✓", "unchanged": "=", "undecided": "?"}
WIDEST = 1.0
"""Changes by more than this fraction are at the end of the axis."""


@dataclass(frozen=True)
class Mark:
    """One change. `low`, `middle`, `high` in percent of an axis with no change in its middle; None without a ratio.

    `threshold` is half of the band that is of no interest, in percent of the axis.
    """

    comparison: Comparison
    change: str
    from_to: str
    low: float | None
    middle: float | None
    high: float | None
    threshold: float


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
        verdicts=[(Words(verdict), SIGNS[verdict], _marks(compared.of(verdict), reach)) for verdict in order],
        reach=f"{100 * reach:.3g} %",
        content=_table(compared),
        remarks=list(remarks(compared)),
    )


def _marks(comparisons: Iterable[Comparison], reach: float) -> list[Mark]:
    return [
        Mark(
            each,
            change(each),
            from_to(each),
            *_places(each, reach),
            min(50.0, 50 * each.threshold.relative / reach),
        )
        for each in comparisons
    ]


def _places(each: Comparison, reach: float) -> tuple[float | None, float | None, float | None]:
    """Where the bounds of a change and itself are on the axis; larger ones are at its ends."""

    def at(amount: float | None) -> float | None:
        return 50 + 50 * max(-1.0, min(1.0, amount / reach)) if each.relative and amount is not None else None

    return at(each.low), at(each.change), at(each.high)


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
