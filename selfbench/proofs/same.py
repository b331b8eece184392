"""A/A on the machine: the same thing is never said to have got worse.

Baseline: every campaign is held against every five of the others. That is tens of millions of comparisons, so the
ones in which nothing comes near a rejection are passed by on arrays: Holm's correction rejects something exactly where
the smallest p-value is at most alpha divided by the number of tests. All others are judged by the program itself.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import combinations

import numpy as np
from scipy import special

from harness import comparison, gate
from harness.comparison import Compared
from harness.stats.compare import ALPHA, FEWEST_CAMPAIGNS
from harness.store import Result
from selfbench.proofs import recorded
from selfbench.proofs.finding import Finding

Row = np.ndarray[tuple[int], np.dtype[np.float64]]
Table = np.ndarray[tuple[int, int], np.dtype[np.float64]]
Subsets = np.ndarray[tuple[int, int], np.dtype[np.int64]]


def findings(seed: int) -> Iterator[Finding]:
    yield from baseline(recorded.results("run"))
    yield from sides(recorded.results("ab"))


def sides(results: Sequence[Result]) -> Iterator[Finding]:
    found = [comparison.interleaved(result, gate.default()) for result in results]
    question = "A/A recorded: `ab` campaigns of a side with itself that found a regression"
    yield Finding(
        proof="same", question=question, count=sum(map(_regressed, found)), of=len(found), at_most=0.0
    )  # fmt: skip
    undecided = sum(len(compared.of("undecided")) for compared in found)
    of = sum(len(compared.comparisons) for compared in found)
    yield Finding(proof="same", question="of all comparisons in them, undecided", count=undecided, of=of)


def baseline(results: Sequence[Result]) -> Iterator[Finding]:
    cells = [_judged(results, _five_others(results, head), head).comparisons for head in range(len(results))]
    medians = np.array([[each.head.median for each in row] for row in cells], dtype=np.float64)
    margins = np.array([math.log1p(each.threshold.relative) for each in cells[0]])
    floors = np.array([each.threshold.floor for each in cells[0]])
    subsets = np.array(list(combinations(range(len(results)), FEWEST_CAMPAIGNS)))
    ways = subsets.shape[0] * (len(results) - FEWEST_CAMPAIGNS)
    false = sum(
        sure + sum(_regressed(_judged(results, base, head)) for base in unsure)
        for head, (sure, unsure) in enumerate(_suspects(medians, margins, floors, subsets))
    )
    question = f"A/A recorded: ways of holding a campaign against {FEWEST_CAMPAIGNS} others that found a regression"
    yield Finding(proof="same", question=question, count=false, of=ways, at_most=0.01)


def _five_others(results: Sequence[Result], head: int) -> list[int]:
    return [number for number in range(len(results)) if number != head][:FEWEST_CAMPAIGNS]


def _regressed(compared: Compared) -> bool:
    return bool(compared.of("regressed"))


def _judged(results: Sequence[Result], base: Sequence[int], head: int) -> Compared:
    return comparison.campaigns([results[number] for number in base], [results[head]], gate.default())


def _suspects(medians: Table, margins: Row, floors: Row, subsets: Subsets) -> Iterator[tuple[int, list[list[int]]]]:
    """For each head: in how many ways something is rejected at Holm's first step, and is more than its floor too; and
    the ways in which what is rejected there is not, while something else might be at a later step.

    medians: of each campaign (row) all that is compared (columns), in its unit.
    """
    freedom = FEWEST_CAMPAIGNS - 1
    critical = float(special.stdtrit(freedom, 1 - ALPHA / margins.size))
    logs = np.log(medians)
    error = np.std(logs[subsets], axis=1, ddof=1) * math.sqrt(1 + 1 / FEWEST_CAMPAIGNS)
    reach = np.mean(logs[subsets], axis=1) + margins + critical * error
    middle = np.median(medians[subsets], axis=1)
    for head in range(medians.shape[0]):
        others = ~np.any(subsets == head, axis=1)
        beyond = logs[head] > reach
        counts = np.any(beyond & (medians[head] - middle > floors), axis=1)
        unsure = np.any(beyond, axis=1) & ~counts & others
        yield int(np.count_nonzero(counts & others)), subsets[unsure].tolist()
