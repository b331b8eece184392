"""Typed warnings: what the records themselves give reason to doubt in the numbers that are made of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from harness.metrics import METRICS, Metric
from harness.model import HostRecord, ImageRecord, TargetRecord
from harness.stats import quality
from harness.stats.estimate import median_interval
from harness.store import Result
from harness.wording import Words, count_cpus, count_launches, count_runs, line, quantity

Kind = Literal[
    "file", "left-out", "other-bundle", "uncommitted", "no-limits", "few-rounds", "drift", "bimodal", "disturbed-host",
    "retried",
]  # fmt: skip
HEADLINES = tuple(name for name, metric in METRICS.items() if metric.headline and name != "disk.shared")
"""That of an image is weighed once, and of no round."""
ENOUGH = 10
"""So many launches give a median an interval."""
STOLEN = 0.01
"""Of the time of all CPUs that another guest of the machine's own hypervisor had: from so much on it is told."""
SLOWED = 0.1
"""By how much the CPUs' frequency may change within a campaign."""


@dataclass(frozen=True)
class Doubt:
    """One warning, in words. target, workload and metric are None where it is not about one of them."""

    kind: Kind
    told: str
    target: str | None = None
    workload: str | None = None
    metric: str | None = None

    def __str__(self) -> str:
        return self.told


def of_records(result: Result, left_out: int) -> Iterator[Doubt]:
    """About the file, and about runs that are not what they should be. left_out: runs that no summary has."""
    for warning in result.warnings:
        yield Doubt("file", line(warning))
    if left_out and result.header.plan.sides:
        told = Words("{runs} of two sides left out: `weighbridge compare` shows both", runs=count_runs(left_out))
        yield Doubt("left-out", told)
    elif left_out:
        other_start = Words("cold") if result.header.plan.cold is None else Words("not cold")
        told = Words(
            "{runs} ({other_start}, of one side, or of several instances at once) left out of this summary",
            runs=count_runs(left_out),
            other_start=other_start,
        )
        yield Doubt("left-out", told)
    digests = {(bundle.workload, bundle.side): bundle.sha256 for bundle in result.bundles}
    other = [run.id for run in result.runs if run.bundle_sha256 != digests.get((run.workload, run.side))]
    if other:
        told = Words(
            "{runs} did not start the recorded bundle of the workload, first {run}",
            runs=count_runs(len(other)),
            run=line(other[0]),
        )
        yield Doubt("other-bundle", told)
    yield from _retried(result)
    if result.header.dirty:
        yield Doubt("uncommitted", Words("the harness had uncommitted changes when it measured"))
    yield from _without_limits(result)


def _without_limits(result: Result) -> Iterator[Doubt]:
    """Warn about targets that ran without a limit, once for each reason: others ran with it."""
    found: dict[str, tuple[dict[str, None], dict[str, None]]] = {}
    for run in result.runs:
        for limit, applied in run.limits.items():
            if applied.mechanism is None and applied.reason:
                targets, limits = found.setdefault(applied.reason, ({}, {}))
                targets[run.target] = limits[limit] = None
    for reason, (targets, limits) in found.items():
        told = Words(
            "{targets} ran without limits ({limits}): {reason}",
            targets=line(", ".join(targets)),
            limits=", ".join(limits),
            reason=line(reason),
        )
        yield Doubt("no-limits", told)


def _retried(result: Result) -> Iterator[Doubt]:
    """Warn of each target whose engine or image was ready only after a second try."""
    records: list[TargetRecord | ImageRecord] = [*result.targets, *result.images]
    for record in records:
        if record.retried:
            told = Words(
                "{target} failed to start at first: {reason}", target=line(record.target), reason=line(record.retried)
            )
            yield Doubt("retried", told, line(record.target))


Launches = tuple[str, str, str, Mapping[int, float]]
"""Target, workload and metric, and the values by round."""


