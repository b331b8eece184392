"""What is too much: for each metric, the change below which nobody is to be alarmed."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import meters, plan
from harness.decode import Undecodable, decode_toml
from harness.errors import BadInput
from harness.metrics import METRICS

PROJECT = Path("pyproject.toml")
KEYS = ("threshold", "floor")


@dataclass(frozen=True)
class Threshold:
    """A change counts where it is beyond `relative` (a fraction of the base) and `floor` (in the metric's unit)."""

    relative: float
    floor: float


Gate = Mapping[str, Threshold]
"""The metrics that verdicts are given on, and their thresholds."""


def default() -> dict[str, Threshold]:
    """That of the headline metrics, as the registry of metrics has it."""
    return {name: Threshold(known.threshold, known.floor) for name, known in METRICS.items() if known.headline}


def chosen(fail: str | None, plan_file: Path | None = None, project: Path = PROJECT) -> Gate:
    """What --fail names, and that alone; without it, what is configured."""
    return configured(plan_file, project) if fail is None else parse(fail)


def configured(plan_file: Path | None = None, project: Path = PROJECT) -> dict[str, Threshold]:
    """The default, what [tool.weighbridge.gate] of a project changes of it, and then what [gate] of a plan file does.

    A metric has a fraction, as "10%", or a table, as {threshold = "10%", floor = "1ms"}. Raises BadInput.
    """
    told = default()
    if project.is_file():
        _add(told, _table(project, "tool", "weighbridge", plan.GATE), f"{project}, [tool.weighbridge.gate]")
    if plan_file is not None:
        _add(told, _table(plan_file, plan.GATE), f"{plan_file}, [gate]")
    return told


def parse(text: str) -> dict[str, Threshold]:
    """The thresholds of `memory.pss:5%,startup.total:10%`; each keeps its metric's floor. Raises BadInput."""
    told: dict[str, Threshold] = {}
    for piece in filter(None, (piece.strip() for piece in text.split(","))):
        metric, colon, amount = piece.partition(":")
        if not colon:
            raise BadInput(f"{piece!r} is no threshold; an example: memory.pss:5%")
        _add(told, {metric: amount}, "thresholds")
    if not told:
        raise BadInput("no threshold is named; an example: memory.pss:5%,startup.total:10%")
    return told


def _add(told: dict[str, Threshold], table: Mapping[str, Any], where: str) -> None:
    for metric, said in table.items():
        known = _known(metric, where)
        values = said if isinstance(said, Mapping) else {"threshold": said}
        if foreign := [key for key in values if key not in KEYS]:
            raise BadInput(f"{where}: {metric}: unknown key {foreign[0]!r}; known: {', '.join(KEYS)}")
        old = told.get(metric, Threshold(known.threshold, known.floor))
        told[metric] = Threshold(
            _fraction(values["threshold"], f"{where}: {metric}") if "threshold" in values else old.relative,
            _amount(values["floor"], known.unit, f"{where}: {metric}") if "floor" in values else old.floor,
        )


def _known(metric: str, where: str) -> Any:
    added = {known.name: known for meter in meters.installed() for known in meter.metrics}
    known = METRICS.get(metric) or added.get(metric)
    if known is None:
        raise BadInput(f"{where}: unknown metric {metric!r}; known: {', '.join(_gateable([*METRICS, *added]))}")
    if known.better == "neither":
        raise BadInput(f"{where}: {metric} is neither better nor worse when it changes")
    return known


def _gateable(names: Iterable[str]) -> list[str]:
    return [name for name in names if meters.metric(name, "1").better != "neither"]


def _fraction(said: Any, where: str) -> float:
    parts = re.fullmatch(r"(\d+(?:\.\d+)?)(%?)", str(said).strip())
    if not parts or isinstance(said, bool):
        raise BadInput(f"{where}: {said!r} is no threshold; an example: 5%, or 0.05")
    return float(parts[1]) / (100 if parts[2] else 1)


def _amount(said: Any, unit: str, where: str) -> float:
    if isinstance(said, (int, float)) and not isinstance(said, bool) and math.isfinite(said) and said >= 0:
        return float(said)
    if isinstance(said, str) and unit == "B":
        return plan.size(said)
    parts = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|us|µs|s)", str(said))
    if parts is None or unit != "s":
        raise BadInput(f"{where}: {said!r} is no floor; an example: 1ms, or 256K, or a number in {unit}")
    return float(parts[1]) * {"s": 1, "ms": 1e-3, "us": 1e-6, "µs": 1e-6}[parts[2]]


def _table(file: Path, *names: str) -> Mapping[str, Any]:
    """A table of a TOML file; empty where it is not there."""
    try:
        table: Any = decode_toml(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadInput(f"cannot read {file}: {error.strerror}") from error
    except (Undecodable, UnicodeDecodeError) as error:
        raise BadInput(f"{file}: {error}") from error
    for name in names:
        table = table.get(name, {})
        if not isinstance(table, Mapping):
            raise BadInput(f"{file}: {name} is no table")
    return dict(_flat(table))


def _flat(table: Mapping[str, Any], before: str = "") -> Iterable[tuple[str, Any]]:
    """With the names of metrics as TOML may have cut them: `memory.pss = "5%"` is a table in a table."""
    for key, said in table.items():
        name = f"{before}{key}"
        if isinstance(said, Mapping) and not set(said) & set(KEYS) and said:
            yield from _flat(said, f"{name}.")
        else:
            yield name, said
