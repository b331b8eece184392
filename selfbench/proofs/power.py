"""What is found: a tenth more start-up, memory and disk, injected into recorded `ab` campaigns of 30 rounds.

A regression means that "it is no more than the threshold" was rejected, so that no method can find a tenth at a
threshold of a tenth. The start-up is therefore judged at 5 %, memory and disk at their own 5 % and 2 %.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from harness import comparison, gate
from harness.gate import Gate
from harness.stats import compare
from harness.stats.compare import ALPHA, POWER
from harness.verdict import Question, Weighed, judge
from selfbench.proofs import recorded
from selfbench.proofs.finding import Finding

RESAMPLES, ROUNDS = 1000, 30
INJECTED = ("startup.total", "memory.pss", "disk.instance")
GATE: Gate = {**gate.default(), **gate.parse("startup.total:5%")}
STEADY = ((0.03, 0.95), (0.05, 0.8))
"""Up to which scatter of a cell (the coefficient of variation of its launches) what share is to be found."""
WITHIN = 0.2
"""How near the smallest effect that is printed must be to the one that is found 4 times in 5."""


def findings(seed: int, resamples: int = RESAMPLES) -> Iterator[Finding]:
    yield from _steady(seed, resamples)
    for target in recorded.INJECTED:
        families = [comparison.questions(result, GATE) for result in recorded.results(f"power-{target}")]
        chance = np.random.default_rng([seed, *map(ord, target)])
        drawn = [_resampled(families[number % len(families)], chance) for number in range(resamples)]
        for metric in INJECTED:
            scatter = float(np.median([_scatter(_of(family, metric)) for family in families]))
            about = f"a tenth more {metric} of {target} (scatter {scatter:.1%})"
            least = next((share for limit, share in STEADY if scatter <= limit), None)
            for told, tried in (("measured", families), ("resampled", drawn)):
                found = sum(_finds(family, metric) for family in tried)
                yield Finding(
                    proof="power", question=f"{about}, {told}: found", count=found, of=len(tried), at_least=least
                )  # fmt: skip
            if least is None or metric == "startup.total":
                yield _smallest(families, metric, about, chance, resamples)


def _steady(seed: int, repetitions: int) -> Iterator[Finding]:
    """The start-up of cells as steady as the promise names them, which the machine that recorded hardly has."""
    for scatter, least in STEADY:
        chance = np.random.default_rng([seed, round(1000 * scatter)])
        found = sum(_finds(_simulated(scatter, chance), "startup.total") for _ in range(repetitions))
        question = f"a tenth more startup.total, scatter {scatter:.0%}, {ROUNDS} rounds, simulated: found"
        yield Finding(
            proof="power", question=question, count=found, of=repetitions, at_least=least, simulated=True
        )  # fmt: skip


def _simulated(scatter: float, chance: np.random.Generator) -> list[Question]:
    """One target's family: log-normal start-ups of which head's are a tenth more; memory and disk are the same."""
    spread, family = math.sqrt(math.log1p(scatter**2)), []
    for metric in INJECTED:
        sigma, factor = (spread, 1.1) if metric == "startup.total" else (0.0, 1.0)
        base, head = (amount * np.exp(chance.normal(0, sigma, ROUNDS)) for amount in (0.2, factor * 0.2))
        ours, theirs = (Weighed(float(np.median(side)), ROUNDS, 0) for side in (base, head))
        rounds = dict(enumerate(base.tolist())), dict(enumerate(head.tolist()))
        family.append(Question("simulated", "simulated", metric, "", GATE[metric], ours, theirs, rounds=rounds))
    return family


def _of(family: Sequence[Question], metric: str) -> Question:
    return next(question for question in family if question.metric == metric)


def _finds(family: Sequence[Question], metric: str) -> bool:
    return any(answer.verdict == "regressed" for answer in judge(family) if answer.metric == metric)


def _scatter(question: Question) -> float:
    """The coefficient of variation of the base's launches."""
    base, _ = question.sides
    return float(np.std(base, ddof=1) / np.mean(base))


def _resampled(family: Sequence[Question], chance: np.random.Generator) -> list[Question]:
    """The same family of as many rounds, drawn with replacement: of all that a round measured."""
    shared = sorted(set.intersection(*({*q.rounds[0]} & {*q.rounds[1]} for q in family if q.rounds and not q.exact)))
    drawn = chance.choice(shared, len(shared)).tolist()
    return [question if question.exact else _redrawn(question, drawn) for question in family]


def _redrawn(question: Question, drawn: Sequence[int]) -> Question:
    assert question.rounds is not None  # an `ab` has them
    base, head = ({place: side[number] for place, number in enumerate(drawn)} for side in question.rounds)
    medians = (float(np.median([*side.values()])) for side in (base, head))
    ours, theirs = (replace(w, median=m) for w, m in zip((question.base, question.head), medians, strict=True))
    return replace(question, rounds=(base, head), base=ours, head=theirs)


def _smallest(
    families: Sequence[Sequence[Question]], metric: str, about: str, chance: np.random.Generator, resamples: int
) -> Finding:
    """In how many campaigns the smallest effect that is printed is the one that is found 4 times in 5.

    Which one that is, is told by resampling the campaign's rounds with the change taken out: a test that moves with
    its data finds an effect in those resamples in which it is more than what was missing to the margin.
    """
    right = 0
    for family in families:
        printed = next(answer.smallest for answer in judge(family) if answer.metric == metric)
        question, alpha = _of(family, metric), ALPHA / sum(not question.exact for question in family)
        base, head = (np.log(side) for side in question.sides)
        changes = head - base - compare.paired((head - base).tolist(), 0.0).estimate
        margin = math.log1p(question.threshold.relative)
        missing = [margin - compare.lower_bound(chance.choice(changes, changes.size), alpha) for _ in range(resamples)]
        true = math.expm1(float(np.quantile(missing, POWER)))
        right += printed is not None and abs(printed / true - 1) <= WITHIN
    question_told = f"{about}: the smallest effect that is printed is within {WITHIN:.0%} of the true one"
    return Finding(proof="power", question=question_told, count=right, of=len(families), at_least=0.95)
