"""Base against head: for every workload, target and metric whether it got worse, by how much, and how that is known."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from harness import comparable, doubts, meters
from harness.errors import BadInput, Incomparable
from harness.gate import Gate, Threshold
from harness.metrics import OF_IMAGE
from harness.model import Plan, Run, Side, headline
from harness.plan import sides
from harness.stats.compare import ALPHA
from harness.store import Result, amount
from harness.verdict import Comparison, Question, Verdict, Weighed, judge
from harness.wording import Words, line, short_label

Design = Literal["interleaved", "campaigns"]
Key = tuple[str, str]
"""A workload and a target."""
Values = Mapping[str, Mapping[int, float]]
"""Of each metric one value a round, of one cell in one campaign."""


@dataclass(frozen=True)
class Compared:
    """All of one comparison. base, head: the campaigns. missing: what only one side has, with the reason.

    started: when the newest campaign of the head began (RFC 3339).
    """

    design: Design
    base: tuple[str, ...]
    head: tuple[str, ...]
    comparisons: tuple[Comparison, ...]
    missing: tuple[str, ...]
    notes: tuple[str, ...]
    alpha: float = ALPHA
    started: str = ""

    def of(self, verdict: Verdict) -> list[Comparison]:
        return [each for each in self.comparisons if each.verdict == verdict]

    @property
    def head_failed(self) -> int:
        """Launches of the head that failed."""
        return sum({(each.workload, each.target): each.head.failed for each in self.comparisons}.values())


@dataclass(frozen=True)
class _Cell:
    """What one side knows of one workload on one target: a Values for each campaign that ran it."""

    campaigns: tuple[Values, ...] = ()
    failed: int = 0


@dataclass(frozen=True)
class _Half:
    """One side: the results that it is in, which of their sides it is, and its cells."""

    name: str
    results: Sequence[Result]
    side: Side | None
    cells: Mapping[Key, _Cell]

    def label(self, target: str) -> str:
        found = ((result.header.host.lab, record) for result in self.results for record in result.targets)
        mine = ((lab, record) for lab, record in found if record.target == target and record.side == self.side)
        return next((short_label(record, lab) for lab, record in mine), line(target))

    def lacking(self, keys: Iterable[Key]) -> Iterator[str]:
        """What there is nothing of, a sentence a target, with the reason where one is known."""
        workloads: dict[str, list[str]] = {}
        for workload, target in keys:
            if (workload, target) not in self.cells:
                workloads.setdefault(target, []).append(line(workload))
        for target, names in workloads.items():
            absent = (absent for result in self.results for absent in result.unavailable)
            reasons = (line(each.reason) for each in absent if each.target == target and each.side == self.side)
            told = Words(
                "{side} has not measured {target} with {workloads}",
                side=Words(self.name),
                target=line(target),
                workloads=", ".join(names),
            )
            why = ": ".join(dict.fromkeys(reasons))
            yield Words("{told}: {why}", told=told, why=why) if why else told


def interleaved(result: Result, gate: Gate) -> Compared:
    """The two sides of one campaign. Raises BadInput where it has none, Incomparable where they share nothing."""
    comparable.check([result])
    base, head, pairs = _sides(result, gate)
    targets = dict.fromkeys((ours[1], theirs[1]) for ours, theirs in pairs)
    notes = [note for ours, theirs in targets for note in _engines_differ(result, ours, theirs)]
    return _compared("interleaved", gate, base, head, pairs, notes)


def campaigns(
    base: Sequence[Result],
    head: Sequence[Result],
    gate: Gate,
    allowed: Collection[str] = (),
    notes: Sequence[str] = (),
) -> Compared:
    """Campaigns that were not interleaved. allowed: gating fields that may differ. notes: to be shown with the rest.

    Raises Incomparable for fields that differ, and where they share nothing.
    """
    for result in (*base, *head):
        if result.header.plan.sides:
            raise BadInput(f"{result.path} holds two sides, which are compared with each other: give it alone")
    ids = [result.header.campaign for result in (*base, *head)]
    if twice := [one for one in ids if ids.count(one) > 1]:
        raise BadInput(f"campaign {twice[0]} was given twice")
    notes = [*notes, *comparable.check([*base, *head], allowed)]
    ours, theirs = _half("base", base, gate), _half("head", head, gate)
    planned = dict.fromkeys(key for result in (*base, *head) for key in _keys(result.header.plan))
    pairs = [(key, key) for key in planned if key in ours.cells or key in theirs.cells]
    return _compared("campaigns", gate, ours, theirs, pairs, notes)


def confirmed(first: Compared, second: Compared) -> Compared:
    """The first campaign's answers, of which a regression stays one only where the second campaign shows it too."""
    answers = {each.name: each for each in second.comparisons}

    def checked(each: Comparison) -> Comparison:
        other = answers.get(each.name)
        if each.verdict != "regressed" or (other and other.verdict == "regressed"):
            return each
        told = Words("it could not be measured again")
        if other:
            verdict = Words(other.verdict)
            told = Words("it regressed, and was {verdict} when it was measured again", verdict=verdict)
        return replace(each, verdict="undecided", reason=told)

    note = Words("Measured again, to confirm: campaign {ids}", ids=", ".join(second.head))
    return replace(first, comparisons=tuple(map(checked, first.comparisons)), notes=(*first.notes, note))


def questions(result: Result, gate: Gate) -> list[Question]:
    """What `interleaved` has judged, for who wants to judge it otherwise."""
    return _questions("interleaved", gate, *_sides(result, gate))


