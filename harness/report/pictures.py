"""The pictures of a report: every launch a point, its median and interval beside it, and what a total consists of."""

from __future__ import annotations

import io
import itertools
import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import blended_transform_factory

from harness.report.looks import LINE, PALETTE, QUIET, looks, style
from harness.report.panels import LEGEND, Panel, legend, stack, strip
from harness.report.rows import Row
from harness.report.summary import Summary
from harness.store import Result
from harness.wording import COLD, NONE, interval, quantity

_WIDTH, _LEFT, _RIGHT, _TOP, _BOTTOM = 8.8, 2.15, 1.85, 0.62, 0.5  # inches
_ROW = 0.5  # inches
_UNSTABLE = {
    "png": ("Software",),
    "svg": ("Date", "Creator", "Format", "Type"),
    "pdf": ("CreationDate", "Creator", "Producer"),
}
"""What would differ from day to day, or from one matplotlib to the next."""
_MARGIN = 10 - _LEFT * 72  # points from the axes to where titles begin
_POINTS: Any = {"xycoords": "axes fraction", "textcoords": "offset points", "annotation_clip": False}


@dataclass(frozen=True)
class Picture:
    """A finished drawing; the same summary gives the same bytes."""

    name: str
    title: str
    figure: Figure

    def saved(self, kind: str) -> bytes:
        """As png, svg or pdf."""
        target = io.BytesIO()
        with style():
            self.figure.savefig(target, format=kind, metadata=dict.fromkeys(_UNSTABLE[kind]))
        return target.getvalue()


def write(summary: Summary, results: Sequence[Result], directory: Path, kind: str) -> list[Path]:
    """Each picture as a file of this kind."""
    drawn = [(directory / f"{picture.name}.{kind}", picture.saved(kind)) for picture in draw(summary)]
    for path, content in drawn:
        path.write_bytes(content)
    return [path for path, _ in drawn]


def draw(summary: Summary) -> list[Picture]:
    """Start-up, memory and disk, each with a panel a workload; none of them where nothing ran."""
    if not summary.workloads():
        return []
    starts = _starts(summary)
    start, memory = _panels(summary, "startup.total", starts), _panels(summary, "memory.pss", "Memory at rest, PSS")
    shared = _panels(summary, "disk.shared", "Disk that all instances share")
    extra = _panels(summary, "disk.instance", "Disk that one more instance adds")
    disk = [panel for pair in zip(shared, extra, strict=True) for panel in pair]
    # Campaigns are named where there are several to be told apart.
    told = {c.id: f"{c.id} · cold" if c.cold else c.id for c in summary.campaigns if len(summary.campaigns) > 1}
    with style():
        return [
            Picture("startup", f"{starts}, requested to ready", _figure(start, told, stacked=False)),
            Picture("memory", "Memory at rest, PSS by group and kind", _figure(memory, told, stacked=True)),
            Picture("disk", "Disk, shared and of each instance, by part", _figure(disk, told, stacked=True)),
        ]


def _starts(summary: Summary) -> str:
    """What the start-ups of a summary are called: cold ones only where all of them are."""
    kinds = {campaign.cold for campaign in summary.campaigns}
    if None in kinds:
        return "Start-up"
    dropped = [COLD[kind] for kind in kinds if kind]
    return f"Cold starts, {dropped[0]} dropped before each" if len(dropped) == 1 else "Cold starts"


def _panels(summary: Summary, metric: str, title: str) -> list[Panel]:
    workloads = summary.workloads()
    named = {name: f"{title} · {name}" for name in workloads}
    return [Panel(named[name], [r for r in summary.rows(metric) if r.workload == name]) for name in workloads]


