"""A chroot can be left by whoever is root in it. The sandbox must not be, and the test must see the difference."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness.command import run
from tests.ground import WORKLOADS, Ground, ground

pytestmark = pytest.mark.engine


@dataclass(frozen=True)
class Prison:
    """A workload that tries to write `marker`, which is in a folder of the host's where everybody may write."""

    site: Ground
    workload: Path
    marker: Path


@pytest.fixture
def prison() -> Iterator[Prison]:
    with ground() as site:
        outside = site.folder / "outside"
        outside.mkdir()
        outside.chmod(0o777)
        workload = site.folder / "escapes"
        shutil.copytree(WORKLOADS / "escapes", workload)
        run(["gcc", "-static", "-o", workload / "escape", workload / "escape.c"])
        (workload / "marker").write_text(f"{outside}/marker\n")
        yield Prison(site, workload, outside / "marker")


@pytest.mark.parametrize(("target", "gets_out"), [("host", True), ("namespace", False), ("namespace/pid,net", False)])
def test_who_gets_out(prison: Prison, target: str, gets_out: bool) -> None:
    said = prison.site.weighbridge(
        "run",
        "--targets",
        target,
        "--workloads",
        prison.workload,
        "--rounds",
        "1",
        "-o",
        prison.site.folder / "r.jsonl",
    )
    assert said.code == 0, said.err
    assert prison.marker.exists() is gets_out
    assert prison.site.left() == []
