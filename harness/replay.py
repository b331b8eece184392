"""What a campaign recorded, handed to pytest-benchmark: its launches are replayed there, nothing is started again."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from harness.model import Run
from harness.report.rows import Row
from harness.report.summary import summarize
from harness.store import Result
from harness.wording import line, not_here

if TYPE_CHECKING:
    from pytest_benchmark.fixture import BenchmarkFixture

    from harness.model import UnavailableRecord


class Recording:
    """A timer that reads, while a recording is played, 0 before each round and after it what a launch took, in seconds.

    At all other times it is pytest-benchmark's own: a test with a campaign may time something else with it.
    """

    def __init__(self) -> None:
        self._reading: float | None = None

    def __call__(self) -> float:
        return time.perf_counter() if self._reading is None else self._reading

    def play(self, benchmark: BenchmarkFixture, seconds: Sequence[float]) -> None:
        """Gives each of these to the benchmark as one round. Raises pytest's failure where it reads another timer."""
        if benchmark._timer is not self:  # there is no public way to ask for it
            pytest.fail("the benchmark marker of this test names a timer: launches are replayed on weighbridge's own")
        left = iter(seconds)
        latest = seconds[-1]

        def rewind() -> None:
            self._reading = 0.0

        def launch() -> None:  # called once more than there are launches where the benchmark profiles it
            self._reading = next(left, latest)

        replayed: Callable[..., None] = benchmark.pedantic
        rewind()
        try:
            replayed(launch, setup=rewind, rounds=len(seconds))
        finally:
            self._reading = None


recording = Recording()
"""The one that the plugin puts into the benchmark marker of every test that uses the campaign."""


class RecordedCampaign:
    """One campaign: the raw `result`, and what it says of a target with a workload.

    A target is named by its key, a workload by its name. `summary` is the campaign as reports have it.
    """

    def __init__(self, result: Result) -> None:
        """Raises BadInput for what no report would be made of."""
        self.result = result
        (self.summary,) = summarize([result]).campaigns

    def runs(self, target: str, workload: str) -> list[Run]:
        """The measured launches, failed ones among them, in the order in which they were made."""
        asked = (target, workload, "measured")
        return [run for run in self.result.runs if (run.target, run.workload, run.phase) == asked]

    def values(self, metric: str, target: str, workload: str) -> tuple[float, ...]:
        """What each launch came to, in SI units (s, B); without those that failed or could not be read.

        metric: as `startup.total` or `memory.pss`; docs/METHOD.md defines them. Skips the test where the target could
        not run here, and raises KeyError for a metric that nobody recorded.
        """
        self.skip_absent(target, workload)
        row = next((row for row in self._rows(target, workload) if row.metric == metric), None)
        if row is None:
            known = ", ".join(row.metric for row in self._rows(target, workload))
            raise KeyError(f"no {metric} was recorded of {target} with {workload}; known: {known}")
        return row.values

    def skip_absent(self, target: str, workload: str | None = None) -> None:
        """Skips the test where this target could not run here, with the reason and the remedy."""
        told = [absent for absent in self.result.unavailable if absent.target == target]
        if told and not any(record.target == target for record in self.result.images):
            pytest.skip(_reasons(target, told))
        if workload is not None and not self.runs(target, workload):
            pytest.skip(_reasons(target, told) if told else self._unmeasured(target, workload))

    def replay(self, benchmark: BenchmarkFixture, target: str, workload: str, metric: str = "startup.total") -> None:
        """Replays the launches into pytest-benchmark, and puts all that they were weighed at into its extra_info.

        metric: one in seconds, which is all that pytest-benchmark knows. Skips the test where the target could not
        run here; fails it where a launch failed, after those that did not were replayed.
        """
        seconds = self.values(metric, target, workload)
        benchmark.extra_info.update(self.weighed(target, workload), replayed=metric)
        if any(row.metric == metric and row.unit != "s" for row in self._rows(target, workload)):
            pytest.fail(f"{metric} is no time, and pytest-benchmark knows no other unit; it is in the extra_info")
        if seconds:
            recording.play(benchmark, seconds)
        runs = self.runs(target, workload)
        if failures := [run.error for run in runs if run.error is not None]:
            told = "\n".join(f"while {failure.phase}: {line(failure.message)}" for failure in failures)
            pytest.fail(f"{len(failures)} of {len(runs)} launches failed\n{told}", pytrace=False)

    def weighed(self, target: str, workload: str) -> dict[str, Any]:
        """Everything that is known of a target with a workload, made of what JSON has.

        Of each metric: its unit, the median with its interval and the number of launches, the values, and the medians
        of what it consists of; or the reason why there is none.
        """
        runs = self.runs(target, workload)
        told: dict[str, Any] = {
            "campaign": self.summary.id,
            "result": str(self.result.path),
            "target": target,
            "label": next((row.label for row in self._rows(target, workload)), target),
            "workload": workload,
            "bundle": next((run.bundle_sha256 for run in runs), None),
            "runs": [run.id for run in runs if run.ok],
            "failed": sum(not run.ok for run in runs),
        }
        for row in self._rows(target, workload):
            told.setdefault(row.metric.partition(".")[0], {})[row.metric] = _told(row)
        insides = [inside for inside in self.summary.insides if inside.target == target]
        told["isolation"] = [msgspec.to_builtins(asdict(inside.isolation)) for inside in insides]
        return told

    def _rows(self, target: str, workload: str) -> list[Row]:
        return [row for row in self.summary.rows if (row.target, row.workload) == (target, workload)]

    def _unmeasured(self, target: str, workload: str) -> str:
        return f"{target} with {workload} was not measured: {self.summary.incomplete or 'it is not in the campaign'}"


def _told(row: Row) -> dict[str, Any]:
    parts = {piece.name: piece.median for piece in row.pieces if piece.median is not None}
    told: dict[str, Any] = {"unit": row.unit, "values": list(row.values), "parts": parts}
    if row.estimate is not None:
        found = row.estimate
        told |= {"median": found.median, "low": found.low, "high": found.high, "n": found.n}
    if row.reason is not None:
        told["reason"] = row.reason
    return told


def _reasons(target: str, told: Sequence[UnavailableRecord]) -> str:
    return "; ".join(line(not_here(target, absent.reason, absent.hint)) for absent in told)
