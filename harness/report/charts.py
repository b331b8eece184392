"""The charts of a page as geometry: where each mark stands on its axis, in percent, so that a page can be any width."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from harness.metrics import METRICS
from harness.report import axis, tables
from harness.report.axis import Axis
from harness.report.looks import HATCHES, Look, looks
from harness.report.rows import Row
from harness.report.summary import Summary
from harness.wording import Words, interval, listed, quantity, times

MOST_POINTS = 300
"""So many launches of one row are drawn; of more, evenly by rank."""
FEWEST_FOR_SHAPE = 5
"""From so many launches on, their distribution is drawn."""
BINS = 200
PATTERNS = ("", "lines", "dots", "cross", "bars")
"""What the page's patterns are called, in the order of looks.HATCHES and then UNSPLIT."""


@dataclass(frozen=True)
class Point:
    """A launch: `x` in percent of the axis, `y` from 0 to 1 (jitter, which means nothing)."""

    x: float
    y: float
    told: str


@dataclass(frozen=True)
class Strip:
    """`low`, `median`, `high` and `zero`, the reference's median, in percent. `shape` is the outline of the
    distribution, an SVG path in a box of BINS x 1. `points` are `drawn` of `all` launches."""

    median: float
    low: float
    high: float
    zero: float | None
    points: tuple[Point, ...]
    all: int
    shape: str


@dataclass(frozen=True)
class Segment:
    """A piece of a total: from `x`, `width` wide, both in percent of its bar."""

    name: str
    told: str
    x: float
    width: float
    look: Look
    pattern: str


@dataclass(frozen=True)
class Line:
    """One target in a chart. `strip` is None where there is no value, for the `reason`; so are the segments empty."""

    campaign: str
    target: str
    ran: str
    value: str
    spread: str
    ratio: str
    failed: int
    reason: str | None
    strip: Strip | None
    segments: tuple[Segment, ...]


@dataclass(frozen=True)
class Chart:
    """Targets below each other. `axis` is None where each line's bar is as long as the others, and without a value."""

    workload: str
    metric: str
    title: str
    axis: Axis | None
    scale: str
    lines: tuple[Line, ...]

    @property
    def sampled(self) -> bool:
        """Whether not every launch is drawn."""
        return any(line.strip and 0 < len(line.strip.points) < line.strip.all for line in self.lines)


def strips(summary: Summary, metric: str, points: bool = True) -> list[Chart]:
    """Every launch, the median and its interval: a chart a workload, all on one axis."""
    rows = summary.rows(metric)
    if not rows:
        return []
    scale = axis.over((value for row in rows for value in row.values), rows[0].unit)
    named = Words("log scale") if scale.log else Words("linear scale, from 0")

    def chart(workload: str, mine: Sequence[Row]) -> Chart:
        lines = tuple(_line(summary, row, _strip(row, scale, _zero(rows, row, summary), points)) for row in mine)
        on, told = (scale, named) if any(each.strip for each in lines) else (None, "")
        return Chart(workload, metric, Words(METRICS[metric].title), on, told, lines)

    return [chart(workload, mine) for workload, mine in by_workload(rows).items()]


def stacks(summary: Summary, metric: str) -> list[Chart]:
    """What totals consist of."""
    scale = Words("shares of the total, by the medians of the parts")
    return _bars(summary, metric, Words(METRICS[metric].title), scale)


def waterfalls(summary: Summary) -> list[Chart]:
    """The phases of a start one after the other: each line is as long as its own start-up."""
    scale = Words("each bar is one start-up from its beginning to its end, by the medians of its phases")
    return _bars(summary, "startup.total", Words("Phases of a start"), scale, in_time=True)


def _bars(summary: Summary, metric: str, title: str, scale: str, in_time: bool = False) -> list[Chart]:
    """Bars of shares, a chart a workload: in the order of time, or of the looks, which all charts have in common."""
    rows = summary.rows(metric)
    told = looks(rows).pieces

    def shares(row: Row) -> list[Segment]:
        return _shares(row, told, [piece.name for piece in row.pieces] if in_time else told)

    return [
        Chart(workload, metric, title, None, scale, tuple(_line(summary, row, None, shares(row)) for row in mine))
        for workload, mine in by_workload(rows).items()
    ]


