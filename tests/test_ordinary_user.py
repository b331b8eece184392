"""An ordinary user gets what can be had, and for the rest the reason and the remedy."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from harness.store import Result, read
from tests.ground import REPOSITORY, Said, ground

pytestmark = [
    pytest.mark.engine,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can become an ordinary user; every other run is one"),
]

NOBODY = 65534
RUNNING = ("userns-chroot", "namespace", "libvirt/pc,accel=tcg")


@dataclass(frozen=True)
class Campaign:
    said: Said
    result: Result
    left: list[str]


@pytest.fixture(scope="module")
def campaign() -> Iterator[Campaign]:
    assert REPOSITORY.stat().st_mode & 0o005 == 0o005, "this checkout is closed to other users"
    with ground(NOBODY) as site:
        output = site.folder / "r.jsonl"
        targets = "host,userns-chroot,namespace,docker,libvirt/pc,accel=tcg"
        said = site.weighbridge(
            *("run", "--targets", targets, "--rounds", "1", "-o", output),
            # No home that is theirs, no socket that they may use.
            environment={"HOME": str(site.folder), "DOCKER_HOST": "", "XDG_RUNTIME_DIR": ""},
            prefix=("setpriv", "--reuid", str(NOBODY), "--regid", str(NOBODY), "--clear-groups"),
        )
        assert said.code == 0, said.err
        yield Campaign(said, read(output), site.left())


@pytest.mark.parametrize("target", RUNNING)
def test_what_needs_no_root_runs(campaign: Campaign, target: str) -> None:
    runs = [run for run in campaign.result.runs if run.target == target]
    assert [run.error for run in runs] == [None, None]


@pytest.mark.parametrize(("target", "remedy"), [("host", "userns-chroot"), ("docker", "DOCKER_HOST")])
def test_what_cannot_run_is_shown_with_reason_and_remedy(campaign: Campaign, target: str, remedy: str) -> None:
    (record,) = [record for record in campaign.result.unavailable if record.target == target]
    assert "root" in record.reason
    assert remedy in record.hint
    (line,) = [line for line in campaign.said.told if line.startswith(f"weighbridge: {target}: not here")]
    assert record.reason in line
    assert record.hint in line


def test_limits_that_were_not_applied_say_why(campaign: Campaign) -> None:
    for run in campaign.result.runs:
        if run.target != "libvirt/pc,accel=tcg":
            assert run.limits["memory"].mechanism is None
            assert "no write access" in str(run.limits["memory"].reason)


def test_root_inside_is_the_user_outside(campaign: Campaign) -> None:
    for run in campaign.result.runs:
        if run.target in ("userns-chroot", "namespace"):
            assert run.facts["uid_map"] == f"0 {NOBODY} 1"


def test_everything_is_weighed(campaign: Campaign) -> None:
    for run in campaign.result.runs:
        unknown = {(s.metric, s.group) for s in run.samples if s.value is None}
        assert {group for _, group in unknown} <= ({"workload"} if "libvirt" in run.target else set())


def test_nothing_is_left(campaign: Campaign) -> None:
    assert campaign.left == []
