"""The tables of a report as words: the same rows whether Markdown, HTML or a terminal shows them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from harness import meters
from harness.meters.isolation import Whose
from harness.metrics import METRICS, Metric
from harness.report.rows import Row
from harness.report.summary import Acceleration, Campaign, Failed, Limit, Summary
from harness.stats.estimate import CONFIDENCE
from harness.wording import COLD, NONE, Words, interval, line, measured, quantity, times, unit

COLUMNS = ("kind", "mode")
"""Pieces (Metric.by) that are the same everywhere, and so have a column each."""
HEADLINES = {
    "memory.pss": Words("Memory, PSS"),
    "disk.instance": Words("Disk, one more"),
    "disk.shared": Words("Disk, shared"),
}

REPORTED = Words("{median} reported {interval}")
STAND_INS = {
    "memory.charged": Words("{median} charged {interval}"),
    "disk.reported_instance": REPORTED,
    "disk.reported_shared": REPORTED,
}
"""Format of a cell that shows a metric's stand-in (Metric.stand_in)."""
STAND_IN_NOTES = {
    "memory.charged": Words("charged: what the control group is charged, where PSS could not be read. It is not PSS."),
    "disk.reported_instance": Words(
        "reported: the size that the engine reports, where its files could not be read. It is not the space on disk."
    ),
}


class About(NamedTuple):
    """The target, the workload and the metric that a row is about; None for what it is not about one of."""

    target: str | None = None
    workload: str | None = None
    metric: str | None = None


