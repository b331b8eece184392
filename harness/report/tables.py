"""The tables of a report as words: the same rows whether Markdown, HTML or a terminal shows them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from harness import meters
from harness.meters.isolation import Whose
from harness.metrics import METRICS, Metric
from harness.model import Applied
from harness.report.rows import Row
from harness.report.summary import Campaign, Limit, Summary
from harness.stats.estimate import CONFIDENCE
from harness.wording import COLD, NONE, line, measured, quantity, times, unit

COLUMNS = ("kind", "mode")
"""Pieces (Metric.by) that are the same everywhere, and so have a column each."""
HEADLINES = {"memory.pss": "Memory, PSS", "disk.instance": "Disk, one more", "disk.shared": "Disk, shared"}


@dataclass(frozen=True)
class Table:
    """Cells are plain text, not yet escaped for any format. `notes` belong below it.

    `marks`, if any: whose that is what a cell tells of, for formats that can show it. The first column has none.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()
    marks: tuple[tuple[Whose | None, ...], ...] = ()


def headline(summary: Summary) -> Table:
    """One row a target (and workload, and campaign, where there are several): what everybody asks first."""
    several = {"Campaign": len(summary.campaigns) > 1, "Workload": len(summary.workloads()) > 1}
    rows, missing = [], dict[tuple[str, str], list[str]]()
    for campaign in summary.campaigns:
        for start in (row for row in campaign.rows if row.metric == "startup.total"):
            mine = {row.metric: row for row in campaign.rows if _cell(row) == _cell(start)}
            where = dict(zip(several, (campaign.id, start.workload), strict=True))
            who = (*(name for column, name in where.items() if several[column]), start.label)
            shown = [mine[metric] for metric in HEADLINES]
            failed = f", {start.failed} failed" if start.failed else ""
            rows.append((*who, value(start) + failed, _ratio(start, campaign), *map(value, shown)))
            for row in (start, *shown):
                if row.reason:
                    missing.setdefault((", ".join(who), row.reason), []).append(row.metric)
    columns = [column for column, wanted in several.items() if wanted]
    notes = [f"Campaign {campaign.id}: no measured run" for campaign in summary.campaigns if not campaign.rows]
    notes += [f"{who}: {', '.join(metrics)}: {reason}" for (who, reason), metrics in missing.items()]
    starts = "Cold start" if all(campaign.cold for campaign in summary.campaigns) else "Start-up"
    return Table(
        "At a glance",
        (*columns, "Target", starts, f"Against {_reference(summary)}", *HEADLINES.values()),
        tuple(rows),
        (*notes, *_legend(summary)),
    )


def metrics(campaign: Campaign) -> Table:
    """Every metric of every target, with its ratio and with the reason where there is none."""
    rows = [
        (_title(campaign, metric), *_who(campaign, row), value(row), _ratio(row, campaign), _why(row))
        for metric in _metrics(campaign)
        for row in campaign.rows
        if row.metric == metric.name
    ]
    return Table("All metrics", ("Metric", *_where(campaign), "Median", "Ratio", "Note"), tuple(rows))


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
    rows = [
        (
            *_who(campaign, row),
            part.name,
            _or_none(part.median, unit(row.metric, row.unit)),
            str(part.n),
            part.reason or "",
        )
        for row in campaign.rows
        if row.metric == metric.name
        for part in row.pieces
    ]
    title = f"{_title(campaign, metric)}, by {piece}"
    return Table(title, (*_where(campaign), piece.capitalize(), "Median", "n", "Note"), tuple(rows))


