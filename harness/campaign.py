"""The campaign: prepares the cells, measures them in turn, records every run.

Nothing but doorbell.py (marks), pace.py (deadlines) and elapsed.py (progress) reads time besides it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from harness import delegation, host, pace, signals, steps
from harness.errors import as_unavailable
from harness.ledger import Ledger
from harness.measure import Cell, find_daemons, measure, ready_timeout
from harness.meters import memory
from harness.model import (
    SCHEMA,
    Footer,
    Header,
    HostRecord,
    Phase,
    Plan,
    Run,
    TargetRecord,
    UnavailableRecord,
)
from harness.plan import sides
from harness.preparation import Preparation, collect_release_errors
from harness.schedule import MOST, schedule
from harness.signals import Interrupted
from harness.store import Writer

if TYPE_CHECKING:
    from harness.precision import Precision

RUNS = Path("results/runs")


@dataclass(frozen=True)
class Event:
    """Progress of a campaign: `done` of `total` runs are finished (total 0: unknown).

    phase: preparing, starting, waiting, weighing, stopping, done, releasing (after the last launch), or round (a round
    ended without reaching the requested precision). outcome: the result of a finished run, or the median that is not
    precise enough. ready: start-up time in seconds of a successful measured run. step: the current long step of the
    preparation, such as `building the bundle hello`.
    """

    phase: str
    target: str
    workload: str
    round: int = 0
    done: int = 0
    total: int = 0
    outcome: str = ""
    ready: float | None = None
    step: str = ""


Observer = Callable[[Event], None]


@dataclass
class Outcome:
    """The result of a campaign. stopped: the reason for an early end. interrupted: the exit code after a signal.

    precise: how the requested precision was reached. measured: the number of runs outside the warm-up round. failure:
    the error of the last failed run. seconds: from the first launch to the end of the last one. unreleased: errors of
    the release of engines and images, which the ledger tries again.
    """

    campaign: str
    cells: int = 0
    runs: int = 0
    failed: int = 0
    measured: int = 0
    failure: str | None = None
    seconds: float = 0.0
    stopped: str | None = None
    interrupted: int | None = None
    precise: str | None = None
    unreleased: list[str] = field(default_factory=list)
    unavailable: list[UnavailableRecord] = field(default_factory=list)
    targets: list[TargetRecord] = field(default_factory=list)


class Campaign:
    """One execution of a plan. `run` is what this program does."""

    def __init__(self, plan: Plan, output: Path | None, command: Sequence[str], observe: Observer) -> None:
        """output: the result file; None for results/runs/<campaign>.jsonl. observe: is told of the progress."""
        self.plan = plan
        self._output = output
        self.command = command
        self.observe = observe
        self._began = 0.0
        self._whole_rounds = 0
        self._preparing = Event("preparing", "", "")
        self._slowest: dict[tuple[str, str], float] = {}
        self.precision = _precision(plan)

    def run(self) -> Outcome:
        """Measures and writes the result file. A signal ends it in order, with the file complete to the last run.

        Raises Interrupted where a signal came before there was anything to measure, and BadInput where the plan
        cannot be meant (before anything is started) or the file cannot be written.
        """
        with ExitStack() as stack:
            with signals.held():
                self.ledger = stack.enter_context(Ledger())
            self.preparations = [
                Preparation(chosen, side, self.ledger, lambda record: self.writer.append(record))
                for side, chosen in sides(self.plan).items()
            ]
            for preparation in self.preparations:
                preparation.check()
            self.output = self._output or RUNS / f"{self.ledger.campaign}.jsonl"
            self.writer = stack.enter_context(Writer(self.output))
            self.outcome = Outcome(self.ledger.campaign)
            self.writer.append(self._header())
            try:
                with collect_release_errors(self.outcome.unreleased) as prepared:
                    prepared.enter_context(delegation.enter_delegated_group(self.ledger))
                    self._measure_all(self._prepared(prepared))
            except Interrupted as interruption:
                self.outcome.stopped = str(interruption)
                self.outcome.interrupted = 128 + interruption.number
            except Exception as error:
                self.outcome.stopped = as_unavailable(error).reason
                self._write_footer()
                raise
            self._write_footer()
            if not self.outcome.cells:
                signals.check()
        return self.outcome

    def _write_footer(self) -> None:
        """Write the last record, with everything that cut the campaign short."""
        outcome = self.outcome
        failures = [f"while releasing: {reason}" for reason in outcome.unreleased]
        outcome.stopped = "; ".join(filter(None, (outcome.stopped, *failures))) or None
        self.writer.append(Footer(outcome.stopped is None, outcome.stopped, outcome.runs, outcome.failed))

    def _measure_all(self, cells: Sequence[Cell]) -> None:
        self.outcome.cells = len(cells)
        pace.measure()
        self._record_host("before", cells)
        self._began = time.monotonic()
        rounds = MOST if self.precision else self.plan.rounds
        for number, phase, order in schedule(cells, rounds, self.plan.seed) if cells else ():
            if number:
                self._record_host("between", cells)
            for cell in order:
                if self._budget_is_used():
                    break
                self._measure(cell, number, phase)
            if self.outcome.stopped or self._is_precise(number):
                break
            self._whole_rounds = number
        self.observe(Event("releasing", "", "", done=self.outcome.runs))
        self._record_host("after", cells)
        if cells and not self.outcome.precise:
            self._add_shortfall()

    def _measure(self, cell: Cell, number: int, phase: Phase) -> None:
        total = 0 if self.precision else self.outcome.cells * (self.plan.rounds + 1)
        now = Event("", cell.carrier, cell.workload, number, self.outcome.runs, total)
        run = measure(
            cell,
            self.ledger,
            ready_timeout(self.plan.timeout, cell, self._slowest.get((cell.carrier, cell.workload), 0.0)),
            self.outcome.runs,
            number,
            phase,
            lambda entered: self.observe(replace(now, phase=entered)),
            self.plan.cold,
        )
        self.writer.append(run)
        self._count(cell, run)
        told = "ok" if run.error is None else f"failed while {run.error.phase}: {run.error.message}"
        if run.error is not None and (printed := run.error.log.split("\n")[-1].strip()):
            told += f"; the last that it printed: {printed}"
        ready = run.mark("ready") if run.ok and phase == "measured" else None
        self.observe(replace(now, phase="done", done=self.outcome.runs, outcome=told, ready=ready))

    def _count(self, cell: Cell, run: Run) -> None:
        self.outcome.runs += 1
        self.outcome.measured += run.phase == "measured"
        self.outcome.seconds = time.monotonic() - self._began
        if run.error is not None:
            self.outcome.failed += 1
            self.outcome.failure = f"{cell.carrier} {cell.workload}: {run.error.phase}: {run.error.message}"
        if (ready := run.mark("ready")) is not None:
            key = (cell.carrier, cell.workload)
            self._slowest[key] = max(ready, self._slowest.get(key, 0.0))
        if self.precision:
            self.precision.add(run)

    def _budget_is_used(self) -> bool:
        """Stop the campaign once the time since the first launch exceeds the budget; return whether it is stopped."""
        budget, runs = self.plan.budget, self.outcome.runs
        if budget is not None and time.monotonic() - self._began > budget and self.outcome.stopped is None:
            stopped = f"the budget of {budget:g} s was used up after {runs} {'run' if runs == 1 else 'runs'}"
            early = "" if self._whole_rounds else ", before the first measured round was complete"
            self.outcome.stopped = stopped + early
        return self.outcome.stopped is not None

    def _is_precise(self, number: int) -> bool:
        """Whether the precision asked for is reached after round `number`; if not, the observer is told why."""
        if self.precision is None or number < self.plan.rounds:
            return False
        shortfall = self.precision.shortfall()
        if shortfall is None:
            self.outcome.precise = self.precision.reached()
        else:
            self.observe(Event("round", "", "", number, self.outcome.runs, outcome=shortfall))
        return shortfall is None

    def _add_shortfall(self) -> None:
        """To what cut the campaign short: what was not yet as precise as was asked for."""
        if self.precision and (shortfall := self.precision.shortfall()):
            ended = self.outcome.stopped or f"{MOST} rounds were measured, and more never are"
            self.outcome.stopped = f"{ended}; {shortfall}"

    def _prepared(self, stack: ExitStack) -> list[Cell]:
        """The cells of all sides. Raises BadInput for what makes no sense on any of them, before anything is begun."""
        cells: list[Cell] = []
        with steps.watch_steps(lambda step: self.observe(replace(self._preparing, step=step))):
            for preparation in self.preparations:
                cells += preparation.prepare(stack, self._prepare)
                self.outcome.unavailable += preparation.unavailable
                self.outcome.targets += preparation.targets
        return cells

    def _prepare(self, target: str, workload: str) -> None:
        self._preparing = Event("preparing", target, workload)
        self.observe(self._preparing)

    def _record_host(self, at: Literal["before", "between", "after"], cells: Sequence[Cell]) -> None:
        daemons = {cell.carrier: find_daemons(cell.backend) for cell in cells}
        weighed = memory.daemons({target: pids for target, pids in daemons.items() if pids != []})
        self.writer.append(HostRecord(at, host.sample() + weighed))

    def _header(self) -> Header:
        commit, dirty = host.commit()
        started = datetime.now(UTC).isoformat(timespec="milliseconds")
        return Header(
            SCHEMA, self.ledger.campaign, started, list(self.command), commit, dirty, self.plan, host.describe()
        )


def _precision(plan: Plan) -> Precision | None:
    if plan.precision is None:
        return None
    from harness.precision import Precision  # here: NumPy has no business in any other campaign

    return Precision(plan.precision, plan.rounds)
