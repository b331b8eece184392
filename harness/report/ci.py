"""A report for what watches numbers from commit to commit: github-action-benchmark, Bencher, readers of OpenMetrics.

A number keeps its name from campaign to campaign: workload, target, what ran a VM's guest, whether starts were cold,
and metric. So KVM and TCG, cold and warm are never one series. The campaign is not in the name, or each would be a
series of its own, nor is the reason for TCG, which is told beside it. A file holds several campaigns where no two of
their numbers share a name; where they do it is BadInput: a consumer would drop one, or compare it with the other.

Values are medians in s and B. A number that could not be had has no line: only OpenMetrics tells the reason.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness import meters
from harness.errors import BadInput
from harness.report.rows import Row
from harness.report.summary import Campaign, Summary
from harness.stats.estimate import Estimate
from harness.store import Result
from harness.wording import line, ran, unit

_UNITS = {"s": "seconds", "B": "bytes", "1": ""}
NAMED = {"cold": "cold {}", "lab": "lab: {}"}
_BENCHMARK, _MEASURE = 1024, 64
"""How many characters Bencher takes for a name."""


@dataclass(frozen=True)
class Number:
    """A row, and the labels that tell it from all others of its metric."""

    row: Row
    labels: Mapping[str, str]

    @property
    def place(self) -> str:
        """The labels as a name: "hello · libvirt/pc · QEMU TCG · cold image"."""
        return " · ".join(NAMED.get(name, "{}").format(value) for name, value in self.labels.items())


def numbers(summary: Summary, results: Sequence[Result]) -> Iterator[Number]:
    """Every row of every campaign. `results` are those that the summary was made of, in its order."""
    for campaign, result in zip(summary.campaigns, results, strict=True):
        accelerators = {line(target.target): ran(target) for target in result.targets}
        for row in campaign.rows:
            labels = {
                "workload": row.workload,
                "target": row.target,
                "accelerator": accelerators.get(row.target, "its engine was not recorded"),
                "cold": campaign.cold,
                "lab": campaign.host.gating.get("lab"),
            }
            yield Number(row, {name: value for name, value in labels.items() if value is not None})


def estimated(numbers: Iterable[Number]) -> Iterator[tuple[Number, Estimate]]:
    """Those that there are."""
    return ((number, number.row.estimate) for number in numbers if number.row.estimate)


# benchmark-action/github-action-benchmark


def write_github(summary: Summary, results: Sequence[Result], directory: Path) -> list[Path]:
    """github-action-benchmark.json, for its tool `customSmallerIsBetter`: the metrics of which less is better."""
    names = _Names("github-action-benchmark")
    entries = [
        {
            "name": names.new(f"{number.place} · {number.row.metric}", number.row),
            "unit": unit(number.row.metric, number.row.unit),
            "value": estimate.median,
            **_range(estimate),
            "extra": _extra(number.row, estimate),
        }
        for number, estimate in estimated(numbers(summary, results))
        if meters.metric(number.row.metric, number.row.unit).better == "lower"
    ]
    return [_write_json(directory / "github-action-benchmark.json", entries)]


def _range(estimate: Estimate) -> dict[str, str]:
    """Without "±", after which the action looks for half the width of a symmetric interval, which this is not."""
    if estimate.n == 1:
        return {}
    reached = min(estimate.coverage, estimate.confidence)
    return {"range": f"[{estimate.low:.12g}, {estimate.high:.12g}] {reached:.0%}"}


def _extra(row: Row, estimate: Estimate) -> str:
    told = [row.label, f"median, n={estimate.n}", row.reason, f"{row.failed} failed" if row.failed else None]
    return "\n".join([*(text for text in told if text), f"campaign {row.campaign}"])


# Bencher


def write_bencher(summary: Summary, results: Sequence[Result], directory: Path) -> list[Path]:
    """bencher.json, Bencher Metric Format. Measures are named with their unit, which the format has no place for.

    None is a built-in one of Bencher's: its `latency` is in ns. An interval that falls short of 95 % is left out, since
    nothing could say so.
    """
    names = _Names("bencher")
    benchmarks: dict[str, dict[str, dict[str, float]]] = {}
    for number, estimate in estimated(numbers(summary, results)):
        row = number.row
        measure = _short(re.sub(r"[^a-z0-9]+", "-", f"{row.metric} {_unit(row)}".lower()).strip("-"), _MEASURE)
        benchmark = _short(number.place, _BENCHMARK)
        names.new(f"{benchmark} · {measure}", row)
        metric = {"value": estimate.median}
        if estimate.coverage >= estimate.confidence:
            metric |= {"lower_value": estimate.low, "upper_value": estimate.high}
        benchmarks.setdefault(benchmark, {})[measure] = metric
    return [_write_json(directory / "bencher.json", benchmarks)]


def _short(name: str, longest: int) -> str:
    if not 0 < len(name) <= longest:
        raise BadInput(f"bencher takes names of 1 to {longest} characters, not {len(name)}: {name}")
    return name


# OpenMetrics


class Families:
    """Gauges by family, none twice.

    All are gauges, also those that only tell something by their labels: the older text format, which a Pushgateway and
    node_exporter's textfile collector read, knows no type `info`. So one file does for both.
    """

    def __init__(self) -> None:
        self._families: dict[str, tuple[str, str, dict[str, float]]] = {}

    def add(self, name: str, suffix: str, about: str, labels: Mapping[str, str], value: float) -> str:
        """Returns the sample's full name. `suffix` is the unit, or empty. What was there by that name is replaced."""
        family = "_".join(
            re.sub(r"[^a-zA-Z0-9]+", "_", part).strip("_") for part in ("weighbridge", name, suffix) if part
        )
        _, _, samples = self._families.setdefault(family, (suffix, about, {}))
        told = ",".join(f'{label}="{_escape(text)}"' for label, text in labels.items())
        samples[told] = value
        return f"{family}{{{told}}}"

    def render(self) -> str:
        lines = []
        for family, (suffix, about, samples) in self._families.items():
            lines += [f"# TYPE {family} gauge", *([f"# UNIT {family} {suffix}"] if suffix else [])]
            lines += [f"# HELP {family} {_escape(about)}"]
            lines += [f"{family}{{{labels}}} {value!r}" for labels, value in samples.items()]
        return "\n".join([*lines, "# EOF\n"])


