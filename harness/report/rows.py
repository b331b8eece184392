"""One number of one target: what its launches showed, the median of that, and its ratio to the reference."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product

import msgspec
import numpy as np

from harness import meters, metrics, store
from harness.model import Run, Sample, headline
from harness.stats.estimate import Estimate, Ratio, median_interval, ratio_interval
from harness.store import Result
from harness.wording import Labels, line

SAMPLED = (
    "memory.pss", "memory.rss", "memory.uss", "memory.charged", "cpu.start", "cpu.rest", "disk.instance",
    "cache.resident",
)  # fmt: skip
ROWS = ("startup.total", *SAMPLED, "disk.shared")
OPTIONAL = ("memory.charged", "cpu.start", "cpu.rest", "cache.resident")
"""No row where no run of the campaign has any: older results, and starts that are not cold."""
REFERENCES = ("host", "userns-chroot")


@dataclass(frozen=True)
class Piece:
    """What a total consists of: a start-up phase, a disk part, a kind of a group's memory. Its median just describes.

    `name` is the phase, or "group · part" of those of the two that the samples have.
    """

    name: str
    group: str | None
    part: str | None
    median: float | None
    n: int
    reason: str | None


@dataclass(frozen=True)
class Row:
    """One metric of one target under one workload in one campaign.

    `values` has one entry for each measured run that could be read, in the metric's unit; `estimate` is None, with a
    reason, where there is none; a reason beside an estimate says what is missing from it. `ratio` is to the campaign's
    reference target, or None with its own reason. `failed` counts measured runs; the
    shared disk is of no run.
    """

    campaign: str
    target: str
    label: str
    workload: str
    metric: str
    unit: str
    failed: int
    values: tuple[float, ...]
    estimate: Estimate | None
    reason: str | None
    ratio: Ratio | None
    ratio_reason: str | None
    pieces: tuple[Piece, ...]


Cell = tuple[str, str]
"""A workload and a target."""
Column = Sequence[Sample]
"""What launches that sampled alike have in the same place."""


@dataclass(frozen=True)
class _Series:
    """One metric of one cell, launch by launch: its round, and the total or the reason why there is none."""

    rounds: Sequence[int]
    totals: Sequence[float | None]
    reasons: Sequence[str | None]
    pieces: tuple[Piece, ...]

    @cached_property
    def values(self) -> tuple[float, ...]:
        return tuple(total for total in self.totals if total is not None)

    @cached_property
    def by_round(self) -> dict[int, float]:
        """One value a round: the median, should a round have visited its cell more than once."""
        known = [(number, total) for number, total in zip(self.rounds, self.totals, strict=True) if total is not None]
        if len(found := dict(known)) == len(known):
            return found
        totals: dict[int, list[float]] = {}
        for number, total in known:
            totals.setdefault(number, []).append(total)
        return {number: float(np.median(each)) for number, each in totals.items()}


NOTHING = _Series((), (), (), ())


@dataclass(frozen=True)
class _Alike:
    """Launches of one cell that sampled alike: where they stand among all of it, and each metric's columns."""

    places: Sequence[int]
    columns: Mapping[str, Sequence[Column]]


def cells(runs: Iterable[Run], labels: Labels) -> dict[Cell, list[Run]]:
    """The runs of each workload on each target, in the order in which they are shown."""
    found: dict[Cell, list[Run]] = {}
    for run in runs:
        found.setdefault((run.workload, run.target), []).append(run)
    return dict(sorted(found.items(), key=lambda cell: (cell[0][0], labels.order(cell[0][1]))))


def rows(result: Result, cells: Mapping[Cell, Sequence[Run]], labels: Labels) -> tuple[str | None, list[Row]]:
    """The reference target (None where neither candidate has data) and a row a workload, target and metric.

    The runs are those of the measured phase that count, failed ones among them.
    """
    ok = {cell: [run for run in runs if run.ok] for cell, runs in cells.items()}
    ran = {target for (_, target), runs in ok.items() if runs}
    reference = next((target for target in REFERENCES if target in ran), None)
    alike = {cell: _alike([run.samples for run in runs]) for cell, runs in ok.items()}
    units = {
        name: columns[0][0].unit for each in alike.values() for one in each for name, columns in one.columns.items()
    }
    wanted = [metric for metric in ROWS if metric in units or metric not in OPTIONAL]
    wanted += [metric for metric in units if metric not in ROWS]  # of meters of somebody else's
    made = []
    weighed = {cell: _weigh(result, cell, runs, alike[cell], wanted) for cell, runs in ok.items()}
    for (cell, runs), metric in product(cells.items(), wanted):
        workload, target = cell
        series, zero = weighed[cell][metric], NOTHING
        if reference and (workload, reference) in weighed:
            zero = weighed[workload, reference][metric]
        ratio = ratio_interval(series.by_round, zero.by_round)
        made.append(
            Row(
                campaign=line(result.header.campaign),
                target=line(target),
                label=labels[target],
                workload=line(workload),
                metric=line(metric),
                unit=line(meters.metric(metric, units.get(metric, "1")).unit),
                failed=0 if metric == "disk.shared" else len(runs) - len(ok[cell]),
                values=series.values,
                estimate=median_interval(series.values) if series.values else None,
                reason=_reason(series, metric),
                ratio=ratio,
                ratio_reason=None if ratio else _no_ratio(reference, series.values, zero),
                pieces=series.pieces,
            )
        )
    return reference, made


