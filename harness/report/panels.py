"""What a panel of a picture shows: every launch a point, its median and interval beside it, and stacks of pieces."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.legend import Legend
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, FuncFormatter

from harness.report import axis
from harness.report.looks import INK, PAPER, QUIET, Looks
from harness.report.rows import Row
from harness.stats.estimate import CONFIDENCE
from harness.wording import scale

LEGEND = 0.19  # inches, of each line
_UPPER, _LOWER = -0.05, 0.14  # inches from a row's middle to its launches, to its median
_INTERVAL = f"{CONFIDENCE:.0%} interval"
_TOTALS, _SHARES = 0.565, 0.36  # of a panel's width, where its stacks stand beside a log axis


@dataclass(frozen=True)
class Panel:
    title: str
    rows: list[Row]

    def range(self) -> tuple[float, float]:
        values = [value for row in self.rows for value in row.values]
        return min(values, default=0.0), max(values, default=0.0)

    def log(self) -> bool:
        return axis.needs_log(self.range())


def strip(axes: Axes, panel: Panel, middles: Sequence[float], colour: str) -> str:
    """Launches on a line. Returns what is to be seen."""
    (least, most), unit, ending = panel.range(), panel.rows[0].unit, "; log scale" if panel.log() else ""
    for y, row in zip(middles, panel.rows, strict=True):
        _launches(axes, y, row, 1.0, colour)
    if ending:
        marks = axis.marks(least / 1.1, most * 1.1, unit)
        axes.set(xscale="log", xlim=(marks[0], marks[-1]))
        axes.minorticks_off()
        axes.xaxis.set_major_locator(FixedLocator(marks[:: math.ceil(len(marks) / 6)]))
    else:
        axes.set_xlim(0, most * 1.06 or 1)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: axis.tick(value, unit)))
    if panel.rows[0].metric == "disk.shared":
        return f"Each point is one image, weighed once{ending}"
    return f"Each point is one launch, below them the median and its {_INTERVAL}{ending}"


def legend(axes: Axes, looks: Looks) -> None:
    """The lines of a legend above the axes, from the left edge of the figure. The axes must not be moved after it."""
    left, width, height = (
        pixels * 72 / axes.figure.dpi for pixels in (axes.bbox.x0, axes.bbox.width, axes.bbox.height)
    )
    bottoms = [7 + LEGEND * 72 * line for line in reversed(range(len(looks.legend)))]  # points, as are those
    how: Any = {"frameon": False, "fontsize": 8, "handlelength": 1.6, "handleheight": 1, "columnspacing": 1.4}
    how |= {"borderaxespad": 0, "borderpad": 0, "loc": "lower left", "bbox_transform": axes.transAxes}
    for line, bottom in zip(looks.legend, bottoms, strict=True):
        swatches = [
            Patch(facecolor=look.colour, hatch=look.hatch, edgecolor=PAPER, label=name) for name, look in line.items()
        ]
        at = ((10 - left) / width, 1 + bottom / height)
        axes.add_artist(Legend(axes, swatches, list(line), ncols=len(line), bbox_to_anchor=at, **how))


def stack(axes: Axes, panel: Panel, middles: Sequence[float], looks: Looks) -> str:
    """Totals and what they consist of. Returns what is to be seen.

    On a log scale the lengths of a stack's pieces would mean nothing: there each stack is one of shares, beside it.
    """
    if not panel.log():
        return _bars(axes, panel, middles, looks)
    told = strip(axes, panel, middles, PAPER)
    left, bottom, width, height = axes.get_position().bounds
    axes.set_position((left, bottom, width * _TOTALS, height))
    shares = axes.figure.add_axes((left + width * (1 - _SHARES), bottom, width * _SHARES, height))
    shares.set(yticks=[], ylim=axes.get_ylim(), xlim=(0, 100))
    for y, row in zip(middles, panel.rows, strict=True):
        _pile(shares, y, row, sum(piece.median or 0 for piece in row.pieces) / 100, looks, shares=True)
    shares.set_xticks([0, 50, 100], ["0", "50%", "100%"])
    return f"{told}. Bars: the parts' shares, by their medians"


def _bars(axes: Axes, panel: Panel, middles: Sequence[float], looks: Looks) -> str:
    """Stacked medians, with the launches on them. Returns what is to be seen."""
    _, most = panel.range()
    size, unit = scale(most, "B")
    once = panel.rows[0].metric == "disk.shared"
    for y, row in zip(middles, panel.rows, strict=True):
        _pile(axes, y if once else y + _UPPER, row, size, looks)
        if not once:
            _launches(axes, y, row, size, PAPER)
    axes.set_xlim(0, most / size * 1.06 or 1)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g} {unit}" if value else "0"))
    if once:
        return "Weighed once for each image, by part"
    return f"Bars: medians of the parts. Points: totals of the launches, below them the median and its {_INTERVAL}"


def _pile(axes: Axes, y: float, row: Row, size: float, looks: Looks, shares: bool = False) -> None:
    """A bar of the pieces; of shares, with one percentage a colour below it where there is room for it."""
    medians = {piece.name: piece.median for piece in row.pieces if row.estimate and piece.median}
    left = 0.0
    for colour, group in itertools.groupby((n for n in looks.pieces if n in medians), lambda n: looks.pieces[n].colour):
        start = left
        for name in group:
            how: Any = {"color": colour, "hatch": looks.pieces[name].hatch, "edgecolor": PAPER, "linewidth": 0.8}
            axes.barh(y, medians[name] / size, left=left, height=0.24, **how)
            left += medians[name] / size
        if shares and left - start > 14:
            axes.text(
                (start + left) / 2, y + 0.19, f"{left - start:.0f}%", fontsize=7, color=QUIET, ha="center", va="center"
            )


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
