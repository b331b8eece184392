"""The figures as docs/PERFORMANCE.md shows them, made of the raw values and of nothing else."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from harness.model import Host
from harness.stats.estimate import Estimate
from selfbench.measurement import Measurement


class Selfbench(msgspec.Struct, frozen=True, kw_only=True):
    """One execution of `python -m selfbench`."""

    command: list[str]
    commit: str | None
    dirty: bool | None
    host: Host
    measurements: list[Measurement]


def table(result: Selfbench) -> str:
    """Markdown: a table of promises, then what each figure is made of."""
    lines = ["| | figure [95 % interval] | promised | |", "| --- | --- | --- | --- |"]
    lines += [_row(measurement) for measurement in result.measurements]
    for measurement in result.measurements:
        lines += ["", f"**{measurement.question}**", "", *_details(measurement)]
    return "\n".join(lines) + "\n"


def _row(measurement: Measurement) -> str:
    if measurement.skipped:
        return f"| {measurement.question} | not measured: {measurement.skipped} | {_promise(measurement)} | |"
    verdict = {True: "kept", False: "**missed**", None: ""}[measurement.reached]
    return f"| {measurement.question} | {_figure(measurement)} | {_promise(measurement)} | {verdict} |"


def _figure(measurement: Measurement) -> str:
    ratio = measurement.ratio()
    if ratio is None:
        return _estimate(measurement.estimates()[measurement.ours], measurement.unit)
    interval = "" if ratio.low is None or ratio.high is None else f" [{ratio.low:.3g}, {ratio.high:.3g}]"
    return f"{ratio.ratio:.3g}{interval}, n={ratio.n}"


def _promise(measurement: Measurement) -> str:
    def limit(value: float) -> str:
        return f"{value:g}" if measurement.floor else _amount(value, measurement.unit)

    told = [f"at most {limit(measurement.at_most)}"] if measurement.at_most is not None else []
    told += [f"at least {limit(measurement.at_least)}"] if measurement.at_least is not None else []
    return ", ".join(told) or "disclosed"


def _details(measurement: Measurement) -> Iterator[str]:
    if measurement.note:
        yield from (measurement.note, "")
    if measurement.values:
        yield from ("| | median [95 % interval] |", "| --- | --- |")
    for name, estimate in measurement.estimates().items():
        yield f"| {name} | {_estimate(estimate, measurement.unit)} |"


def _estimate(estimate: Estimate, unit: str) -> str:
    low, high = (_amount(value, unit) for value in (estimate.low, estimate.high))
    return f"{_amount(estimate.median, unit)} [{low}, {high}], n={estimate.n}"


def _amount(value: float, unit: str) -> str:
    if unit != "s":
        return f"{value:.3g} {unit}".strip()
    for scale, name in ((1.0, "s"), (1e-3, "ms")):
        if abs(value) >= scale:
            return f"{value / scale:.3g} {name}"
    return f"{value / 1e-6:.3g} µs"