def of_launches(launches: Sequence[Launches]) -> Iterator[Doubt]:
    """About launches that are too few, drift over the rounds, or are of two kinds. Only headlines are looked at."""
    headlines = [each for each in launches if each[2] in HEADLINES and each[3]]
    few = [len(by_round) for *_, by_round in headlines if _is_short(by_round)]
    if few:
        launches_each = count_launches(max(few))
        if min(few) < max(few):
            launches_each = Words("{fewest} to {most} launches", fewest=min(few), most=max(few))
        told = "{count} medians are of {launches}: too few for an interval of 95 %"
        if len(few) == 1:
            told = "{count} median is of {launches}: too few for an interval of 95 %"
        yield Doubt("few-rounds", Words(told, count=len(few), launches=launches_each))
    for target, workload, name, by_round in headlines:
        about = (line(target), line(workload), name)
        yield from _drift(by_round, METRICS[name], *about)
        yield from _bimodal(by_round, METRICS[name], *about)


def of_host(result: Result) -> Iterator[Doubt]:
    """About a machine that did other things besides, or was given less than all of its CPUs.

    The records of the machine bear no time: what passed between the first and the last is taken to be what the runs
    took from `requested` to `gone`, which is less, so that the share that was stolen is rather too high.
    """
    cores = result.header.host.gating.get("cores")
    load, stolen, frequency = (_readings(result.hosts, name) for name in ("load", "steal", "frequency"))
    if load and isinstance(cores, int) and max(load) > cores:
        told = Words("the host was busy: a load of {load:.3g} on {cpus}", load=max(load), cpus=count_cpus(cores))
        yield Doubt("disturbed-host", told)
    passed = sum(run.marks[-1][1] for run in result.runs if run.marks)
    if len(stolen) > 1 and isinstance(cores, int) and passed > 0:
        share = (stolen[-1] - stolen[0]) / passed / cores
        if share > STOLEN:
            told = Words("{share:.1%} of the host's CPU time was stolen by its hypervisor", share=share)
            yield Doubt("disturbed-host", told)
    if frequency and min(frequency) < (1 - SLOWED) * max(frequency):
        told = Words(
            "the host's CPUs changed their frequency between {low:.3g} and {high:.3g} GHz",
            low=min(frequency) / 1e9,
            high=max(frequency) / 1e9,
        )
        yield Doubt("disturbed-host", told)


def _is_short(by_round: Mapping[int, float]) -> bool:
    if len(by_round) > ENOUGH:
        return False
    estimate = median_interval([*by_round.values()])
    return estimate.coverage < estimate.confidence


def _drift(by_round: Mapping[int, float], metric: Metric, target: str, workload: str, name: str) -> Iterator[Doubt]:
    found = quality.drift(by_round)
    if found is not None and _matters(found.change, by_round, metric):
        told = "{metric} of {target} with {workload} fell by {change} over the rounds"
        if found.change > 0:
            told = "{metric} of {target} with {workload} rose by {change} over the rounds"
        change = quantity(abs(found.change), metric.unit)
        words = Words(told, metric=name, target=target, workload=workload, change=change)
        yield Doubt("drift", words, target, workload, name)


def _bimodal(by_round: Mapping[int, float], metric: Metric, target: str, workload: str, name: str) -> Iterator[Doubt]:
    found = quality.bimodal([*by_round.values()])
    if found is not None and _matters(found.high - found.low, by_round, metric):
        low, high = (quantity(value, metric.unit) for value in (found.low, found.high))
        told = Words(
            "{metric} of {target} with {workload} is of two kinds: {low} and, in {share:.0%} of launches, {high}",
            metric=name,
            target=target,
            workload=workload,
            low=low,
            share=found.upper,
            high=high,
        )
        yield Doubt("bimodal", told, target, workload, name)


def _matters(change: float, by_round: Mapping[int, float], metric: Metric) -> bool:
    middle = abs(float(np.median([*by_round.values()])))
    return abs(change) > max(metric.floor, metric.threshold * middle)


def _readings(hosts: Sequence[HostRecord], name: str) -> list[float]:
    samples = (sample for record in hosts for sample in record.samples if sample.metric == f"host.{name}")
    return [sample.value for sample in samples if sample.value is not None]
