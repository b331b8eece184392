"""The launches of one cell as series: of each metric the totals, and what they consist of."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import attrgetter
from typing import cast

import numpy as np

from harness import metrics, store
from harness.model import Run, Sample, headline
from harness.wording import line

Values = Sequence[int | float | None]
WHICH, VALUE = attrgetter("metric", "group", "part"), attrgetter("value")


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
class Series:
    """One metric of one cell: the totals of the launches that have one with their rounds, why the others have none."""

    rounds: Sequence[int]
    values: tuple[float, ...]
    missing: Sequence[str]
    pieces: tuple[Piece, ...]

    @cached_property
    def by_round(self) -> dict[int, float]:
        """One value a round: the median, should a round have visited its cell more than once."""
        if len(found := dict(zip(self.rounds, self.values, strict=True))) == len(self.values):
            return found
        totals: dict[int, list[float]] = {}
        for number, value in zip(self.rounds, self.values, strict=True):
            totals.setdefault(number, []).append(value)
        return {number: float(np.median(values)) for number, values in totals.items()}


NOTHING = Series((), (), (), ())


@dataclass(frozen=True)
class Alike:
    """Launches of one cell that sampled alike: where they stand among all of it, their samples, and these as columns.

    metrics: the columns of each metric.
    """

    places: Sequence[int]
    samples: Sequence[Sequence[Sample]]
    columns: Sequence[Values]
    metrics: Mapping[str, Sequence[int]]


@dataclass(frozen=True)
class _Part:
    """What launches that sampled alike tell of one piece, and why some of it could not be read."""

    group: str | None
    part: str | None
    values: Values
    reason: str | None


def started(runs: Sequence[Run]) -> Series:
    """startup.total, made of the phases up to ready."""
    totals: list[float | None] = []
    phases: dict[str, list[float]] = {}
    for run in runs:
        intervals = dict(store.startup(run))
        totals.append(intervals.pop("startup.total", None))
        for name, seconds in intervals.items():
            phases.setdefault(name, []).append(seconds)
    missing = ["the run has no mark `ready`" for total in totals if total is None]
    pieces = tuple(
        Piece(line(name.removeprefix(metrics.STARTUP_PHASE)), None, None, float(np.median(times)), len(times), None)
        for name, times in phases.items()
        if name.startswith(metrics.STARTUP_PHASE)
    )
    return Series(*_known([run.round for run in runs], totals), missing, pieces)


def put_together(launches: Sequence[Sequence[Sample]]) -> list[Alike]:
    """Launches, given by their samples, put together where these are of the same metrics, groups and parts.

    There may be very many launches and there are few ways to sample: the rest is done for each way.
    """
    found: dict[tuple[tuple[str, str | None, str | None], ...], tuple[list[int], list[list[int | float | None]]]] = {}
    for at, samples in enumerate(launches):
        shape = tuple(map(WHICH, samples))
        if shape not in found:
            found[shape] = [], [[] for _ in samples]
        places, columns = found[shape]
        places.append(at)
        for column, value in zip(columns, map(VALUE, samples), strict=True):
            column.append(value)
    alike = []
    for shape, (places, columns) in found.items():
        mine: dict[str, list[int]] = {}
        for number, (metric, _, _) in enumerate(shape):
            mine.setdefault(metric, []).append(number)
        alike.append(Alike(places, [launches[at] for at in places], columns, mine))
    return alike


def sampled(metric: str, rounds: Sequence[int], alike: Sequence[Alike]) -> Series:
    """A metric of all launches of a cell, whose rounds these are."""
    totals: list[float | None] = [None] * len(rounds)
    reasons: dict[int, str | None] = {}
    pieces: dict[str, list[_Part]] = {}
    for each in alike:
        columns = each.metrics.get(metric, ())
        values = [each.columns[column] for column in _counted(each, columns)]
        if any(None in column for column in values):
            for at, samples in zip(each.places, each.samples, strict=True):
                mine = [samples[column] for column in columns]
                totals[at], reasons[at] = headline(mine, metric), _why(mine)
        elif values:
            sums = values[0] if len(values) == 1 else map(sum, zip(*values, strict=True))
            for at, total in zip(each.places, sums, strict=True):
                totals[at] = total
        for name, part in _parts(each, columns):
            pieces.setdefault(name, []).append(part)
    missing = [reasons.get(at) or "it was not sampled" for at, total in enumerate(totals) if total is None]
    return Series(*_known(rounds, totals), missing, tuple(_piece(name, parts) for name, parts in pieces.items()))


def _counted(alike: Alike, columns: Sequence[int]) -> Sequence[int]:
    """Without those that headline() skips in every launch: the workload in a VM, of which nothing can be read."""
    groups = [alike.samples[0][column].group for column in columns]
    if "guest" not in groups or None in alike.columns[columns[groups.index("guest")]]:
        return columns
    return [
        column
        for column, group in zip(columns, groups, strict=True)
        if group != "workload" or any(value is not None for value in alike.columns[column])
    ]


def _known(rounds: Sequence[int], totals: Sequence[float | None]) -> tuple[Sequence[int], tuple[float, ...]]:
    """The launches that have a total: their rounds, and it."""
    if None not in totals:
        return rounds, tuple(cast(Sequence[float], totals))
    known = [(number, total) for number, total in zip(rounds, totals, strict=True) if total is not None]
    return [number for number, _ in known], tuple(total for _, total in known)


def _parts(alike: Alike, columns: Sequence[int]) -> Iterator[tuple[str, _Part]]:
    """One of several samples has a value only where all of them have, just as the headline."""
    named: dict[str, list[int]] = {}
    for column in columns:
        first = alike.samples[0][column]
        named.setdefault(" · ".join(name for name in (first.group, first.part) if name) or "total", []).append(column)
    for name, mine in named.items():
        values = alike.columns[mine[0]]
        if len(mine) > 1:
            each = zip(*(alike.columns[column] for column in mine), strict=True)
            values = [None if None in row else sum(row) for row in each]
        reason = _why(samples[column] for samples in alike.samples for column in mine) if None in values else None
        first = alike.samples[0][mine[0]]
        yield name, _Part(first.group, first.part, values, reason)


def _why(samples: Iterable[Sample]) -> str | None:
    """The first reason of a value that could not be read."""
    return next((sample.reason for sample in samples if sample.reason is not None), None)


def _piece(name: str, parts: Sequence[_Part]) -> Piece:
    """The median of what could be read, and the first reason where something could not."""
    values = [value for part in parts for value in part.values if value is not None]
    reason = next((line(part.reason) for part in parts if part.reason is not None), None)
    group, part = (None if told is None else line(told) for told in (parts[0].group, parts[0].part))
    return Piece(line(name), group, part, float(np.median(values)) if values else None, len(values), reason)


def piece(name: str, samples: Sequence[Sample]) -> Piece:
    """What samples of one kind come to."""
    return _piece(name, [_Part(samples[0].group, samples[0].part, [s.value for s in samples], _why(samples))])
