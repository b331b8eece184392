"""Result files with known numbers in them, for the tests of what compares results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.model import (
    SCHEMA,
    BundleRecord,
    Failure,
    Footer,
    Header,
    Host,
    ImageRecord,
    Plan,
    Run,
    Sample,
    Side,
    TargetRecord,
    UnavailableRecord,
)
from harness.store import Writer

GATING = {"cpu model": "Example", "cores": 2, "architecture": "x86_64", "kernel": "6.1", "cgroup version": 2}
MIB = 2**20

Series = Mapping[str, Sequence[float | None]]
"""Of each target the start-up of its rounds in seconds; None is a launch that failed."""


def write(
    path: Path,
    sides: Mapping[Any, Series],
    *,
    campaign: str | None = None,
    pss: Mapping[Any, float] | None = None,
    disk: Mapping[Any, float] | None = None,
    image: Mapping[Any, float] | None = None,
    gating: Mapping[str, Any] | None = None,
    version: str = "20.10",
    unavailable: Sequence[UnavailableRecord] = (),
    plan: Mapping[str, Any] | None = None,
    footer: Footer | None = None,
) -> Path:
    """One campaign of the workload hello. pss, disk (one more instance), image: bytes, of a side."""
    targets = tuple(dict.fromkeys(target for series in sides.values() for target in series))
    planned = Plan(targets=targets, sides={} if None in sides else {"base": {}, "head": {}}, **(plan or {}))
    host = Host({**GATING, **(gating or {})}, {"hostname": "example"})
    seq, failed = 0, 0
    with Writer(path) as writer:
        writer.append(
            Header(
                SCHEMA,
                campaign or path.stem,
                "2026-11-24T00:00:00.000+00:00",
                ["weighbridge"],
                None,
                None,
                planned,
                host,
            )
        )
        for side, series in sides.items():
            writer.append(BundleRecord("hello", "0" * 64, 1, {}, side))
            for target in series:
                writer.append(TargetRecord(target, target.partition("/")[0], version, "private", side=side))
                shared = Sample("disk.shared", "B", (image or {}).get(side, 2 * MIB), part="tree")
                writer.append(ImageRecord(target, "hello", [shared], side))
        for record in unavailable:
            writer.append(record)
        for side, series in sides.items():
            amounts = (pss or {}).get(side, MIB), (disk or {}).get(side, 0.5 * MIB)
            for target, values in series.items():
                for number, value in enumerate(values, start=1):
                    writer.append(_run(seq, target, number, value, amounts, side))
                    seq, failed = seq + 1, failed + (value is None)
        writer.append(footer or Footer(True, None, seq, failed))
    return path


def _run(
    seq: int, target: str, number: int, ready: float | None, amounts: tuple[float, float], side: Side | None
) -> Run:
    pss, disk = amounts
    return Run(
        id=f"run-{seq}",
        seq=seq,
        target=target,
        workload="hello",
        round=number,
        phase="measured",
        bundle_sha256="0" * 64,
        ok=ready is not None,
        error=None if ready is not None else Failure("waiting", "StartTimeout", "not ready"),
        marks=[("requested", 0.0), *([("ready", ready)] if ready is not None else [])],
        samples=[] if ready is None else [Sample("memory.pss", "B", pss), Sample("disk.instance", "B", disk)],
        limits={},
        facts={},
        side=side,
    )
