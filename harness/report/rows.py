"""One number of one target: what its launches showed, the median of that, and its ratio to the reference."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True)
class _Weighing:
    """One metric as one launch showed it: the total, or the reason why there is none, and its pieces."""

    round: int
    total: float | None
    reason: str | None
    pieces: dict[str, Sample]


def rows(result: Result, runs: Sequence[Run], labels: Labels) -> tuple[str | None, list[Row]]:
    """The reference target (None where neither candidate has data) and a row a workload, target and metric.

    `runs` are those of the measured phase that count, failed ones among them.
    """
    cells: dict[tuple[str, str], list[Run]] = {}
    for run in sorted(runs, key=lambda run: (run.workload, labels.order(run.target))):
        cells.setdefault((run.workload, run.target), []).append(run)
    ran = {run.target for run in runs if run.ok}
    reference = next((target for target in REFERENCES if target in ran), None)
    sampled = {sample.metric: sample.unit for run in runs for sample in run.samples}
    wanted = [metric for metric in ROWS if metric in sampled or metric not in OPTIONAL]
    wanted += [metric for metric in sampled if metric not in ROWS]  # of meters of somebody else's
    weighed = {cell: _weigh(result, mine, wanted) for cell, mine in cells.items()}
    made = []
    for (workload, target), metric in product(cells, wanted):
        weighings = weighed[workload, target][metric]
        values = tuple(weighing.total for weighing in weighings if weighing.total is not None)
        zero = weighed[workload, reference][metric] if reference and (workload, reference) in weighed else []
        ratio = ratio_interval(_by_round(weighings), _by_round(zero))
        made.append(
            Row(
                campaign=line(result.header.campaign),
                target=line(target),
                label=labels[target],
                workload=line(workload),
                metric=line(metric),
                unit=line(meters.metric(metric, sampled.get(metric, "1")).unit),
                failed=0 if metric == "disk.shared" else sum(not run.ok for run in cells[workload, target]),
                values=values,
                estimate=median_interval(values) if values else None,
                reason=_reason(weighings, metric),
                ratio=ratio,
                ratio_reason=None if ratio else _no_ratio(reference, values, zero),
                pieces=_pieces(weighings),
            )
        )
    return reference, made


def _weigh(result: Result, runs: Sequence[Run], wanted: Sequence[str]) -> dict[str, list[_Weighing]]:
    """The wanted metrics of one cell. The shared disk belongs to the image: it is weighed once, not each launch."""
    ok = [run for run in runs if run.ok]
    cell = (runs[0].workload, runs[0].target)
    images = [image for image in result.images if (image.workload, image.target) == cell]
    weighed = {metric: [_sampled(run.round, run.samples, metric) for run in ok] for metric in wanted}
    weighed["startup.total"] = [_started(run) for run in ok]
    weighed["disk.shared"] = [_sampled(0, image.samples, "disk.shared") for image in images]
    return weighed


def _started(run: Run) -> _Weighing:
    intervals = {name: value for name, value in store.startup(run) if name.startswith(metrics.STARTUP_PHASE)}
    total = intervals.pop("startup.total", None)
    reason = None if total is not None else "the run has no mark `ready`"
    pieces = {name.removeprefix(metrics.STARTUP_PHASE): Sample(name, "s", at) for name, at in intervals.items()}
    return _Weighing(run.round, total, reason, pieces)


def _sampled(round: int, samples: Sequence[Sample], metric: str) -> _Weighing:
    mine = [sample for sample in samples if sample.metric == metric]
    total = headline(mine, metric)
    told = next((sample.reason for sample in mine if sample.reason is not None), "it was not sampled")
    pieces: dict[str, Sample] = {}
    for sample in mine:
        key = " · ".join(name for name in (sample.group, sample.part) if name) or "total"
        before = pieces.get(key)
        # A piece of several samples has a value only where all of them have, just as the headline.
        if before is None or before.value is None:
            pieces[key] = sample if before is None else before
        elif sample.value is None:
            pieces[key] = sample
        else:
            pieces[key] = msgspec.structs.replace(sample, value=before.value + sample.value)
    return _Weighing(round, total, None if total is not None else told, pieces)


def _by_round(weighings: Iterable[_Weighing]) -> dict[int, float]:
    """One value a round: the median, should a round have visited its cell more than once."""
    totals: dict[int, list[float]] = {}
    for weighing in weighings:
        if weighing.total is not None:
            totals.setdefault(weighing.round, []).append(weighing.total)
    return {round: float(np.median(values)) for round, values in totals.items()}


def _reason(weighings: Sequence[_Weighing], metric: str) -> str | None:
    """Why there is no value, or why there are fewer than launches; None where nothing is missing."""
    if not weighings:
        return "the image was not weighed" if metric == "disk.shared" else "no measured run succeeded"
    missing = [weighing.reason for weighing in weighings if weighing.reason is not None]
    if not missing:
        return None
    told = line(missing[0])
    return told if len(missing) == len(weighings) else f"{len(missing)} of {len(weighings)} not read: {told}"


def _no_ratio(reference: str | None, values: Sequence[float], zero: Sequence[_Weighing]) -> str:
    if reference is None:
        return f"no reference: neither {' nor '.join(REFERENCES)} has data"
    if not values or all(weighing.total is None for weighing in zero):
        return "there is nothing to divide" if not values else f"{reference} has no value"
    if any(weighing.total == 0 for weighing in zero):
        return f"{reference} has 0"
    return f"it shares no round with {reference}"


def _pieces(weighings: Sequence[_Weighing]) -> tuple[Piece, ...]:
    """The pieces in the order in which they first appear."""
    names = dict.fromkeys(name for weighing in weighings for name in weighing.pieces)
    return tuple(piece(name, [w.pieces[name] for w in weighings if name in w.pieces]) for name in names)


def piece(name: str, samples: Sequence[Sample]) -> Piece:
    """The median of what could be read, and the first reason where something could not."""
    values = [sample.value for sample in samples if sample.value is not None]
    reason = next((line(sample.reason) for sample in samples if sample.reason is not None), None)
    group, part = (None if told is None else line(told) for told in (samples[0].group, samples[0].part))
    return Piece(line(name), group, part, float(np.median(values)) if values else None, len(values), reason)