@dataclass(frozen=True)
class Table:
    """Cells are plain text, not yet escaped for any format. `notes` belong below it.

    `marks`, if any: whose that is what a cell tells of, for formats that can show it. The first column has none.
    `about`, if any: what each row is about, for formats in which one can choose.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()
    marks: tuple[tuple[Whose | None, ...], ...] = ()
    about: tuple[About, ...] = ()


def headline(summary: Summary) -> Table:
    """One row a target (and workload, and campaign, where there are several): what everybody asks first."""
    several = {Words("Campaign"): len(summary.campaigns) > 1, Words("Workload"): len(summary.workloads()) > 1}
    rows, about, missing = [], [], dict[tuple[str, str], list[str]]()
    for campaign in summary.campaigns:
        for start in (row for row in campaign.rows if row.metric == "startup.total"):
            mine = index_by_metric(campaign, start)
            where = dict(zip(several, (campaign.id, start.workload), strict=True))
            who = (*(name for column, name in where.items() if several[column]), start.label)
            shown = [mine[metric] for metric in HEADLINES]
            began = value(start)
            if start.failed:
                began = Words("{value}, {count} failed", value=began, count=start.failed)
            rows.append((*who, began, _ratio(start, campaign), *(format_value_or_stand_in(row, mine) for row in shown)))
            about.append(about_of(start))
            for row in (start, *shown):
                if row.reason:
                    missing.setdefault((", ".join(who), row.reason), []).append(row.metric)
    columns = [column for column, wanted in several.items() if wanted]
    notes: list[str] = [
        Words("Campaign {id}: no measured run", id=campaign.id) for campaign in summary.campaigns if not campaign.rows
    ]
    notes += [
        Words("{who}: {metrics}: {reason}", who=who, metrics=", ".join(metrics), reason=reason)
        for (who, reason), metrics in missing.items()
    ]
    starts = Words("Cold start") if all(campaign.cold for campaign in summary.campaigns) else Words("Start-up")
    return Table(
        Words("At a glance"),
        (*columns, Words("Target"), starts, _format_ratio_heading(summary), *HEADLINES.values()),
        tuple(rows),
        (*notes, *_legend(summary)),
        about=tuple(about),
    )


def metrics(campaign: Campaign) -> Table:
    """Every metric of every target, with its ratio and with the reason where there is none."""
    mine = [
        (_title(campaign, metric), row)
        for metric in _metrics(campaign)
        for row in campaign.rows
        if row.metric == metric.name
    ]
    rows = [(title, *who(campaign, row), value(row), _ratio(row, campaign), _why(row)) for title, row in mine]
    columns = (Words("Metric"), *where(campaign), Words("Median"), Words("Ratio"), Words("Note"))
    return Table(Words("All metrics"), columns, tuple(rows), about=tuple(about_of(row) for _, row in mine))


def pieces(campaign: Campaign) -> list[Table]:
    """What the totals consist of. The medians of parts need not add up to the median of the total."""
    made = [
        (_by_kind if metric.by in COLUMNS else _listed)(campaign, metric, metric.by)
        for metric in _metrics(campaign)
        if metric.by
    ]
    return [table for table in made if table.rows]


def _metrics(campaign: Campaign) -> list[Metric]:
    """Those that a campaign has rows of, the program's own before those of meters of somebody else's."""
    units = {row.metric: row.unit for row in campaign.rows}
    return [meters.metric(name, units[name]) for name in dict.fromkeys([*METRICS, *units]) if name in units]


def _listed(campaign: Campaign, metric: Metric, piece: str) -> Table:
    """A row a piece."""
    mine = [(row, part) for row in campaign.rows if row.metric == metric.name for part in row.pieces]
    rows = [
        (
            *who(campaign, row),
            part.name,
            or_none(part.median, unit(row.metric, row.unit)),
            str(part.n),
            part.reason or "",
        )
        for row, part in mine
    ]
    title = Words("{metric}, by {piece}", metric=_title(campaign, metric), piece=Words(piece))
    columns = (*where(campaign), Words(piece.capitalize()), Words("Median"), "n", Words("Note"))
    return Table(title, columns, tuple(rows), about=tuple(about_of(row) for row, _ in mine))


def _by_kind(campaign: Campaign, metric: Metric, kind: str) -> Table:
    """A row a group, if there are any, and a column a kind of part. A cell is empty where there is no such part."""
    mine = [row for row in campaign.rows if row.metric == metric.name]
    everything = [piece for row in mine for piece in row.pieces]
    kinds = list(dict.fromkeys(piece.part for piece in everything if piece.part or piece.median is not None))
    grouped = any(piece.group for piece in everything)
    rows, about = [], []
    for row in mine:
        for group in dict.fromkeys(piece.group for piece in row.pieces):
            found = {piece.part: piece for piece in row.pieces if piece.group == group}
            cells = {part: or_none(piece.median, unit(row.metric, row.unit)) for part, piece in found.items()}
            unread = NONE if cells.get(None) == NONE else ""
            counts = ", ".join(dict.fromkeys(str(piece.n) for piece in found.values()))
            reasons = "; ".join(dict.fromkeys(piece.reason for piece in found.values() if piece.reason))
            shown = (cells.get(part, unread) for part in kinds)
            rows.append((*who(campaign, row), *([group or NONE] if grouped else []), *shown, counts, reasons))
            about.append(about_of(row))
    unsplit = Words("Median") if kinds == [None] else Words("Not split")
    named = [part.capitalize() if part else unsplit for part in kinds]
    by = Words("{metric}, medians by group and {kind}") if grouped else Words("{metric}, medians by {kind}")
    title = Words(by, metric=_title(campaign, metric), kind=Words(kind))
    columns = (*where(campaign), *([Words("Group")] if grouped else []), *named, "n", Words("Note"))
    return Table(title, columns, tuple(rows), about=tuple(about))


def value(row: Row) -> str:
    """A row's median with unit, interval and count, or the dash of a value that could not be had."""
    return NONE if row.estimate is None else measured(row.estimate, unit(row.metric, row.unit))


def find_stand_in(row: Row, mine: Mapping[str, Row]) -> Row | None:
    """Return the row that is shown in place of a row without a value. mine: the target's rows by metric."""
    other = mine.get(METRICS[row.metric].stand_in or "")
    return other if row.estimate is None and other is not None and other.estimate is not None else None


