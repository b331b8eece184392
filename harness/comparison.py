"""Base against head: for every workload, target and metric whether it got worse, by how much, and how that is known."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from harness import comparable, meters
from harness.errors import BadInput
from harness.gate import Gate, Threshold
from harness.model import Run, Side, headline
from harness.plan import sides
from harness.stats import compare as stats
from harness.stats.compare import ALPHA, FEWEST_CAMPAIGNS, Change
from harness.store import Result, startup
from harness.wording import label

Verdict = Literal["regressed", "improved", "unchanged", "undecided"]
Design = Literal["interleaved", "campaigns"]
OF_THE_IMAGE = "disk.shared"
"""Weighed once, when an image is made ready: no sample of launches, but what it is."""
MOST_ROUNDS, MOST_CAMPAIGNS = 1000, 100
"""More is no advice."""


@dataclass(frozen=True)
class Weighed:
    """One side of a comparison. median: over launches, or of the campaigns' medians. n: of these; failed: launches."""

    median: float | None
    n: int
    failed: int


@dataclass(frozen=True)
class Comparison:
    """One metric of one target under one workload.

    change: head's amount as a multiple of base's, or, where `relative` is False because one has a 0, head less base in
    `unit`; low and high: its 95 % interval, None where there is none. n: the rounds, or the base's campaigns. p: of "it
    got worse by no more than the threshold", adjusted for all that was compared. smallest: the fraction (or amount)
    by which it would have to get worse to be found in 4 of 5 such comparisons. reason: why the verdict is not more.
    """

    workload: str
    target: str
    metric: str
    unit: str
    base: Weighed
    head: Weighed
    verdict: Verdict
    threshold: Threshold
    relative: bool = True
    change: float | None = None
    low: float | None = None
    high: float | None = None
    n: int = 0
    p: float | None = None
    smallest: float | None = None
    reason: str = ""

    @property
    def name(self) -> str:
        return f"{self.metric} of {self.target} with {self.workload}"


@dataclass(frozen=True)
class Compared:
    """All of one comparison. base, head: the campaigns. missing: what only one side has, with the reason."""

    design: Design
    base: tuple[str, ...]
    head: tuple[str, ...]
    comparisons: tuple[Comparison, ...]
    missing: tuple[str, ...]
    notes: tuple[str, ...]
    alpha: float = ALPHA

    def of(self, verdict: Verdict) -> list[Comparison]:
        return [each for each in self.comparisons if each.verdict == verdict]

    @property
    def head_failed(self) -> int:
        """Launches of the head that failed."""
        return sum({(each.workload, each.target): each.head.failed for each in self.comparisons}.values())


Key = tuple[str, str]
"""A workload and a target."""
Values = Mapping[str, Mapping[int, float]]
"""Of each metric one value a round, of one cell in one campaign."""


@dataclass(frozen=True)
class _Cell:
    """What one side knows of one workload on one target: a Values for each campaign that ran it."""

    campaigns: list[Values]
    failed: int


def interleaved(result: Result, gate: Gate) -> Compared:
    """The two sides of one campaign. Raises BadInput where it has none, or they share nothing."""
    comparable.check([result])
    if not result.header.plan.sides:
        raise BadInput(f"{result.path} holds no two sides: give a base and a head")
    base, head = (_cells([result], gate, side) for side in ("base", "head"))
    pairs = list(zip(*(_keys(plan) for plan in sides(result.header.plan).values()), strict=True))
    notes = [note for note in (_engine_note(result, ours, theirs) for ours, theirs in pairs) if note]
    return _compared("interleaved", gate, [result], [result], base, head, pairs, notes)


def campaigns(base: Sequence[Result], head: Sequence[Result], gate: Gate, allowed: Collection[str] = ()) -> Compared:
    """Campaigns that were not interleaved. Raises Incomparable, and BadInput where they share nothing."""
    for result in (*base, *head):
        if result.header.plan.sides:
            raise BadInput(f"{result.path} holds two sides, which are compared with each other: give it alone")
    ids = [result.header.campaign for result in (*base, *head)]
    if twice := [one for one in ids if ids.count(one) > 1]:
        raise BadInput(f"campaign {twice[0]} was given twice")
    notes = comparable.check([*base, *head], allowed)
    ours, theirs = _cells(base, gate), _cells(head, gate)
    pairs = [(key, key) for key in dict.fromkeys([*ours, *theirs])]
    return _compared("campaigns", gate, base, head, ours, theirs, pairs, notes)


def _keys(plan: Plan) -> list[Key]:
    """A workload that is a folder goes by the folder's name."""
    return [(Path(workload).name, target) for workload in plan.workloads for target in plan.targets]


def _cells(results: Sequence[Result], gate: Gate, side: Side | None = None) -> dict[Key, _Cell]:
    found: dict[Key, _Cell] = {}
    for result in results:
        runs: dict[Key, list[Run]] = {}
        for run in result.runs:
            cold = result.header.plan.cold is not None
            if run.phase == "measured" and run.side == side and run.cold is cold and run.instances == 1:
                runs.setdefault((run.workload, run.target), []).append(run)
        for key, mine in runs.items():
            shared = [image.samples for image in result.images if (image.workload, image.target, image.side) == (*key, side)]
            values = {metric: _by_round(metric, mine) for metric in gate}
            if OF_THE_IMAGE in gate:
                known = headline(shared[-1], OF_THE_IMAGE) if shared else None
                values[OF_THE_IMAGE] = {} if known is None else {0: known}
            cell = found.setdefault(key, _Cell([], 0))
            found[key] = _Cell([*cell.campaigns, values], cell.failed + sum(not run.ok for run in mine))
    return found


def _by_round(metric: str, runs: Iterable[Run]) -> dict[int, float]:
    values = ((run.round, dict(startup(run)).get(metric, headline(run.samples, metric))) for run in runs if run.ok)
    return {number: value for number, value in values if value is not None}


def _compared(
    design: Design,
    gate: Gate,
    base: Sequence[Result],
    head: Sequence[Result],
    ours: Mapping[Key, _Cell],
    theirs: Mapping[Key, _Cell],
    pairs: Sequence[tuple[Key, Key]],
    notes: Sequence[str],
) -> Compared:
    shared = [(mine, other) for mine, other in pairs if mine in ours and other in theirs]
    if not shared:
        raise BadInput(f"base and head share nothing that was measured: {_has(base, ours)}, {_has(head, theirs)}")
    drafts = []
    for mine, other in shared:
        named = _Named(base, head, mine, other)
        for metric, threshold in gate.items():
            drafts.append(_draft(design, named, metric, threshold, ours[mine], theirs[other]))
    for metric in gate:
        if not any(draft.base.n or draft.head.n for draft in drafts if draft.metric == metric):
            raise BadInput(f"there is a threshold for {metric}, and no run recorded it")
    return Compared(
        design,
        tuple(result.header.campaign for result in base),
        tuple(result.header.campaign for result in head),
        tuple(_judged(drafts)),
        tuple(_missing(ours, theirs, pairs)),
        tuple(notes),
    )
