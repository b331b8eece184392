"""What may be said of base against head: one metric of one workload on one target at a time, and the family of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from harness import meters
from harness.gate import Threshold
from harness.stats import compare
from harness.stats.compare import ALPHA, FEWEST_CAMPAIGNS, Change
from harness.wording import Words, count_launches

Verdict = Literal["regressed", "improved", "unchanged", "undecided"]
MOST_ROUNDS, MOST_CAMPAIGNS = 1000, 100
"""More of them is no advice."""

ByRound = Mapping[int, float]


@dataclass(frozen=True)
class Weighed:
    """One side. median: over launches, or of the medians of campaigns. n: of these. failed: launches."""

    median: float | None
    n: int
    failed: int


@dataclass(frozen=True)
class Comparison:
    """One metric of one target under one workload.

    change: by how much head is more than base, as a fraction of base; or in `unit`, where `relative` is False because
    there is a 0 among the values. low and high: its 95 % interval. All three are None where nothing can be said. n: the
    rounds, or the base's campaigns. p: of "it got worse by no more than the threshold", adjusted for all that was
    compared; None for what was weighed and not sampled. smallest: how much worse it would have to be to be found 4
    times in 5. reason: why the verdict says no more.
    """

    workload: str
    target: str
    metric: str
    unit: str
    threshold: Threshold
    base: Weighed
    head: Weighed
    relative: bool = True
    verdict: Verdict = "undecided"
    change: float | None = None
    low: float | None = None
    high: float | None = None
    n: int = 0
    p: float | None = None
    smallest: float | None = None
    reason: str = ""

    @property
    def name(self) -> str:
        return Words(
            "{metric} of {target} with {workload}", metric=self.metric, target=self.target, workload=self.workload
        )

    def changed(self, amount: float) -> float:
        """What head has more than base, in `unit`, if the change is `amount`."""
        return amount * (self.base.median or 0.0) if self.relative else amount


@dataclass(frozen=True)
class Question:
    """Whether a metric of one cell changed, and what there is to answer it from.

    rounds: the values of both sides by round, where they were interleaved; else campaigns: the medians of each side's.
    exact: it was weighed, and is no sample.
    """

    workload: str
    target: str
    metric: str
    unit: str
    threshold: Threshold
    base: Weighed
    head: Weighed
    rounds: tuple[ByRound, ByRound] | None = None
    campaigns: tuple[Sequence[float], Sequence[float]] = ((), ())
    exact: bool = False

    @property
    def sides(self) -> tuple[list[float], list[float]]:
        """What there is to compare: of interleaved sides the values of the rounds that both have, in one order."""
        if self.rounds is None:
            return list(self.campaigns[0]), list(self.campaigns[1])
        base, head = self.rounds
        shared = sorted(base.keys() & head.keys())
        return [base[number] for number in shared], [head[number] for number in shared]

    @property
    def answerable(self) -> bool:
        base, head = self.sides
        return bool(head) and len(base) >= (1 if self.rounds is not None else FEWEST_CAMPAIGNS)


def judge(questions: Sequence[Question]) -> list[Comparison]:
    """The answers. The family over which errors are controlled (Holm) is all that can be tested."""
    tested = [question for question in questions if question.answerable and not question.exact]
    strictest = ALPHA / max(1, len(tested))
    changes = [_change(question, strictest) for question in tested]
    worse, better = (
        compare.holm([_p(question, change)[way] for question, change in zip(tested, changes, strict=True)])
        for way in (0, 1)
    )
    answers = {
        id(question): _answer(question, change, up, down, strictest)
        for question, change, up, down in zip(tested, changes, worse, better, strict=True)
    }
    return [answers.get(id(question)) or _untested(question) for question in questions]


def _p(question: Question, change: Change) -> tuple[float, float]:
    """Of having got no worse, and no better: more is worse, but for what is better higher."""
    up = meters.metric(question.metric, question.unit).better != "higher"
    return (change.worse, change.better) if up else (change.better, change.worse)


def _is_relative(question: Question) -> bool:
    return all(value > 0 for side in question.sides for value in side)


def _change(question: Question, alpha: float) -> Change:
    base, head = question.sides
    if _is_relative(question):
        base, head = [math.log(value) for value in base], [math.log(value) for value in head]
        margin = math.log1p(question.threshold.relative)
    else:
        margin = max(question.threshold.floor, question.threshold.relative * abs(float(np.median(base))))
    if question.rounds is None:
        return compare.predicted(base, head, margin, alpha)
    return compare.paired([ours - theirs for theirs, ours in zip(base, head, strict=True)], margin, alpha)


def _answer(question: Question, change: Change, worse: float, better: float, alpha: float) -> Comparison:
    relative = _is_relative(question)

    def amount(value: float) -> float:
        return math.expm1(value) if relative else value

    found = replace(
        _asked(question),
        relative=relative,
        change=amount(change.estimate),
        low=amount(change.low),
        high=amount(change.high),
        n=change.n,
        p=worse,
        smallest=None if change.smallest is None else amount(change.smallest),
    )
    verdict = _verdict(found, change, worse, better)
    reason = _undecided(question, change, alpha) if verdict == "undecided" else ""
    return replace(found, verdict=verdict, reason=reason)


def _verdict(found: Comparison, change: Change, worse: float, better: float) -> Verdict:
    """By METHOD.md: beyond the threshold and the floor; else unchanged where the interval lies within either."""
    if abs(found.changed(found.change or 0.0)) > found.threshold.floor:
        if worse <= ALPHA:
            return "regressed"
        if better <= ALPHA:
            return "improved"
    floor = max(abs(found.changed(bound or 0.0)) for bound in (found.low, found.high)) <= found.threshold.floor
    within = -change.margin <= change.low and change.high <= change.margin
    return "unchanged" if within or floor else "undecided"


def _untested(question: Question) -> Comparison:
    asked = _asked(question)
    base, head = asked.base.median, asked.head.median
    if base is None or head is None:
        lacks = Words("base") if base is None else Words("head")
        failed = (asked.base if base is None else asked.head).failed
        told = "{side} has no value: {launches} failed" if failed else "{side} has no value"
        return replace(asked, reason=Words(told, side=lacks, launches=count_launches(failed)))
    if not question.answerable:
        return replace(asked, reason=_too_few(question))
    return _weighed(asked, base, head)


def _weighed(asked: Comparison, base: float, head: float) -> Comparison:
    """What was weighed once and has no scatter: the threshold alone decides."""
    more, threshold = head - base, asked.threshold
    beyond = abs(more) > max(threshold.floor, threshold.relative * abs(base))
    verdict: Verdict = ("regressed" if more > 0 else "improved") if beyond else "unchanged"
    change = more / base if base else more
    return replace(asked, relative=bool(base), verdict=verdict, change=change, low=change, high=change, n=1)


def _asked(question: Question) -> Comparison:
    told = ("workload", "target", "metric", "unit", "threshold", "base", "head")
    return Comparison(**{name: getattr(question, name) for name in told})


def _too_few(question: Question) -> str:
    base, head = question.sides
    if question.rounds is not None:
        return Words("no round has both")
    told = (
        "{base} campaigns against {head}, not interleaved: `weighbridge ab` decides, or {fewest} campaigns of the base"
    )
    if len(base) == 1:
        told = "1 campaign against {head}, not interleaved: `weighbridge ab` decides, or {fewest} campaigns of the base"
    return Words(told, base=len(base), head=len(head), fewest=FEWEST_CAMPAIGNS)


def _undecided(question: Question, change: Change, alpha: float) -> str:
    """What would decide, if things stay as they are."""
    paired = question.rounds is not None
    unit = Words("rounds") if paired else Words("campaigns of the base")
    if change.smallest is None:
        told = "{count} {unit} can decide nothing here, {fewest} can"
        return Words(told, count=change.n, unit=unit, fewest=compare.fewest_rounds(alpha))
    if paired:
        needed = compare.rounds_needed(change, alpha)
    else:
        needed = compare.campaigns_needed(change, len(question.sides[1]), alpha, MOST_CAMPAIGNS)
    if needed > (MOST_ROUNDS if paired else MOST_CAMPAIGNS):
        if paired:
            return Words("so near the threshold that more than {most} rounds would decide", most=MOST_ROUNDS)
        return Words("so near the threshold that `weighbridge ab`, or nothing, would decide")
    return Words("about {count} {unit} would decide", count=math.ceil(needed), unit=unit)
