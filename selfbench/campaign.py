"""campaign: what a campaign takes beyond the lifecycles that it is made of.

A round's time is from the end of the last run of the round before, when its record was written and told, to the same
of its own last run: with the host's samples between rounds, what each run's ground and doorbell take to be made and
removed, and the records. The floor is the sum of its runs from `requested` to `gone`, settling and rest included, as
the result file has them. Preparation and the round that warms up come before.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from harness import store
from harness.campaign import Campaign, Event
from harness.errors import Unavailable, WeighbridgeError
from harness.model import Plan
from selfbench.measurement import Measurement

QUESTION = "How long does a campaign take, beside its runs from `requested` to `gone`?"
ROUNDS = 12
AT_MOST = 1.05
TARGETS = ("host", "namespace", "docker")


def measure(rounds: int) -> Sequence[Measurement]:
    ended: list[float] = []

    def observe(event: Event) -> None:
        if event.phase == "done":
            ended.append(time.monotonic())

    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "campaign.jsonl"
        plan = Plan(targets=TARGETS, rounds=rounds, budget=None)
        outcome = Campaign(plan, output, ["selfbench"], observe).run()
        for absent in outcome.unavailable:
            raise Unavailable(f"{absent.target}: {absent.reason}", absent.hint)
        if outcome.failed or outcome.stopped:
            raise WeighbridgeError(f"the campaign went wrong: {outcome.failed} failed, {outcome.stopped}")
        runs = store.read(output).runs
    lasted = [dict(run.marks)["gone"] for run in runs]
    size = len(TARGETS)
    starts = range(size, len(runs), size)
    return [
        Measurement(
            key="campaign.time",
            question=QUESTION,
            unit="s",
            ours="a round",
            floor="its runs",
            at_most=AT_MOST,
            values={
                "a round": [ended[start + size - 1] - ended[start - 1] for start in starts],
                "its runs": [sum(lasted[start : start + size]) for start in starts],
            },
        )
    ]
