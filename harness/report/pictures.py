"""The pictures of a report: every launch a point, its median and interval beside it, and what a total consists of."""

from __future__ import annotations

import io
import itertools
import math
import re
import textwrap
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator
from matplotlib.transforms import blended_transform_factory

from harness.report.rows import Row
from harness.report.summary import Summary
from harness.stats.estimate import CONFIDENCE
from harness.wording import NONE, interval, quantity, scale

INK, QUIET, LINE, PAPER = "#1f2328", "#59636e", "#d1d9e0", "#fefefe"
# The page's own colours, so that a picture is at home in its dark mode too.
_THEME = {INK: "--ink", QUIET: "--quiet", LINE: "--line", PAPER: "--paper"}
# Okabe & Ito's palette, told apart by those who do not see all colours; its black is the ink.
PALETTE = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442", "#999999")
_INTERVAL = f"{CONFIDENCE:.0%} interval"
_SWATCHES = 6  # in one line of a legend
HATCHES = ("", "///", "...", "xxx")
_STYLE: Any = {
    "font.family": "sans-serif",
    "font.size": 9,
    "text.color": INK,
    "axes.edgecolor": LINE,
    "axes.facecolor": "none",
    "axes.axisbelow": True,
    **{f"axes.spines.{side}": False for side in ("left", "right", "top")},
    "xtick.color": QUIET,
    "xtick.labelsize": 8,
    "xtick.major.size": 0,
    "hatch.linewidth": 0.6,
    "text.parse_math": False,  # a name with a dollar in it is a name
    "svg.fonttype": "none",
    "svg.hashsalt": "weighbridge",
}
_WIDTH, _LEFT, _RIGHT, _TOP, _BOTTOM = 8.8, 2.15, 1.85, 0.62, 0.5  # inches, as are the next four
_ROW, _UPPER, _LOWER, _LEGEND = 0.5, -0.05, 0.14, 0.19
_MARGIN = 10 - _LEFT * 72  # points from the axes to where titles begin
_POINTS: Any = {"xycoords": "axes fraction", "textcoords": "offset points", "annotation_clip": False}
_LOG_SPAN = 30.0  # from here on the smallest target would be a sliver on a linear axis
_TOTALS, _SHARES = 0.565, 0.36  # of a panel's width, where its stacks stand beside a log axis
_Looks = dict[str, tuple[str, str]]  # the colour and the hatch of each piece


@dataclass(frozen=True)
class Picture:
    """A finished drawing; the same summary gives the same bytes."""

    name: str
    title: str
    figure: Figure

    def png(self) -> bytes:
        return self._saved("png", {"Software": None}, facecolor="white", dpi=200)

    def svg(self) -> str:
        """To stand inside a page: text stays text, colours follow the page, no XML prologue."""
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        drawn = self._saved("svg", nothing, facecolor="none").decode()
        drawn = drawn[drawn.index("<svg") :]
        for colour, name in _THEME.items():
            drawn = drawn.replace(colour, f"var({name}, {colour})")
        # Several drawings share a page, where every id may be there but once.
        drawn = re.sub(r'(\bid="|"#|url\(#)', rf"\g<1>{self.name}-", drawn)
        return drawn.replace("<svg ", f'<svg role="img" aria-label="{escape(self.title)}" ', 1)

    def _saved(self, format: str, metadata: dict[str, None], **how: Any) -> bytes:
        target = io.BytesIO()
        with matplotlib.rc_context(_STYLE):
            self.figure.savefig(target, format=format, metadata=metadata, **how)
        return target.getvalue()


@dataclass(frozen=True)
class _Panel:
    title: str
    rows: list[Row]

    def range(self) -> tuple[float, float]:
        values = [value for row in self.rows for value in row.values]
        return min(values, default=0.0), max(values, default=0.0)

    def log(self) -> bool:
        least, most = self.range()
        return 0 < least < most / _LOG_SPAN


def draw(summary: Summary) -> list[Picture]:
    """Start-up, memory and disk, each with a panel a workload; none of them where nothing ran."""
    if not summary.workloads():
        return []
    start, memory = _panels(summary, "startup.total", "Start-up"), _panels(summary, "memory.pss", "Memory at rest, PSS")
    shared = _panels(summary, "disk.shared", "Disk that all instances share")
    extra = _panels(summary, "disk.instance", "Disk that one more instance adds")
    disk = [panel for pair in zip(shared, extra, strict=True) for panel in pair]
    with matplotlib.rc_context(_STYLE):
        return [
            Picture("startup", "Start-up, requested to ready", _figure(start, stacked=False)),
            Picture("memory", "Memory at rest, PSS by group", _figure(memory, stacked=True)),
            Picture("disk", "Disk, shared and of each instance, by part", _figure(disk, stacked=True)),
        ]