def _line(summary: Summary, row: Row, strip: Strip | None, segments: Sequence[Segment] = ()) -> Line:
    estimate, reason = row.estimate, row.reason
    campaign = next(each for each in summary.campaigns if each.id == row.campaign)
    rows = tables.index_by_metric(campaign, row) if estimate is None else {}
    if reason and tables.find_stand_in(row, rows):
        reason = listed([reason, tables.format_value_or_stand_in(row, rows)], "{some}; {more}")
    return Line(
        campaign=campaign_of(summary, row),
        target=row.target,
        ran=ran_of(row),
        value="" if estimate is None else quantity(estimate.median, row.unit),
        spread="" if estimate is None else interval(estimate, row.unit),
        ratio="" if row.ratio is None or campaign.reference == row.target else times(row.ratio),
        failed=row.failed,
        reason=reason,
        strip=strip,
        segments=tuple(segments),
    )


def _strip(row: Row, scale: Axis, zero: float | None, points: bool) -> Strip | None:
    if row.estimate is None:
        return None
    low, median, high = (scale.at(bound) for bound in (row.estimate.low, row.estimate.median, row.estimate.high))
    return Strip(
        median=median,
        low=low,
        high=high,
        zero=None if zero is None else scale.at(zero),
        points=tuple(_points(row, scale)) if points else (),
        all=len(row.values),
        shape=_shape(row.values, scale) if points else "",
    )


def _points(row: Row, scale: Axis) -> Iterable[Point]:
    """Every launch; of very many some, evenly by rank, the least and the most among them."""
    values: Sequence[float] = row.values
    if len(values) > MOST_POINTS:
        ordered = np.sort(np.asarray(values))
        values = ordered[np.linspace(0, len(ordered) - 1, MOST_POINTS).round().astype(int)].tolist()
    n = len(values)
    # As many levels as launches, taken in strides, so that neighbours are apart.
    stride = next(step for step in range(max(1, round(0.618 * n)), n + 2) if math.gcd(step, n) == 1)
    for number, value in enumerate(values):
        yield Point(scale.at(value), (number * stride % n + 0.5) / n, quantity(value, row.unit))


def _shape(values: Sequence[float], scale: Axis) -> str:
    """The outline of a kernel density estimate on the axis, bandwidth by Silverman's rule of thumb.

    Source: Silverman, Density Estimation for Statistics and Data Analysis (1986), equation 3.31.
    """
    if len(values) < FEWEST_FOR_SHAPE or min(values) == max(values):
        return ""
    bins = np.array([scale.at(value) for value in values]) / 100 * BINS
    quarter, three = np.quantile(bins, [0.25, 0.75])
    spread = min(bins.std(ddof=1), (three - quarter) / 1.34) or bins.std(ddof=1)
    counts, _ = np.histogram(bins, bins=BINS, range=(0, BINS))
    bandwidth = max(0.9 * spread * len(values) ** -0.2, 0.7)
    density = ndimage.gaussian_filter1d(counts.astype(float), bandwidth, mode="constant")
    density /= density.max()
    seen = np.flatnonzero(density > 0.01)
    spots = "".join(f"L{at + 0.5:.1f} {1 - density[at]:.2f}" for at in range(seen[0], seen[-1] + 1))
    return f"M{seen[0] + 0.5:.1f} 1{spots}L{seen[-1] + 0.5:.1f} 1Z"


def _shares(row: Row, told: Mapping[str, Look], order: Iterable[str]) -> list[Segment]:
    """The pieces as shares of their sum. A piece without a median, or of nothing, is none."""
    medians = {piece.name: piece.median for piece in row.pieces if row.estimate and piece.median}
    total = sum(medians.values())
    made, x = [], 0.0
    for name in order:
        if name not in medians:
            continue
        width = 100 * medians[name] / total
        look = told[name]
        pattern = PATTERNS[HATCHES.index(look.hatch)] if look.hatch in HATCHES else PATTERNS[-1]
        made.append(Segment(name, quantity(medians[name], row.unit), x, width, look, pattern))
        x += width
    return made


def _zero(rows: Sequence[Row], row: Row, summary: Summary) -> float | None:
    """The median of the reference of the same campaign and workload."""
    reference = next(each.reference for each in summary.campaigns if each.id == row.campaign)
    return next((median_of(each) for each in rows if key_of(each) == (row.campaign, row.workload, reference)), None)


def by_workload(rows: Sequence[Row]) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row.workload, []).append(row)
    return found


def key_of(row: Row) -> tuple[str, str, str]:
    return row.campaign, row.workload, row.target


def median_of(row: Row) -> float | None:
    return None if row.estimate is None else row.estimate.median


def campaign_of(summary: Summary, row: Row) -> str:
    """Named only where there are several to be told apart."""
    return row.campaign if len(summary.campaigns) > 1 else ""


def ran_of(row: Row) -> str:
    """What of the label is not the target's key."""
    ran = row.label.values.get("ran", "") if isinstance(row.label, Words) else ""
    return ran if isinstance(ran, str) else ""