def _sides(result: Result, gate: Gate) -> tuple[_Half, _Half, list[tuple[Key, Key]]]:
    if not result.header.plan.sides:
        raise BadInput(f"{result.path} holds no two sides: give a base and a head")
    base, head = _half("base", [result], gate, "base"), _half("head", [result], gate, "head")
    return base, head, list(zip(*(_keys(plan) for plan in sides(result.header.plan).values()), strict=True))


def _keys(plan: Plan) -> list[Key]:
    """A workload that is a folder goes by the folder's name."""
    return [(Path(workload).name, target) for workload in plan.workloads for target in plan.targets]


def _half(name: str, results: Sequence[Result], gate: Gate, side: Side | None = None) -> _Half:
    cells: dict[Key, _Cell] = {}
    for result in results:
        cold = result.header.plan.cold is not None
        runs: dict[Key, list[Run]] = {}
        for run in result.runs:
            if run.phase == "measured" and run.side == side and run.cold is cold and run.instances == 1:
                runs.setdefault((run.workload, run.target), []).append(run)
        for key, mine in runs.items():
            cell = cells.get(key, _Cell())
            values = {metric: _by_round(metric, mine) for metric in gate} | _of_image(result, key, side)
            cells[key] = _Cell((*cell.campaigns, values), cell.failed + sum(not run.ok for run in mine))
    return _Half(name, results, side, cells)


def _by_round(metric: str, runs: Iterable[Run]) -> dict[int, float]:
    values = ((run.round, amount(run, metric)) for run in runs)
    return {number: value for number, value in values if value is not None}


def _of_image(result: Result, key: Key, side: Side | None) -> dict[str, dict[int, float]]:
    images = (image for image in result.images if (image.workload, image.target, image.side) == (*key, side))
    samples = next((image.samples for image in images), [])
    weighed = {metric: headline(samples, metric) for metric in OF_IMAGE}
    return {metric: {} if value is None else {0: value} for metric, value in weighed.items()}


def _compared(
    design: Design, gate: Gate, base: _Half, head: _Half, pairs: Sequence[tuple[Key, Key]], notes: Sequence[str]
) -> Compared:
    asked = _questions(design, gate, base, head, pairs)
    missing = [*base.lacking(ours for ours, _ in pairs), *head.lacking(theirs for _, theirs in pairs)]
    return Compared(
        design,
        tuple(result.header.campaign for result in base.results),
        tuple(result.header.campaign for result in head.results),
        tuple(judge(asked)),
        tuple(missing),
        (*notes, *_disturbed((*base.results, *(head.results if design == "campaigns" else ())))),
        started=max(line(result.header.started) for result in head.results),
    )


def _disturbed(results: Sequence[Result]) -> Iterator[str]:
    """One that did not run alone is no reason for a verdict, and one to look twice."""
    for result in results:
        for doubt in doubts.of_host(result):
            yield Words("campaign {id}: {doubt}", id=line(result.header.campaign), doubt=doubt.told)


def _questions(
    design: Design, gate: Gate, base: _Half, head: _Half, pairs: Sequence[tuple[Key, Key]]
) -> list[Question]:
    shared = [(ours, theirs) for ours, theirs in pairs if ours in base.cells and theirs in head.cells]
    if not shared:
        raise Incomparable("base and head have no target with the same workload that both measured")
    asked = [
        question
        for ours, theirs in shared
        for metric, threshold in gate.items()
        for question in _question(design, metric, threshold, base, head, ours, theirs)
    ]
    if unrecorded := sorted(gate.keys() - {question.metric for question in asked}):
        raise BadInput(f"there is a threshold for {unrecorded[0]}, and neither side recorded any")
    return asked


def _question(
    design: Design, metric: str, threshold: Threshold, base: _Half, head: _Half, ours: Key, theirs: Key
) -> Iterator[Question]:
    """One, or none where neither side has a value, as of memory that the user may not read."""
    cells = base.cells[ours], head.cells[theirs]
    known = [[values[metric] for values in cell.campaigns if values.get(metric)] for cell in cells]
    if not any(known):
        return
    paired = design == "interleaved"
    medians = [[float(np.median([*values.values()])) for values in side] for side in known]
    sizes = [len(side[0]) if paired and side else len(side) for side in known]
    weighed = [
        Weighed(float(np.median(found)) if found else None, size, cell.failed)
        for found, size, cell in zip(medians, sizes, cells, strict=True)
    ]
    titles = [(line(key[0]), half.label(key[1])) for half, key in ((base, ours), (head, theirs))]
    workload, target = (one if one == other else f"{one} → {other}" for one, other in zip(*titles, strict=True))
    yield Question(
        workload=workload,
        target=target,
        metric=metric,
        unit=meters.metric(metric, "1").unit,
        threshold=threshold,
        base=weighed[0],
        head=weighed[1],
        rounds=(known[0][0] if known[0] else {}, known[1][0] if known[1] else {}) if paired else None,
        campaigns=(medians[0], medians[1]),
        exact=paired and metric in OF_IMAGE,
    )


def _engines_differ(result: Result, ours: str, theirs: str) -> Iterator[str]:
    """What stands behind the two sides of a target, as far as they differ."""
    fields = [
        dict(comparable.engine(record))
        for side, target in (("base", ours), ("head", theirs))
        for record in result.targets
        if (record.side, record.target) == (side, target)
    ]
    if len(fields) < 2:
        return
    changed = [name for name, value in fields[0].items() if fields[1].get(name) != value]
    if told := [f"{name} {line(str(fields[0][name]))} → {line(str(fields[1].get(name)))}" for name in changed]:
        yield f"{line(ours)}: {'; '.join(told)}"