def _by_kind(campaign: Campaign, metric: Metric, kind: str) -> Table:
    """A row a group, if there are any, and a column a kind of part. A cell is empty where there is no such part."""
    mine = [row for row in campaign.rows if row.metric == metric.name]
    everything = [piece for row in mine for piece in row.pieces]
    kinds = list(dict.fromkeys(piece.part for piece in everything if piece.part or piece.median is not None))
    grouped = any(piece.group for piece in everything)
    rows = []
    for row in mine:
        for group in dict.fromkeys(piece.group for piece in row.pieces):
            found = {piece.part: piece for piece in row.pieces if piece.group == group}
            cells = {part: _or_none(piece.median, unit(row.metric, row.unit)) for part, piece in found.items()}
            unread = NONE if cells.get(None) == NONE else ""
            counts = ", ".join(dict.fromkeys(str(piece.n) for piece in found.values()))
            reasons = "; ".join(dict.fromkeys(piece.reason for piece in found.values() if piece.reason))
            shown = (cells.get(part, unread) for part in kinds)
            rows.append((*_who(campaign, row), *([group or NONE] if grouped else []), *shown, counts, reasons))
    named = [part.capitalize() if part else "Median" if kinds == [None] else "Not split" for part in kinds]
    title = f"{_title(campaign, metric)}, medians by {'group and ' if grouped else ''}{kind}"
    return Table(title, (*_where(campaign), *(["Group"] if grouped else []), *named, "n", "Note"), tuple(rows))


def configurations(campaign: Campaign) -> Table:
    rows = [
        (c.label, f"{c.engine} {c.version}", c.whose, "; ".join(f"{k}: {told(v)}" for k, v in c.profile.items()))
        for c in campaign.configurations
    ]
    return Table("Configurations", ("Target", "Engine", "Whose", "Profile"), tuple(rows))


def limits(campaign: Campaign) -> Table:
    """What was asked of each engine, how it did it and what the inside saw: three things that may differ."""
    rows = []
    for limit in campaign.limits:
        asked, seen = (amount(limit.name, value) for value in (limit.applied.asked, limit.applied.seen))
        rows.append((*_who(campaign, limit), limit.name, asked, applied_by(limit.applied), seen, str(limit.runs)))
    columns = (*_where(campaign), "Limit", "Asked", "Applied by", "Seen inside", "Runs")
    return Table("Limits", columns, tuple(rows))


def host(campaign: Campaign) -> Table:
    fields = [(name, told(field), "decides") for name, field in campaign.host.gating.items()]
    fields += [(name, told(field), "is noted") for name, field in campaign.host.informational.items()]
    return Table("Host", ("Field", "Value", "In a comparison it"), tuple(fields))


def readings(campaign: Campaign) -> Table:
    rows = []
    for r in campaign.readings:
        what = r.metric if r.group is None else f"{r.metric} of the {r.group}s of {r.part}"
        rows.append((r.at, what, _or_none(r.median, r.unit), str(r.n), r.reason or ""))
    return Table("The machine meanwhile", ("When", "Metric", "Median", "n", "Note"), tuple(rows))


def bundles(campaign: Campaign) -> Table:
    rows = [
        (b.workload, b.sha256, quantity(b.bytes, "B"), ", ".join(f"{k} {v}" for k, v in b.packages.items()))
        for b in campaign.bundles
    ]
    return Table("Bundles: the same bytes for every target", ("Workload", "SHA-256", "Size", "Packages"), tuple(rows))


def unavailable(campaign: Campaign) -> Table:
    rows = [(absent.target, absent.reason, absent.hint) for absent in campaign.unavailable]
    return Table("What could not run here", ("Target", "Reason", "Hint"), tuple(rows))


def failures(campaign: Campaign) -> Table:
    rows = [
        (f.run, f.label, f.workload, f"{f.round} ({f.phase})", f.failed_in, f.type, f.message)
        for f in campaign.failures
    ]
    return Table("Failed runs", ("Run", "Target", "Workload", "Round", "Failed in", "Error", "Message"), tuple(rows))


def details(campaign: Campaign) -> list[Table]:
    """Every table of one campaign that has something to say, in the order of a report."""
    made = [
        metrics(campaign),
        *pieces(campaign),
        unavailable(campaign),
        limits(campaign),
        configurations(campaign),
        bundles(campaign),
        host(campaign),
        readings(campaign),
    ]
    return [table for table in made if table.rows]