def format_value_or_stand_in(row: Row, mine: Mapping[str, Row]) -> str:
    """Return a row's value, or else its stand-in's value under the stand-in's own name."""
    other = find_stand_in(row, mine)
    if other is None or other.estimate is None:
        return value(row)
    median = quantity(other.estimate.median, other.unit)
    return Words(STAND_INS[other.metric], median=median, interval=interval(other.estimate, other.unit))


def index_by_metric(campaign: Campaign, like: Row) -> dict[str, Row]:
    """Return {metric: row} for the target and workload of a row."""
    return {row.metric: row for row in campaign.rows if _cell(row) == _cell(like)}


def _title(campaign: Campaign, metric: Metric) -> str:
    if campaign.cold and metric.name == "startup.total":
        return Words("{metric}, cold starts", metric=Words(metric.title))
    return Words(metric.title)


def _ratio(row: Row, campaign: Campaign) -> str:
    if row.ratio is None:
        return NONE
    return Words("1 (reference)") if row.target == campaign.reference else times(row.ratio)


def _why(row: Row) -> str:
    if row.ratio or row.estimate is None:
        return row.reason or ""
    unequalled = Words("no ratio: {reason}", reason=row.ratio_reason)
    return Words("{reason}; {more}", reason=row.reason, more=unequalled) if row.reason else unequalled


def or_none(median: float | None, unit: str) -> str:
    return NONE if median is None else quantity(median, unit)


def where(campaign: Campaign) -> tuple[str, ...]:
    several = len({row.workload for row in campaign.rows}) > 1
    return (Words("Target"), Words("Workload")) if several else (Words("Target"),)


def who(campaign: Campaign, row: Row | Limit | Acceleration) -> tuple[str, ...]:
    return (row.label, row.workload)[: len(where(campaign))]


def about_of(what: Row | Limit | Acceleration | Failed) -> About:
    return About(line(what.target), line(what.workload), what.metric if isinstance(what, Row) else None)


def _cell(row: Row) -> tuple[str, str]:
    return (row.target, row.workload)


def _format_ratio_heading(summary: Summary) -> Words:
    """Return the heading of the ratios: `Against host`, or `Ratio` where no campaign has a reference target."""
    names = {campaign.reference for campaign in summary.campaigns if campaign.reference}
    if not names:
        return Words("Ratio")
    return Words("Against {reference}", reference=names.pop() if len(names) == 1 else Words("the reference"))


def _legend(summary: Summary) -> Sequence[str]:
    told: list[str] = [
        Words("Median [{level:.0%} interval of the median] and n, the number of measured launches.", level=CONFIDENCE)
    ]
    missing = [row for campaign in summary.campaigns for row in campaign.rows if row.ratio is None and row.estimate]
    reasons = dict.fromkeys(row.ratio_reason for row in missing if row.metric == "startup.total")
    cold = {campaign.id: COLD[campaign.cold] for campaign in summary.campaigns if campaign.cold}
    if len(summary.campaigns) > 1:
        told += [
            Words("Cold starts in campaign {id}: {what} is dropped before each.", id=id, what=what)
            for id, what in cold.items()
        ]
    else:
        told += [Words("Cold starts: {what} is dropped before each.", what=what) for what in cold.values()]
    told += [Words("No ratio: {reason}.", reason=reason) for reason in reasons]
    return [*told, *_explain_stand_ins(summary)]


def _explain_stand_ins(summary: Summary) -> list[str]:
    """Return an explanation of each kind of stand-in that the headline table shows."""
    shown = {
        other.metric.replace("disk.reported_shared", "disk.reported_instance")
        for campaign in summary.campaigns
        for row in campaign.rows
        if row.metric in HEADLINES and row.estimate is None
        if (other := find_stand_in(row, index_by_metric(campaign, row)))
    }
    return [note for metric, note in STAND_IN_NOTES.items() if metric in shown]
