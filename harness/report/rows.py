"""One number of one target: what its launches showed, the median of that, and its ratio to the reference."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from harness import meters
from harness.doubts import Launches
from harness.metrics import OF_IMAGE
from harness.model import Run
from harness.report.series import NOTHING, Alike, Piece, Series, put_together, sampled, started
from harness.stats.estimate import Estimate, Ratio, median_interval, ratio_interval
from harness.store import Result
from harness.wording import Labels, Words, line

SAMPLED = (
    "memory.pss", "memory.rss", "memory.uss", "memory.charged", "cpu.start", "cpu.rest", "disk.instance",
    "disk.reported_instance", "cache.resident",
)  # fmt: skip
REPORTED = ("disk.reported_instance", "disk.reported_shared")
"""Metrics that have no row for a target whose files could be read: the engine's sizes were not read."""
ROWS = ("startup.total", *SAMPLED, *OF_IMAGE)
OPTIONAL = ("memory.charged", "cpu.start", "cpu.rest", "cache.resident", *REPORTED)
"""No row where no run of the campaign has any: older results, and starts that are not cold."""
REFERENCES = ("host", "userns-chroot")


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


def cells(runs: Iterable[Run], labels: Labels) -> dict[Cell, list[Run]]:
    """The runs of each workload on each target, in the order in which they are shown."""
    found: dict[Cell, list[Run]] = {}
    for run in runs:
        found.setdefault((run.workload, run.target), []).append(run)
    return dict(sorted(found.items(), key=lambda cell: (cell[0][0], labels.order(cell[0][1]))))


def rows(
    result: Result, cells: Mapping[Cell, Sequence[Run]], labels: Labels
) -> tuple[str | None, list[Row], list[Launches]]:
    """The reference target (None where neither candidate has data), a row a workload, target and metric, and launches.

    The runs are those of the measured phase that count, failed ones among them.
    """
    ok = {cell: [run for run in runs if run.ok] for cell, runs in cells.items()}
    ran = {target for (_, target), runs in ok.items() if runs}
    reference = next((target for target in REFERENCES if target in ran), None)
    alike = {cell: put_together([run.samples for run in runs]) for cell, runs in ok.items()}
    units = {sample.metric: sample.unit for image in result.images for sample in image.samples}
    units |= {sample.metric: sample.unit for each in alike.values() for one in each for sample in one.samples[0]}
    wanted = [metric for metric in ROWS if metric in units or metric not in OPTIONAL]
    wanted += [metric for metric in units if metric not in ROWS]  # of meters of somebody else's
    made = []
    weighed = {cell: _weigh(result, cell, runs, alike[cell], wanted) for cell, runs in ok.items()}
    for (cell, runs), metric in product(cells.items(), wanted):
        workload, target = cell
        series, zero = weighed[cell][metric], NOTHING
        if metric in REPORTED and not series.pieces:
            continue
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
                failed=0 if metric in OF_IMAGE else len(runs) - len(ok[cell]),
                values=series.values,
                estimate=median_interval(series.values) if series.values else None,
                reason=_reason(series, metric),
                ratio=ratio,
                ratio_reason=None if ratio else _no_ratio(reference, series.values, zero),
                pieces=series.pieces,
            )
        )
    launches: list[Launches] = [
        (cell[1], cell[0], name, found.by_round) for cell, all_ in weighed.items() for name, found in all_.items()
    ]
    return reference, made, launches


def _weigh(
    result: Result, cell: Cell, runs: Sequence[Run], alike: Sequence[Alike], wanted: Sequence[str]
) -> dict[str, Series]:
    """The wanted metrics of one cell. The shared disk belongs to the image: it is weighed once, not each launch."""
    rounds = [run.round for run in runs]
    images = [image.samples for image in result.images if (image.workload, image.target) == cell]
    found = {metric: sampled(metric, rounds, alike) for metric in wanted}
    return found | {
        "startup.total": started(runs),
        **{metric: sampled(metric, [0] * len(images), put_together(images)) for metric in OF_IMAGE},
    }


def _reason(series: Series, metric: str) -> str | None:
    """Why there is no value, or why there are fewer than launches; None where nothing is missing."""
    launches = len(series.values) + len(series.missing)
    if not launches:
        return Words("the image was not weighed") if metric in OF_IMAGE else Words("no measured run succeeded")
    if not series.missing:
        return None
    told = line(series.missing[0])
    if not series.values:
        return told
    return Words("{missing} of {all} not read: {why}", missing=len(series.missing), all=launches, why=told)


def _no_ratio(reference: str | None, values: Sequence[float], zero: Series) -> str:
    if reference is None:
        one, other = REFERENCES
        return Words("no reference: neither {one} nor {other} has data", one=one, other=other)
    if not values:
        return Words("there is nothing to divide")
    if not zero.values:
        return Words("{reference} has no value", reference=reference)
    if 0 in zero.values:
        return Words("{reference} has 0", reference=reference)
    return Words("it shares no round with {reference}", reference=reference)
