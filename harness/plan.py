"""Makes a Plan of what the user said: a TOML file, and flags that win over it."""

from __future__ import annotations

import math
import os
import re
import secrets
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from harness import backends
from harness.decode import Undecodable, decode_toml
from harness.errors import BadInput
from harness.model import Plan, Side
from harness.schedule import LEAST

DURATIONS = {"": 1, "s": 1, "m": 60, "h": 3600}
SIZES = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}
LIMITS = ("cpus", "memory")
COMPARED_ROUNDS = 30
"""Of a campaign with two sides, unless it is said: what seven rounds can show is no gate."""
SIDES: tuple[Side, ...] = ("base", "head")
SIDED = (
    "targets", "workloads", "engines", "docker_host", "libvirt_uri", "emulator", "kernel", "modules", *LIMITS,
)  # fmt: skip
"""What the two sides of one campaign may differ in: what is measured, and not how."""
LEAST_MEMORY = 2**20

KEYS = tuple(field for field in Plan.__struct_fields__ if field not in ("limits", "sides")) + LIMITS
GATE = "gate"
"""The table of a plan file that says what is too much; harness/gate.py reads it."""


def make(file: Path | None, flags: Mapping[str, Any]) -> Plan:
    """The plan of a file and of the flags that were given (not None). Raises BadInput with the key that is wrong.

    Of two sides either has a table of its own, `[base]` and `[head]` in the file, `base` and `head` among the flags.
    """
    read = _read(file) if file else {}
    said = {**_defaults(), **read, **{k: v for k, v in flags.items() if v is not None}}
    said.pop(GATE, None)
    tables = {
        side: _table(side, read.get(side, {})) | flags.get(side, {})
        for side in SIDES
        if said.pop(side, None) is not None
    }
    for key in said:
        if key not in KEYS:
            raise BadInput(f"{file}: unknown key {key!r}; known: {', '.join(KEYS)}")
    values = {key: _value(key, value) for key, value in said.items()}
    if tables and not {"rounds", "precision"} & values.keys():
        values["rounds"] = COMPARED_ROUNDS
    if values.get("precision") is not None:
        if "rounds" in values:
            raise BadInput("rounds and precision were both given: either says how many rounds there are, leave out one")
        values["rounds"] = LEAST
    plan = _checked(values)
    if not tables:
        return plan
    plan = msgspec.structs.replace(plan, sides={side: _differences(side, tables.get(side, {})) for side in SIDES})
    base, head = sides(plan).values()
    for what, ours, theirs in (
        ("targets", base.targets, head.targets), ("workloads", base.workloads, head.workloads)
    ):  # fmt: skip
        if len(ours) != len(theirs):
            raise BadInput(f"base has {len(ours)} {what} and head {len(theirs)}: each is compared to one")
    return plan


def sides(plan: Plan) -> dict[Side | None, Plan]:
    """The plan of each side; of a campaign without sides, the plan itself. Raises BadInput."""
    if not plan.sides:
        return {None: plan}
    common = {field: getattr(plan, field) for field in Plan.__struct_fields__ if field not in ("limits", "sides")}
    common |= msgspec.structs.asdict(plan.limits)
    return {side: _checked({**common, **differences}, f"{side}.") for side, differences in plan.sides.items()}


def _table(side: Side, table: Any) -> dict[str, Any]:
    if not isinstance(table, Mapping):
        raise BadInput(f"{side} is a table, as [{side}] with a line kernel = ...")
    return dict(table)


def _differences(side: Side, table: Mapping[str, Any]) -> dict[str, Any]:
    """What a side says, checked as far as that can be done without the rest of the plan."""
    for key in table:
        if key not in SIDED:
            raise BadInput(f"{side}: {key!r} is nothing that two sides may differ in; known: {', '.join(SIDED)}")
    return {key: _value(key, value) for key, value in table.items()}