def write_openmetrics(summary: Summary, results: Sequence[Result], directory: Path) -> list[Path]:
    """openmetrics.txt, OpenMetrics 1.0: a family a metric, two for its interval; one for all n, one for all coverages.

    What has no number is a sample of weighbridge_missing_info with its reason, never NaN, which would spoil sums. There
    are no timestamps: a Pushgateway refuses them.
    """
    families, names = Families(), _Names("openmetrics")
    for number in numbers(summary, results):
        if number.row.estimate:
            names.new(_add_number(families, number, number.row.estimate), number.row)
    for number in numbers(summary, results):
        if not number.row.estimate:
            known = {**number.labels, "metric": number.row.metric, "reason": number.row.reason or ""}
            families.add("missing_info", "", "A number that could not be had, and why.", known, 1)
    for campaign in summary.campaigns:
        _add_origin(families, campaign)
    path = directory / "openmetrics.txt"
    path.write_text(families.render(), encoding="utf-8")
    return [path]


def _add_number(families: Families, number: Number, estimate: Estimate) -> str:
    """Adds a median, its interval, n and coverage. Returns the name of the median."""
    row, labels, suffix = number.row, number.labels, _unit(number.row)
    # An escaped quote is an error in the help of the older format, a bare one in that of OpenMetrics.
    title = line(meters.metric(row.metric, row.unit).title).replace('"', "'")
    name = families.add(row.metric, suffix, f"{title}. Median.", labels, estimate.median)
    which = {**labels, "metric": row.metric}
    families.add("observations", "", "How many values a median is of.", which, estimate.n)
    if estimate.n > 1:
        for end, bound in (("low", estimate.low), ("high", estimate.high)):
            about = f"{title}. Interval of the median, its {end} end."
            families.add(f"{row.metric}.interval_{end}", suffix, about, labels, bound)
        about = f"What an interval covers at the least; below {estimate.confidence} with too few launches."
        families.add("interval_coverage", "ratio", about, which, estimate.coverage)
    return name


def _add_origin(families: Families, campaign: Campaign) -> None:
    """Adds what the numbers are of: the campaign, its targets in full, and those that were not there."""
    known = {"campaign": campaign.id, "started": campaign.started, "commit": line(campaign.commit or "")}
    known["incomplete"] = campaign.incomplete or ""
    families.add("campaign_info", "", "A campaign, and why it is not whole if it is not.", known, 1)
    for target in campaign.configurations:
        about = {"target": line(target.target), "label": target.label, "engine": line(target.engine)}
        about |= {"version": line(target.version), "whose": line(target.whose)}
        families.add("target_info", "", "A target, with what ran a guest and why not KVM.", about, 1)
    for absent in campaign.unavailable:
        lacking = {"target": absent.target, "reason": absent.reason, "hint": absent.hint}
        families.add("unavailable_info", "", "A target that could not run, and why.", lacking, 1)


def _escape(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


# What they share


class _Names:
    """The names that a file of one format has so far."""

    def __init__(self, file_format: str) -> None:
        self._format, self._campaigns = file_format, dict[str, str]()

    def new(self, name: str, row: Row) -> str:
        """The name. Raises BadInput if another row had it already."""
        if name in self._campaigns:
            of = " and ".join(dict.fromkeys((self._campaigns[name], row.campaign)))
            raise BadInput(f"{self._format} can hold one number as {name}: there are two, of campaign {of}")
        self._campaigns[name] = row.campaign
        return name


def _unit(row: Row) -> str:
    """The unit of a row as a word that may end a name: "seconds", "bytes", "cpus"; empty where there is none."""
    told = unit(row.metric, row.unit)
    return _UNITS.get(told, re.sub(r"[^a-z0-9]+", "_", told.lower()).strip("_"))


def _write_json(path: Path, content: object) -> Path:
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
    return path
