"""What a report says, as data: a pure function of results. Every output format is a rendering of a Summary."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from harness import doubts
from harness.doubts import Doubt, Launches
from harness.errors import BadInput
from harness.model import Applied, Footer, Host, HostRecord, Run, Sample
from harness.report import findings, inside, rows, series
from harness.report.findings import Finding
from harness.report.inside import Inside
from harness.report.rows import Cell, Row
from harness.store import Result
from harness.wording import Labels, Words, accelerator, line, plain


@dataclass(frozen=True)
class Configuration:
    """A named configuration: everything that stands behind a target's key.

    machine: the guest's accelerator as a word. reason, remedy: why it is not KVM, and how to change that.
    """

    target: str
    label: str
    engine: str
    version: str
    whose: str
    accelerator: str | None
    machine: str | None
    profile: dict[str, object]
    reason: str | None = None
    remedy: str | None = None


@dataclass(frozen=True)
class Limit:
    target: str
    label: str
    workload: str
    name: str
    applied: Applied
    runs: int


@dataclass(frozen=True)
class Acceleration:
    """What QEMU itself said of the machines of one cell. exits: of each run whose counters could be read."""

    target: str
    label: str
    workload: str
    enabled: bool
    runs: int
    exits: tuple[int, ...]
    reason: str | None


@dataclass(frozen=True)
class Failed:
    """One failed run of either phase. `log` may have many lines, all text is printable."""

    run: str
    target: str
    label: str
    workload: str
    round: int
    phase: str
    failed_in: str
    type: str
    message: str
    log: str


@dataclass(frozen=True)
class Absent:
    target: str
    reason: str
    hint: str


@dataclass(frozen=True)
class Bundle:
    workload: str
    sha256: str
    bytes: int
    packages: dict[str, str]


@dataclass(frozen=True)
class Reading:
    """One metric of the machine before, between or after the rounds: the median of `n` readings.

    part: the target whose daemons it is about.
    """

    at: str
    metric: str
    group: str | None
    part: str | None
    unit: str
    median: float | None
    n: int
    reason: str | None


@dataclass(frozen=True)
class Campaign:
    """One campaign; launches of two are never pooled. `incomplete` says why it is not whole, None where it is.

    `cold`, `rounds` (without those that `precision` added) and `precision` are as in the plan.
    """

    id: str
    source: str
    started: str
    command: tuple[str, ...]
    commit: str | None
    dirty: bool | None
    rounds: int
    cold: str | None
    precision: float | None
    seed: int
    measured: int
    failed: int
    incomplete: str | None
    reference: str | None
    host: Host
    readings: tuple[Reading, ...]
    bundles: tuple[Bundle, ...]
    configurations: tuple[Configuration, ...]
    rows: tuple[Row, ...]
    limits: tuple[Limit, ...]
    accelerations: tuple[Acceleration, ...]
    insides: tuple[Inside, ...]
    failures: tuple[Failed, ...]
    unavailable: tuple[Absent, ...]
    warnings: tuple[Doubt, ...]
    findings: tuple[Finding, ...]


@dataclass(frozen=True)
class Summary:
    campaigns: tuple[Campaign, ...]

    def rows(self, metric: str) -> list[Row]:
        """The rows of one metric, campaign after campaign."""
        return [row for campaign in self.campaigns for row in campaign.rows if row.metric == metric]

    def workloads(self) -> list[str]:
        return list(dict.fromkeys(row.workload for campaign in self.campaigns for row in campaign.rows))


def summarize(results: Sequence[Result]) -> Summary:
    """Summarizes campaigns one by one.

    Raises BadInput for none at all, for one campaign given twice, and for one that measured a stand-in (the `fake`
    engine of the tests): its numbers are nobody's.
    """
    if not results:
        raise BadInput("there is no result to report on")
    names = [result.header.campaign for result in results]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise BadInput(f"campaign {twice} was given twice")
    return Summary(tuple(_campaign(result) for result in results))


def counted(result: Result) -> list[Run]:
    """The launches that numbers are made of: measured, alone, of no side of a comparison, as cold as planned."""
    cold = result.header.plan.cold is not None
    return [
        run
        for run in result.runs
        if run.phase == "measured" and run.cold is cold and not run.side and run.instances == 1
    ]


def _campaign(result: Result) -> Campaign:
    fake = next((target.target for target in result.targets if target.engine == "fake"), None)
    if fake is not None:
        raise BadInput(f"{result.path}: the target {fake} is a stand-in made for tests, there is nothing to report")
    header, labels, runs = result.header, Labels(result.targets, result.header.host.lab), counted(result)
    cells = rows.cells(runs, labels)
    reference, made, launches = rows.rows(result, cells, labels)
    return Campaign(
        id=line(header.campaign),
        source=result.path.name,
        started=line(header.started),
        command=tuple(line(word) for word in header.command),
        commit=header.commit,
        dirty=header.dirty,
        rounds=header.plan.rounds,
        cold=header.plan.cold,
        precision=header.plan.precision,
        seed=header.plan.seed,
        measured=sum(run.ok for run in runs),
        failed=sum(not run.ok for run in runs),
        incomplete=_incomplete(result.footer),
        reference=reference,
        host=header.host,
        readings=_readings(result.hosts),
        bundles=tuple(Bundle(b.workload, b.sha256, b.bytes, dict(b.packages)) for b in result.bundles),
        configurations=tuple(
            Configuration(
                t.target,
                labels[t.target],
                t.engine,
                t.version,
                t.whose,
                accelerator(t),
                findings.machine(t),
                dict(t.profile),
                t.accelerator_reason and line(t.accelerator_reason),
                t.remedy and line(t.remedy),
            )
            for t in result.targets
        ),
        rows=tuple(made),
        limits=_limits(cells, labels),
        accelerations=tuple(_accelerations(cells, labels)),
        insides=inside.found(header.host, cells, labels),
        failures=tuple(_failed(run, labels) for run in result.runs if not run.ok),
        unavailable=tuple(Absent(line(u.target), line(u.reason), line(u.hint)) for u in result.unavailable),
        warnings=tuple(_doubts(result, launches)),
        findings=tuple(findings.of(result.targets, reference, launches)),
    )


def _incomplete(footer: Footer | None) -> str | None:
    """Why a campaign is not whole."""
    if footer is None:
        return Words("it did not come to its end")
    if footer.complete:
        return None
    why = line(footer.stopped) if footer.stopped else Words("nobody said why")
    return Words("it was cut short: {why}", why=why)


def _doubts(result: Result, launches: Sequence[Launches]) -> Iterator[Doubt]:
    """What there is to be warned of."""
    left_out = sum(run.phase == "measured" for run in result.runs) - len(counted(result))
    yield from doubts.of_records(result, left_out)
    yield from doubts.of_host(result)
    yield from doubts.of_launches(launches)


def _limits(cells: Mapping[Cell, Sequence[Run]], labels: Labels) -> tuple[Limit, ...]:
    """Each limit as it was applied; where runs of one cell differ in that, each way is told with its count."""
    return tuple(
        Limit(target, labels[target], workload, name, applied, n)
        for (workload, target), runs in cells.items()
        for (name, applied), n in Counter(limit for run in runs for limit in run.limits.items()).items()
    )


def _accelerations(cells: Mapping[Cell, Sequence[Run]], labels: Labels) -> Iterator[Acceleration]:
    """Of each cell of machines, and of both where its runs differ in what ran them."""
    for (workload, target), runs in cells.items():
        said = [run.accelerated for run in runs if run.accelerated]
        for enabled in dict.fromkeys(each.enabled for each in said):
            mine = [each for each in said if each.enabled is enabled]
            exits = tuple(each.counters["exits"] for each in mine if "exits" in each.counters)
            reason = next((line(each.reason) for each in mine if each.reason), None)
            yield Acceleration(line(target), labels[target], line(workload), enabled, len(mine), exits, reason)


def _failed(run: Run, labels: Labels) -> Failed:
    error = run.error
    assert error is not None  # a Run that is not ok has one: model.Run refuses all others
    return Failed(
        run=run.id,
        target=run.target,
        label=labels[run.target],
        workload=run.workload,
        round=run.round,
        phase=run.phase,
        failed_in=line(error.phase),
        type=line(error.type),
        message=line(error.message),
        log=plain(error.log).strip("\n"),
    )


def _readings(hosts: Sequence[HostRecord]) -> tuple[Reading, ...]:
    samples: dict[tuple[str, str, str | None, str | None, str], list[Sample]] = {}
    for record in hosts:
        for sample in record.samples:
            samples.setdefault((record.at, sample.metric, sample.group, sample.part, sample.unit), []).append(sample)
    return tuple(
        Reading(at, metric, group, part and line(part), unit, piece.median, piece.n, piece.reason)
        for (at, metric, group, part, unit), found in samples.items()
        for piece in [series.piece(metric, found)]
    )