def _checked(values: dict[str, Any], where: str = "") -> Plan:
    """The plan of these values. where: goes before the key that is wrong."""
    for key, value in values.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise BadInput(f"{where}{key}: {value} is no amount")
    if isinstance(values.get("memory"), int) and 0 < values["memory"] < LEAST_MEMORY:
        raise BadInput(f"{where}memory: {values['memory']} bytes can run nothing; an amount has a unit, as 256M")
    limits = {key: values[key] for key in LIMITS if key in values}
    try:
        given = {k: v for k, v in values.items() if k not in LIMITS and v is not msgspec.UNSET}
        plan = msgspec.convert({**given, "limits": limits}, Plan)
    except msgspec.ValidationError as error:
        what, _, key = str(error).partition(" - at `$.")
        raise BadInput(f"{where}{key.rstrip('`').removeprefix('limits.') or 'plan'}: {what}") from error
    for what, named in (("target", plan.targets), ("workload", plan.workloads)):
        if not named:
            raise BadInput(f"{where}no {what} is named".replace(".", ": "))
        if repeated := [name for name in named if named.count(name) > 1]:
            raise BadInput(f"{what} {repeated[0]} is named twice")
    return plan


def side(said: Iterable[str]) -> dict[str, str]:
    """The table of one side of what the command line says of it: `kernel=/boot/vmlinuz`, a key at a time."""
    table = {}
    for text in said:
        key, equals, value = text.partition("=")
        if not equals or not value:
            raise BadInput(f"{text!r} is not KEY=VALUE; an example: kernel=/boot/vmlinuz")
        table[key.replace("-", "_")] = value
    return table


def targets(text: str) -> list[str]:
    """Splits `namespace/pid,net,docker`: a piece that is no backend's name belongs to the target before it."""
    known = backends.names()
    found: list[str] = []
    for piece in filter(None, (piece.strip() for piece in text.split(","))):
        if found and "/" in found[-1] and piece.partition("/")[0] not in known:
            found[-1] += f",{piece}"
        else:
            found.append(piece)
    return found


def duration(text: str) -> float:
    """Seconds of `90`, `90s`, `10m`, `1h30m`. Raises BadInput."""
    parts = re.findall(r"(\d+(?:\.\d+)?)([smh]?)", text)
    if not parts or "".join(a + b for a, b in parts) != text:
        raise BadInput(f"{text!r} is no duration; an example: 10m, or 1h30m")
    return sum(float(number) * DURATIONS[unit] for number, unit in parts)


def size(text: str) -> int:
    """Bytes of `268435456`, `256M` or `256MiB`: units are powers of 1024, as Docker and systemd have them."""
    parts = re.fullmatch(r"(\d+(?:\.\d+)?)([kmgt]?)(?:i?b)?", text.lower())
    if not parts:
        raise BadInput(f"{text!r} is no amount of memory; an example: 256M")
    return round(float(parts[1]) * SIZES[parts[2]])


def fraction(text: str) -> float:
    """The fraction between 0 and 1 of `5%` or `0.05`. Raises BadInput."""
    parts = re.fullmatch(r"(\d+(?:\.\d+)?)(%?)", text)
    number = float(parts[1]) / (100 if parts[2] else 1) if parts else 0.0
    if not 0 < number < 1:
        raise BadInput(f"precision: {text!r} is no fraction between 0 and 1; an example: 5%")
    return number


def _defaults() -> dict[str, Any]:
    defaults: dict[str, Any] = {"seed": secrets.randbits(32)}
    if os.geteuid() != 0:  # `host` stays, so that its reason and remedy are shown
        defaults["targets"] = ["host", "userns-chroot", *Plan().targets[1:]]
    return defaults


def _read(file: Path) -> dict[str, Any]:
    try:
        return decode_toml(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadInput(f"cannot read {file}: {error.strerror}") from error
    except (Undecodable, UnicodeDecodeError) as error:
        raise BadInput(f"{file}: {error}") from error


def _value(key: str, value: Any) -> Any:
    if isinstance(value, str):
        match key:
            case "targets":
                return targets(value)
            case "workloads":
                return [piece.strip() for piece in value.split(",") if piece.strip()]
            case "budget":
                return None if value == "none" else duration(value)
            case "timeout":
                return msgspec.UNSET if value == "auto" else duration(value)
            case "memory":
                return size(value)
            case "cpus":
                return _number(key, value)
            case "precision":
                return fraction(value)
    if key in ("budget", "timeout", "cpus") and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    return value


def _number(key: str, text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise BadInput(f"{key}: {text!r} is no number") from error