def _panels(summary: Summary, metric: str, title: str) -> list[_Panel]:
    workloads = summary.workloads()
    named = {name: f"{title} · {name}" for name in workloads}
    return [_Panel(named[name], [r for r in summary.rows(metric) if r.workload == name]) for name in workloads]


def _figure(panels: Sequence[_Panel], stacked: bool) -> Figure:
    several = len({row.campaign for panel in panels for row in panel.rows}) > 1
    names = [[_name(row, several) for row in panel.rows] for panel in panels]
    looks = [_looks(panel) if stacked else {} for panel in panels]
    above = [_TOP + _LEGEND * math.ceil(len(look) / _SWATCHES) for look in looks]
    heights = [[_ROW + 0.145 * max(0, len(name) + len(quiet) - 2) for name, quiet in panel] for panel in names]
    total = sum(map(sum, heights)) + sum(above) + len(panels) * _BOTTOM
    figure = Figure(figsize=(_WIDTH, total))
    top = total
    for panel, name, tall, over, look in zip(panels, names, heights, above, looks, strict=True):
        top -= over + sum(tall)
        axes = figure.add_axes((_LEFT / _WIDTH, top / total, 1 - (_LEFT + _RIGHT) / _WIDTH, sum(tall) / total))
        # The unit of the vertical axis is an inch: a row with a long label is a taller row.
        ends = list(itertools.accumulate(tall))
        middles = [end - height / 2 for end, height in zip(ends, tall, strict=True)]
        axes.set_ylim(sum(tall), 0)
        _frame(axes, panel, middles, name)
        told = _stacked(axes, panel, middles, look) if stacked else _strip(axes, panel, middles, PALETTE[0])
        _title(axes, panel.title, told, over)
        top -= _BOTTOM
    return figure


def _name(row: Row, several: bool) -> tuple[list[str], list[str]]:
    """A row's axis label: the lines of the target, then those of what ran it, and its campaign if there are several."""
    # A target has no spaces to be broken at, but slashes and commas.
    target = [line.replace(" ", "") for line in textwrap.wrap(re.sub("([/,])", r"\1 ", row.target), 22)]
    ran = row.label.removeprefix(row.target).lstrip(" ·")
    return target, [*textwrap.wrap(ran, 32), *([row.campaign] if several else [])]


def _frame(axes: Axes, panel: _Panel, middles: Sequence[float], names: Sequence[tuple[list[str], list[str]]]) -> None:
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


def _strip(axes: Axes, panel: _Panel, middles: Sequence[float], colour: str) -> str:
    """Launches on a line. Returns what is to be seen."""
    (least, most), unit, ending = panel.range(), panel.rows[0].unit, "; log scale" if panel.log() else ""
    for y, row in zip(middles, panel.rows, strict=True):
        _launches(axes, y, row, 1.0, colour)
    if ending:
        marks = _marks(least / 1.1, most * 1.1, unit)
        axes.set(xscale="log", xlim=(marks[0], marks[-1]))
        axes.minorticks_off()
        axes.xaxis.set_major_locator(FixedLocator(marks[:: math.ceil(len(marks) / 6)]))
    else:
        axes.set_xlim(0, most * 1.06 or 1)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _tick(value, unit)))
    if panel.rows[0].metric == "disk.shared":
        return f"Each point is one image, weighed once{ending}"
    return f"Each point is one launch, below them the median and its {_INTERVAL}{ending}"


def _marks(least: float, most: float, unit: str) -> list[float]:
    """What a log axis is marked at, from below the least to above the most: 1, 10 and 100 of each unit."""
    marks = [ten * (1024.0 if unit == "B" else 1000.0) ** power for power in range(-4, 6) for ten in (1, 10, 100)]
    return marks[bisect_right(marks, least) - 1 : bisect_left(marks, most) + 1]


