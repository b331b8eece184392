"""A summary for a terminal, or for the file that a terminal's output is sent to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from harness.meters.isolation import CAPABILITIES, Isolation
from harness.model import Applied
from harness.report import findings, matrix, tables
from harness.report.summary import Campaign, Summary
from harness.wording import improvable, line, not_here


def show(summary: Summary, console: Console) -> None:
    """Prints what was measured, what failed and what could not run. Foreign text is never taken as rich's markup."""
    content = tables.headline(summary)
    first = content.columns.index("Target") + 1
    console.print(_numbers(content.columns[first:], "bold"))
    for row in content.rows:
        console.print(Text(line(" · ".join(row[:first])), style="bold"))
        console.print(_numbers(row[first:]))
    for campaign in summary.campaigns:
        if found := _sentence(campaign):
            console.print(Text(found))
    for note in content.notes:
        console.print(Text(note, style="dim"))
    for campaign in summary.campaigns:
        _troubles(campaign, console)


def show_isolation(label: str, isolation: Isolation, limits: Mapping[str, Applied], console: Console) -> None:
    """Prints what one instance is separated from, a property a line, with what each is about beside it."""
    grid = Grid(box=SIMPLE, pad_edge=False)
    grid.add_column(Text("Inside"), no_wrap=True)
    grid.add_column(Text(line(label)), overflow="fold")
    for found in matrix.lines(isolation, limits, few=len(CAPABILITIES) // 2):
        style = {"own": "green", "host's": "yellow", None: ""}[found.whose]
        told = Text(line(found.found), style)
        if found.about:
            told.append(f"\n{found.about}", "dim")
        grid.add_row(Text(found.name), told)
    console.print(grid)


def _sentence(campaign: Campaign) -> str | None:
    """What the page of a report begins with."""
    workload = findings.first_workload(campaign)
    found = findings.sentence(campaign, workload, "startup.total")
    return found and f"{found} {findings.footing(campaign, workload, 'startup.total')}"


def _numbers(cells: Sequence[str], style: str = "") -> Grid:
    """One line of cells, each value above its interval above its count.

    The widths are fixed and the label stands above: so five numbers with intervals fit into 80 columns, none cut.
    """
    grid = Grid.grid(padding=(0, 1, 0, 0))
    grid.add_column(width=1)
    for _ in cells:
        grid.add_column(width=14, overflow="fold")
    grid.add_row("", *(Text(line(cell).replace(" [", "\n[").replace(" n=", "\nn="), style) for cell in cells))
    return grid


def _troubles(campaign: Campaign, console: Console) -> None:
    for warning in campaign.warnings:
        console.print(Text(f"warning: {warning}", style="yellow"))
    if campaign.incomplete:
        console.print(Text(f"incomplete: campaign {campaign.id}: {campaign.incomplete}", style="yellow"))
    for absent in campaign.unavailable:
        console.print(Text(not_here(absent.target, absent.reason, absent.hint), style="yellow"))
    for target in campaign.configurations:
        if target.remedy:
            sentence = improvable(line(target.target), target.machine, target.reason, target.remedy)
            console.print(Text(sentence, style="yellow"))
    alike = Counter((f.label, f.failed_in, f.type, f.message) for f in campaign.failures)
    for (label, *told), times in alike.items():
        console.print(Text(f"failed: {label}, {times} of its runs: {': '.join(told)}", style="red"))