def _figure(panels: Sequence[Panel], campaigns: Mapping[str, str], stacked: bool) -> Figure:
    names = [[_name(row, campaigns) for row in panel.rows] for panel in panels]
    # Groups have one colour in all panels, parts the colours of those of their panel.
    told = [looks(panel.rows if stacked else []) for panel in panels]
    above = [_TOP + LEGEND * len(look.legend) for look in told]
    heights = [[_ROW + 0.145 * max(0, len(name) + len(quiet) - 2) for name, quiet in panel] for panel in names]
    total = sum(map(sum, heights)) + sum(above) + len(panels) * _BOTTOM
    figure = Figure(figsize=(_WIDTH, total))
    top = total
    for panel, name, tall, over, look in zip(panels, names, heights, above, told, strict=True):
        top -= over + sum(tall)
        axes = figure.add_axes((_LEFT / _WIDTH, top / total, 1 - (_LEFT + _RIGHT) / _WIDTH, sum(tall) / total))
        # The unit of the vertical axis is an inch: a row with a long label is a taller row.
        ends = list(itertools.accumulate(tall))
        middles = [end - height / 2 for end, height in zip(ends, tall, strict=True)]
        axes.set_ylim(sum(tall), 0)
        _frame(axes, panel, middles, name)
        seen = stack(axes, panel, middles, look) if stacked else strip(axes, panel, middles, PALETTE[0])
        legend(axes, look)
        _title(axes, panel.title, seen, over)
        top -= _BOTTOM
    return figure


def _name(row: Row, campaigns: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """A row's axis label: the lines of the target, then those of what ran it, and its campaign if there are several."""
    # A target has no spaces to be broken at, but slashes and commas.
    target = [line.replace(" ", "") for line in textwrap.wrap(re.sub("([/,])", r"\1 ", row.target), 22)]
    marks = row.label.removeprefix(row.target).split(" · ")
    return target, [
        *(line for mark in marks for line in textwrap.wrap(mark, 32)),
        *([campaigns[row.campaign]] if campaigns else []),
    ]


def _frame(axes: Axes, panel: Panel, middles: Sequence[float], names: Sequence[tuple[list[str], list[str]]]) -> None:
    """What all panels have: for each row its name at the left, its number and count at the right."""
    axes.set_yticks([])
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.grid(axis="x", color=LINE, linewidth=0.6)
    for y, row, name in zip(middles, panel.rows, names, strict=True):
        _beside(axes, y, "left", *name)
        if row.estimate is None:
            reason = textwrap.fill(f"{NONE} {row.reason}", 62)
            axes.text(0.015, y, reason, transform=axes.get_yaxis_transform(), color=QUIET, fontsize=8, va="center")
        else:
            failed = [f"{row.failed} failed"] if row.failed else []
            count = interval(row.estimate, row.unit)
            _beside(axes, y, "right", [quantity(row.estimate.median, row.unit)], [count, *failed])


def _title(axes: Axes, title: str, told: str, above: float) -> None:
    """The title and what is to be seen, from the left edge, `above` inches over the axes."""
    axes.annotate(title, (0, 1), (_MARGIN, above * 72 - 14), **_POINTS, fontsize=11, fontweight="bold", va="center")
    axes.annotate(told, (0, 1), (_MARGIN, above * 72 - 29), **_POINTS, fontsize=8, color=QUIET, va="center")


def _beside(axes: Axes, y: float, side: str, loud: Sequence[str], quiet: Sequence[str]) -> None:
    """Lines of text beside a row, centred on it: what it is about, then what is to be known of it."""
    x, away, align = (_LEFT, -10, "right") if side == "left" else (_WIDTH - _RIGHT, 10, "left")
    across = blended_transform_factory(axes.figure.transFigure, axes.transData)
    at = {**_POINTS, "xycoords": across, "ha": align, "va": "center"}
    down = (len(loud) + len(quiet) - 1) * 5.2
    for number, text in enumerate([*loud, *quiet]):
        look: Any = {"fontsize": 9.5, "fontweight": "bold"} if number < len(loud) else {"fontsize": 8, "color": QUIET}
        axes.annotate(text, (x / _WIDTH, y), (away, down - number * 10.4), **at, **look)