def _stacked(axes: Axes, panel: _Panel, middles: Sequence[float], looks: _Looks) -> str:
    """Totals and what they consist of. Returns what is to be seen.

    On a log scale the lengths of a stack's pieces would mean nothing: there each stack is one of shares, beside it.
    """
    if looks:
        swatches = [Patch(facecolor=c, hatch=h, edgecolor=PAPER, label=name) for name, (c, h) in looks.items()]
        across = blended_transform_factory(axes.figure.transFigure, axes.transAxes)
        where: Any = {"loc": "lower left", "bbox_to_anchor": (4 / 72 / _WIDTH, 1.0), "bbox_transform": across}
        how: Any = {"frameon": False, "fontsize": 8, "handlelength": 1, "handleheight": 1, "columnspacing": 1.4}
        axes.legend(handles=swatches, ncols=_SWATCHES, borderaxespad=0.7, borderpad=0, **where, **how)
    if not panel.log():
        return _bars(axes, panel, middles, looks)
    told = _strip(axes, panel, middles, PAPER)
    left, bottom, width, height = axes.get_position().bounds
    axes.set_position((left, bottom, width * _TOTALS, height))
    shares = axes.figure.add_axes((left + width * (1 - _SHARES), bottom, width * _SHARES, height))
    shares.set(yticks=[], ylim=axes.get_ylim(), xlim=(0, 100))
    for y, row in zip(middles, panel.rows, strict=True):
        _stack(shares, y, row, sum(piece.median or 0 for piece in row.pieces) / 100, looks, shares=True)
    shares.set_xticks([0, 50, 100], ["0", "50%", "100%"])
    return f"{told}. Bars: the parts' shares, by their medians"


def _bars(axes: Axes, panel: _Panel, middles: Sequence[float], looks: _Looks) -> str:
    """Stacked medians, with the launches on them. Returns what is to be seen."""
    _, most = panel.range()
    size, unit = scale(most, "B")
    once = panel.rows[0].metric == "disk.shared"
    for y, row in zip(middles, panel.rows, strict=True):
        _stack(axes, y if once else y + _UPPER, row, size, looks)
        if not once:
            _launches(axes, y, row, size, PAPER)
    axes.set_xlim(0, most / size * 1.06 or 1)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g} {unit}" if value else "0"))
    if once:
        return "Weighed once for each image, by part"
    return f"Bars: medians of the parts. Points: totals of the launches, below them the median and its {_INTERVAL}"


def _stack(axes: Axes, y: float, row: Row, size: float, looks: _Looks, shares: bool = False) -> None:
    """A bar of the pieces; of shares, each with its percentage where there is room for it."""
    left = 0.0
    for name, median in [(piece.name, piece.median) for piece in row.pieces if row.estimate and piece.median]:
        colour, hatch = looks[name]
        width = median / size
        how: Any = {"color": colour, "hatch": hatch, "edgecolor": PAPER, "linewidth": 0.8}
        axes.barh(y, width, left=left, height=0.24, **how)
        if shares and width > 17 and not hatch:
            how = {"ha": "center", "va": "center_baseline", "color": "white" if colour == PALETTE[0] else "black"}
            axes.text(left + width / 2, y, f"{width:.0f}%", fontsize=8, **how)
        left += width


def _looks(panel: _Panel) -> _Looks:
    """A colour for each piece of a panel, and a hatch besides where there are more pieces than colours."""
    names = dict.fromkeys(piece.name for row in panel.rows for piece in row.pieces if piece.median)
    ways = itertools.cycle(itertools.product(HATCHES, PALETTE))
    return {name: (colour, hatch) for name, (hatch, colour) in zip(names, ways, strict=False)}


def _launches(axes: Axes, y: float, row: Row, size: float, colour: str) -> None:
    """Every launch in the upper lane of its row, the median with its interval in the lower one: neither hides a point.

    The jitter is a fixed one: as many levels as launches, taken in strides so that neighbours are apart.
    """
    if row.estimate is None:
        return
    n, values = len(row.values), [value / size for value in row.values]
    stride = next(step for step in range(round(0.618 * n), n + 2) if math.gcd(step, n) == 1)
    levels = [(number * stride % n + 0.5) / n - 0.5 for number in range(n)]
    jitter = [y + _UPPER + 0.2 * level for level in levels]
    edge = INK if colour == PAPER else PAPER
    axes.scatter(values, jitter, s=13, color=colour, edgecolor=edge, linewidth=0.7, zorder=3, clip_on=False)
    if n == 1:
        return
    low, median, high = (bound / size for bound in (row.estimate.low, row.estimate.median, row.estimate.high))
    how: Any = {"color": INK, "zorder": 4, "solid_capstyle": "butt", "clip_on": False}
    axes.plot([low, high], [y + _LOWER, y + _LOWER], linewidth=1.3, **how)
    axes.plot([median, median], [y + _LOWER - 0.04, y + _LOWER + 0.04], linewidth=2.0, **how)


def _tick(value: float, unit: str) -> str:
    size, name = scale(value, unit)
    return f"{value / size:g} {name}".rstrip()
