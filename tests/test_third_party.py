"""Engines of somebody else's: found by their entry points, weighed as ours, and no harm where they do not work."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import backends, command, plan
from harness.campaign import Campaign, Outcome
from harness.errors import Unavailable
from harness.ledger import Ledger
from harness.model import Limits, Plan, headline
from harness.store import Result, read
from tests.ground import Ground, ground

pytestmark = pytest.mark.long

PACKAGE = Path(__file__).parent / "third_party"
BAD = {
    "example-of-the-future": ("API 2, this program 1", "release"),
    "example-that-is-none": ("API None, this program 1", "release"),
    "example-without-class": ("cannot be imported", "Absent"),
    "example-without-module": ("cannot be imported", "weighbridge_absent"),
    "example-that-fails": ("cannot be imported", "never finished"),
    "example-that-fails-later": ("KeyError", "whatever"),
}


@pytest.fixture(scope="module")
def place() -> Iterator[Ground]:
    """Ground where the package is installed: as an installer does it."""
    with ground() as here, pytest.MonkeyPatch.context() as patch:
        site = here.folder / "site"
        uv = shutil.which("uv") or str(Path(sys.executable).with_name("uv"))
        command.run([uv, "pip", "install", "-q", "--no-deps", "--python", sys.executable, "--target", site, PACKAGE])
        patch.syspath_prepend(site)
        for name, value in here.environment.items():
            patch.setenv(name, value)
        yield here


def weigh(place: Ground, *targets: str) -> tuple[Outcome, Result]:
    output = place.folder / "third.jsonl"
    campaign = Campaign(Plan(targets=targets, rounds=1, limits=Limits()), output, [], lambda event: None)
    return campaign.run(), read(output)


def test_its_names_are_known(place: Ground) -> None:
    assert {"example", "host", *BAD} <= set(backends.names())
    assert plan.targets("namespace/pid,example") == ["namespace/pid", "example"]


@pytest.mark.parametrize("target", [name for name in BAD if name != "example-that-fails-later"])
def test_what_cannot_work_says_why(place: Ground, target: str) -> None:
    with Ledger() as ledger, pytest.raises(Unavailable) as refused:
        backends.create(target, ledger, Plan())
    for word in BAD[target]:
        assert word in f"{refused.value.reason} {refused.value.hint}"


def test_a_campaign_of_what_cannot_work_tells_of_all(place: Ground) -> None:
    outcome, result = weigh(place, *BAD)
    assert (outcome.cells, outcome.runs) == (0, 0)
    told = {record.target: f"{record.reason} {record.hint}" for record in result.unavailable}
    assert set(told) == set(BAD)
    for target, words in BAD.items():
        for word in words:
            assert word in told[target]


@pytest.mark.engine
def test_it_is_weighed_as_the_others(place: Ground) -> None:
    outcome, result = weigh(place, "example", "example-that-fails")
    assert (outcome.cells, outcome.runs, outcome.failed) == (1, 2, 0)
    assert [record.target for record in result.unavailable] == ["example-that-fails"]
    [record] = result.targets
    assert (record.target, record.engine) == ("example", "Example")
    for run in result.runs:
        assert run.error is None
        names = [name for name, _ in run.marks]
        assert [name for name in names if name in ("copied", "init", "ready", "gone")] == [
            "copied",
            "init",
            "ready",
            "gone",
        ]
        assert run.facts["bundle"] == result.bundles[0].sha256
        assert run.facts["uid_map"].split() == ["0", str(os.geteuid()), "1"]
        assert (headline(run.samples, "memory.pss") or 0) > 0
        assert (headline(run.samples, "disk.instance") or 0) > result.bundles[0].bytes
    assert place.left() == []