def origin(campaign: Campaign) -> list[tuple[str, str]]:
    """Where the numbers come from: name and value, in the order of a report."""
    changed = " with uncommitted changes" if campaign.dirty else ""
    rounds = f"{campaign.rounds} measured after one of warm-up"
    if campaign.precision:
        rounds = f"at least {rounds}, until every headline median is within {100 * campaign.precision:.3g} %"
    cold = [("Starts", f"cold starts: {COLD[campaign.cold]} is dropped before each")] if campaign.cold else []
    return [
        ("Campaign", campaign.id),
        ("Started", campaign.started),
        ("Command", " ".join(campaign.command)),
        ("Commit", f"{campaign.commit or f'{NONE} (not recorded)'}{changed}"),
        ("Rounds", f"{rounds}, seed {campaign.seed}"),
        *cold,
        ("Measured runs", f"{campaign.measured} succeeded, {campaign.failed} failed"),
        ("Complete", "yes" if campaign.incomplete is None else f"no: {campaign.incomplete}"),
        ("Read from", campaign.source),
    ]


def value(row: Row) -> str:
    """A row's median with unit, interval and count, or the dash of a value that could not be had."""
    return NONE if row.estimate is None else measured(row.estimate, unit(row.metric, row.unit))


def told(field: object) -> str:
    """A field of a host or a profile: text as it is, anything else as JSON."""
    return line(field if isinstance(field, str) else json.dumps(field, ensure_ascii=False))


def _title(campaign: Campaign, metric: Metric) -> str:
    cold = ", cold starts" if campaign.cold and metric.name == "startup.total" else ""
    return f"{metric.title}{cold}"


def _ratio(row: Row, campaign: Campaign) -> str:
    if row.ratio is None:
        return NONE
    return "1 (reference)" if row.target == campaign.reference else times(row.ratio)


def _why(row: Row) -> str:
    reasons = [row.reason, None if row.ratio or row.estimate is None else f"no ratio: {row.ratio_reason}"]
    return "; ".join(reason for reason in reasons if reason)


def amount(name: str, value: float | None) -> str:
    """So much of what a limit of that name limits."""
    if value is None:
        return NONE
    return quantity(value, "B") if name == "memory" else f"{value:g}"


def applied_by(applied: Applied) -> str:
    """How a limit was applied, or why it was not."""
    if applied.mechanism is None:
        return f"{NONE} ({line(applied.reason or 'nobody said why')})"
    return line(applied.mechanism if applied.reason is None else f"{applied.mechanism} ({applied.reason})")


def _or_none(median: float | None, unit: str) -> str:
    return NONE if median is None else quantity(median, unit)


def _where(campaign: Campaign) -> tuple[str, ...]:
    return ("Target", "Workload") if len({row.workload for row in campaign.rows}) > 1 else ("Target",)


def _who(campaign: Campaign, row: Row | Limit) -> tuple[str, ...]:
    return (row.label, row.workload)[: len(_where(campaign))]


def _cell(row: Row) -> tuple[str, str]:
    return (row.target, row.workload)


def _reference(summary: Summary) -> str:
    names = {campaign.reference for campaign in summary.campaigns}
    return names.pop() or "nothing" if len(names) == 1 else "the reference"


def _legend(summary: Summary) -> Sequence[str]:
    told = [f"Median [{CONFIDENCE:.0%} interval of the median] and n, the number of measured launches."]
    missing = [row for campaign in summary.campaigns for row in campaign.rows if row.ratio is None and row.estimate]
    reasons = dict.fromkeys(row.ratio_reason for row in missing if row.metric == "startup.total")
    cold = {campaign.id: COLD[campaign.cold] for campaign in summary.campaigns if campaign.cold}
    named = {id: f" in campaign {id}" if len(summary.campaigns) > 1 else "" for id in cold}
    told += [f"Cold starts{named[id]}: {what} is dropped before each." for id, what in cold.items()]
    return told + [f"No ratio: {reason}." for reason in reasons]
