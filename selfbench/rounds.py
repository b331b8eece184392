"""`python -m selfbench.rounds FILE`: how many rounds for which effect, by how the rounds of `weighbridge ab` scattered.

For each number of rounds, that many are drawn from the recorded ones, with replacement, and compared as a gate compares
them: with the thresholds of the default gate and Holm's correction for all that the file has. Shown is what then would
be found 4 times in 5, the median of DRAWS draws. The file's own number of rounds is not drawn but is what was measured.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from harness import gate
from harness.errors import BadInput, WeighbridgeError
from harness.model import headline
from harness.stats.compare import ALPHA, paired
from harness.store import Result, read, startup
from selfbench.measurement import SEED

ROUNDS = (10, 30, 100)
METRICS = ("startup.total", "memory.pss", "disk.instance")
DRAWS = 200

Cell = tuple[str, str, str]
"""A metric, a target and a workload."""


def changes(result: Result) -> dict[Cell, list[float]]:
    """By how much each round's head was more than its base, as logs of ratios. Raises BadInput without two sides."""
    values: dict[Cell, dict[int, dict[str, float]]] = {
        (metric, target, workload): {}
        for target in result.header.plan.targets
        for workload in dict.fromkeys(run.workload for run in result.runs)
        for metric in METRICS
    }
    for run in result.runs:
        for metric in METRICS:
            value = dict(startup(run)).get(metric, headline(run.samples, metric))
            if run.ok and run.phase == "measured" and run.side and value:
                values[metric, run.target, run.workload].setdefault(run.round, {})[run.side] = value
    logs = {
        cell: [math.log(both["head"] / both["base"]) for both in rounds.values() if len(both) == 2]
        for cell, rounds in values.items()
    }
    if not any(logs.values()):
        raise BadInput(f"{result.path} holds no rounds of two sides: it takes what `weighbridge ab` wrote")
    return {cell: changed for cell, changed in logs.items() if changed}


def smallest(changed: Sequence[float], rounds: int, threshold: float, alpha: float) -> float | None:
    """The change that would be found 4 times in 5, as a fraction; None where so few rounds can show none."""
    random = np.random.default_rng(SEED)
    drawn = [changed] if rounds == len(changed) else random.choice(changed, (DRAWS, rounds))
    found = [paired(draw, math.log1p(threshold), alpha).smallest for draw in drawn]
    known = [each for each in found if each is not None]
    return math.expm1(float(np.median(known))) if known else None


def table(result: Result) -> Iterator[str]:
    """Markdown. What never changed from round to round is left out: any change beyond its threshold is found."""
    thresholds, logs = gate.default(), changes(result)
    yield f"| | {' | '.join(f'{rounds} rounds' for rounds in ROUNDS)} |"
    yield "| --- " * (len(ROUNDS) + 1) + "|"
    for (metric, target, workload), changed in logs.items():
        if np.ptp(changed) > 0:
            threshold, alpha = thresholds[metric].relative, ALPHA / len(logs)
            told = [smallest(changed, rounds, threshold, alpha) for rounds in ROUNDS]
            cells = " | ".join("nothing" if each is None else f"+{100 * each:.1f} %" for each in told)
            yield f"| `{metric}` of {target} with {workload}, beyond {100 * threshold:g} % | {cells} |"


def main(arguments: Sequence[str]) -> None:
    if len(arguments) != 1:
        raise BadInput("give one result file of `weighbridge ab`")
    print("\n".join(table(read(Path(arguments[0])))))


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except WeighbridgeError as error:
        print(f"selfbench: {error}", file=sys.stderr)
        sys.exit(2)
