"""An engine from a package of somebody else's is found, run and recorded like our own."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.command import run
from harness.store import Result, read
from tests.ground import ground

pytestmark = pytest.mark.engine

PACKAGE = Path(__file__).parent / "third_party"


@pytest.fixture(scope="module")
def result() -> Iterator[Result]:
    """A campaign on our own engine beside those of the package, which is installed for it as pip does."""
    with ground() as site:
        installed = site.folder / "site-packages"
        uv = shutil.which("uv") or str(Path(sys.executable).with_name("uv"))
        run([uv, "pip", "install", "-q", "--no-deps", "--python", sys.executable, "--target", installed, PACKAGE])
        targets = "host,example,example-of-tomorrow,example-without-sdk"
        output = site.folder / "r.jsonl"
        said = site.weighbridge(
            "run", "--targets", targets, "--rounds", "1", "-o", output, environment={"PYTHONPATH": str(installed)}
        )
        assert said.code == 0, said.err
        assert site.left() == []
        yield read(output)


def test_it_runs_the_same_bundle(result: Result) -> None:
    runs = [run for run in result.runs if run.target == "example"]
    assert [run.error for run in runs] == [None, None]
    assert {run.bundle_sha256 for run in result.runs} == {runs[0].facts["bundle"]}
    assert runs[0].limits["cpus"].reason == "this engine knows no limits"


def test_its_engine_is_named(result: Result) -> None:
    assert {record.target: record.engine for record in result.targets} == {"host": "Linux", "example": "example"}


def test_what_does_not_fit_is_unavailable_with_the_reason(result: Result) -> None:
    reasons = {record.target: record.reason for record in result.unavailable}
    assert "speaks API 2" in reasons["example-of-tomorrow"]
    assert "No module named 'the_sdk_that_nobody_has'" in reasons["example-without-sdk"]