def _weigh(
    result: Result, cell: Cell, runs: Sequence[Run], alike: Sequence[_Alike], wanted: Sequence[str]
) -> dict[str, _Series]:
    """The wanted metrics of one cell. The shared disk belongs to the image: it is weighed once, not each launch."""
    rounds = [run.round for run in runs]
    images = [image.samples for image in result.images if (image.workload, image.target) == cell]
    found = {metric: _series(metric, rounds, alike) for metric in wanted}
    return found | {
        "startup.total": _started(runs),
        "disk.shared": _series("disk.shared", [0] * len(images), _alike(images)),
    }


def _started(runs: Sequence[Run]) -> _Series:
    intervals = [dict(store.startup(run)) for run in runs]
    totals = [each.get("startup.total") for each in intervals]
    reasons = [None if total is not None else "the run has no mark `ready`" for total in totals]
    phases: dict[str, list[float]] = {}
    for each in intervals:
        for name, seconds in each.items():
            phases.setdefault(name, []).append(seconds)
    pieces = tuple(
        Piece(line(name.removeprefix(metrics.STARTUP_PHASE)), None, None, float(np.median(times)), len(times), None)
        for name, times in phases.items()
        if name.startswith(metrics.STARTUP_PHASE) and name != "startup.total"
    )
    return _Series([run.round for run in runs], totals, reasons, pieces)


def _alike(launches: Sequence[Sequence[Sample]]) -> list[_Alike]:
    """Launches, given by their samples, put together where these are of the same metrics, groups and parts.

    There may be very many launches and there are few ways to sample: the rest is done for each way.
    """
    places: dict[tuple[tuple[str, str | None, str | None], ...], list[int]] = {}
    for at, samples in enumerate(launches):
        places.setdefault(tuple([(s.metric, s.group, s.part) for s in samples]), []).append(at)
    found = []
    for shape, mine in places.items():
        columns: dict[str, list[Column]] = {}
        for (metric, _, _), column in zip(shape, zip(*(launches[at] for at in mine), strict=True), strict=True):
            columns.setdefault(metric, []).append(column)
        found.append(_Alike(mine, columns))
    return found


def _series(metric: str, rounds: Sequence[int], alike: Sequence[_Alike]) -> _Series:
    totals: list[float | None] = [None] * len(rounds)
    reasons: list[str | None] = ["it was not sampled"] * len(rounds)
    pieces: dict[str, list[Sample]] = {}
    for each in alike:
        columns = each.columns.get(metric, ())
        values = [[sample.value for sample in column] for column in columns]
        if any(None in column for column in values):
            for at, samples in zip(each.places, zip(*columns, strict=True), strict=True):
                totals[at] = headline(samples, metric)
                told = next((sample.reason for sample in samples if sample.reason is not None), None)
                reasons[at] = told if totals[at] is None else None
        else:
            for at, total in zip(each.places, map(sum, zip(*values, strict=True)), strict=bool(values)):
                totals[at], reasons[at] = total, None
        for name, column in _by_name(columns).items():
            pieces.setdefault(name, []).extend(column)
    return _Series(rounds, totals, reasons, tuple(piece(name, samples) for name, samples in pieces.items()))


def _by_name(columns: Sequence[Column]) -> dict[str, Column]:
    """A column a piece. One of several samples has a value only where all of them have, just as the headline."""
    named: dict[str, list[Column]] = {}
    for column in columns:
        named.setdefault(" · ".join(n for n in (column[0].group, column[0].part) if n) or "total", []).append(column)
    return {
        name: mine[0] if len(mine) == 1 else [_sum(samples) for samples in zip(*mine, strict=True)]
        for name, mine in named.items()
    }


def _sum(samples: Sequence[Sample]) -> Sample:
    values = [sample.value for sample in samples if sample.value is not None]
    if len(values) < len(samples):
        return next(sample for sample in samples if sample.value is None)
    return msgspec.structs.replace(samples[0], value=sum(values))


def _reason(series: _Series, metric: str) -> str | None:
    """Why there is no value, or why there are fewer than launches; None where nothing is missing."""
    if not series.rounds:
        return "the image was not weighed" if metric == "disk.shared" else "no measured run succeeded"
    missing = [reason for reason in series.reasons if reason is not None]
    if not missing:
        return None
    told = line(missing[0])
    return told if len(missing) == len(series.rounds) else f"{len(missing)} of {len(series.rounds)} not read: {told}"


def _no_ratio(reference: str | None, values: Sequence[float], zero: _Series) -> str:
    if reference is None:
        return f"no reference: neither {' nor '.join(REFERENCES)} has data"
    if not values or not zero.values:
        return "there is nothing to divide" if not values else f"{reference} has no value"
    if 0 in zero.values:
        return f"{reference} has 0"
    return f"it shares no round with {reference}"


def piece(name: str, samples: Sequence[Sample]) -> Piece:
    """The median of what could be read, and the first reason where something could not."""
    values = [sample.value for sample in samples if sample.value is not None]
    reason = next((line(sample.reason) for sample in samples if sample.reason is not None), None)
    group, part = (None if told is None else line(told) for told in (samples[0].group, samples[0].part))
    return Piece(line(name), group, part, float(np.median(values)) if values else None, len(values), reason)
