"""An ordinary user, who may do nothing that needs root: what can run runs, and the rest says why not and what to do."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from harness import cgroup
from harness.errors import Unavailable
from harness.model import headline
from harness.store import Result, read
from tests.ground import REPOSITORY, Said, ground

if TYPE_CHECKING:
    from tests.conftest import EngineOrSkip

pytestmark = pytest.mark.engine

UID = 65534
AS_NOBODY = ("setpriv", "--reuid", str(UID), "--regid", str(UID), "--clear-groups")
AS_THEMSELVES: tuple[str, ...] = ()
VM = "libvirt/pc,accel=tcg"
RUN_HERE = ("namespace", "userns-chroot", VM)


@dataclass(frozen=True)
class Weighed:
    said: Said
    result: Result
    session: Said
    """The output of a second campaign, over a machine of the user's own session."""
    left: list[str]
    """What is in the user's folders afterwards, all but the result and what was built once."""


@pytest.fixture(scope="module")
def weighed() -> Iterator[Weighed]:
    """A campaign over everything, with a home of the user's own and none of the program's own variables."""
    if os.geteuid() == 0 and not all(
        folder.stat().st_mode & 0o5 == 0o5 for folder in (REPOSITORY, *REPOSITORY.parents)
    ):
        pytest.skip(f"{REPOSITORY} is not open to ordinary users")
    with ground(UID if os.geteuid() == 0 else None) as here:
        for name in ("st", "xc", "run"):
            (here.folder / name).mkdir()
            os.chown(here.folder / name, *((UID, UID) if os.geteuid() == 0 else (-1, -1)))
        home = {
            "HOME": str(here.folder),
            "XDG_STATE_HOME": str(here.folder / "st"),
            "XDG_CACHE_HOME": str(here.folder / "xc"),
            "XDG_CONFIG_HOME": str(here.folder / "config"),
            "WEIGHBRIDGE_STATE": "",
            "MPLCONFIGDIR": str(here.folder / "matplotlib"),
        }
        said = here.weighbridge(
            *("run", "--targets", ",".join(("host", "docker", *RUN_HERE)), "--rounds", "1", "--progress", "none"),
            *("-o", "result.jsonl"),
            environment=home,
            prefix=AS_NOBODY if os.geteuid() == 0 else AS_THEMSELVES,
        )
        session = here.weighbridge(
            *("run", "--targets", VM, "--engines", "user", "--rounds", "1", "--progress", "none"),
            *("-o", "session.jsonl"),
            environment={**home, "XDG_RUNTIME_DIR": str(here.folder / "run")},
            prefix=AS_NOBODY if os.geteuid() == 0 else AS_THEMSELVES,
        )
        kept = ("cache", "matplotlib", "result.jsonl", "session.jsonl", "run", "st/weighbridge/ledgers")
        found = [str(path.relative_to(here.folder)) for path in here.folder.rglob("*")]
        left = [path for path in found if not any(f"{one}/".startswith(f"{path}/") for one in (*kept, "xc"))]
        left = [path for path in left if not path.startswith(("cache/", "matplotlib/"))]
        yield Weighed(said, read(here.folder / "result.jsonl"), session, left)


def test_it_is_a_success(weighed: Weighed) -> None:
    assert weighed.said.code == 0, weighed.said.err
    assert "Traceback" not in weighed.said.err
    assert weighed.result.footer is not None
    assert weighed.result.footer.complete
    assert weighed.result.footer.failed == 0


@pytest.mark.parametrize(
    ("target", "reason", "hint"),
    [("host", "needs root", "userns-chroot"), ("docker", "a private engine needs root", "sudo ")],
)
def test_what_needs_root_says_so_and_what_to_do(weighed: Weighed, target: str, reason: str, hint: str) -> None:
    """A Docker socket that this user may use would be used: then there is nothing to say."""
    absent = {record.target: record for record in weighed.result.unavailable}
    if target == "docker" and os.access("/var/run/docker.sock", os.W_OK):
        pytest.skip("every user of this machine may use Docker")
    assert reason in absent[target].reason
    assert hint in absent[target].hint
    [line] = [line for line in weighed.said.told if line.startswith(f"weighbridge: {target}: ")]
    assert absent[target].reason in line
    assert absent[target].hint in line


@pytest.mark.parametrize("target", RUN_HERE)
def test_what_needs_no_root_runs(weighed: Weighed, engine_or_skip: EngineOrSkip, target: str) -> None:
    with engine_or_skip(target.partition("/")[0]):
        for absent in weighed.result.unavailable:
            if absent.target == target:
                raise Unavailable(absent.reason, absent.hint)
    mine = [run for run in weighed.result.runs if run.target == target]
    assert len(mine) == 2
    for run in mine:
        assert run.error is None
        mine_alone = [s for s in run.samples if s.group == ("guest" if target == VM else "workload")]
        for metric in ("memory.rss", "memory.pss"):
            assert (headline(mine_alone, metric) or 0) > 2**18
        disk = [s for s in run.samples if s.metric == "disk.instance"]
        assert disk
        assert [s.part for s in disk if s.value is None] == []
        if target == VM:
            assert {name: limit.mechanism for name, limit in run.limits.items()} == {
                "cpus": "1 vCPU",
                "memory": "guest RAM",
            }
            continue
        uid = UID if os.geteuid() == 0 else os.geteuid()
        assert run.facts["uid_map"].split() == ["0", str(uid), "1"]
        for limit in run.limits.values():  # without a delegated control group there is none, and that is said
            assert (limit.mechanism is None) == bool(limit.reason)


@pytest.mark.skipif(os.geteuid() != 0, reason="another user than nobody may have control groups of their own")
def test_limits_that_cannot_be_set_are_told(weighed: Weighed) -> None:
    for target in ("namespace", "userns-chroot"):
        for run in weighed.result.runs:
            if run.target == target:
                assert {limit.mechanism for limit in run.limits.values()} == {None}
                assert all(". Try: sudo " in (limit.reason or "") for limit in run.limits.values())
                [charged] = [sample for sample in run.samples if sample.metric == "memory.charged"]
                assert ". Try: sudo " in (charged.reason or "")


@pytest.mark.skipif(
    os.geteuid() == 0 or cgroup.version() == 1 or not Path(f"/run/user/{os.geteuid()}/bus").exists(),
    reason="needs an ordinary user with a systemd user manager, and cgroup version 2",
)
def test_limits_are_applied_in_a_scope_of_the_user_manager(weighed: Weighed) -> None:
    mine = [run for run in weighed.result.runs if run.target in ("namespace", "userns-chroot")]
    assert mine
    for run in mine:
        mechanisms = {name: limit.mechanism for name, limit in run.limits.items()}
        assert mechanisms == {"cpus": "cfs quota, cgroup v2", "memory": "memory cgroup, cgroup v2"}
        charged = {sample.part: sample.value for sample in run.samples if sample.metric == "memory.charged"}
        assert charged["anonymous"]
    scope = f"weighbridge-{weighed.result.header.campaign}.scope"
    for _ in range(1000):  # each answer takes the manager a moment, in which it sees that the scope is empty
        argv = ["systemctl", "--user", "list-units", "--all", "--plain", "--no-legend", scope]
        if not (units := subprocess.run(argv, capture_output=True, text=True, timeout=60, check=True).stdout):
            break
    assert units == ""


def test_machine_of_the_users_session_runs(weighed: Weighed, engine_or_skip: EngineOrSkip) -> None:
    with engine_or_skip("libvirt"):
        if weighed.session.code == 3:
            raise Unavailable(weighed.session.err, "apt-get install libvirt-daemon-system")
    assert weighed.session.code == 0, weighed.session.err


def test_nothing_is_left(weighed: Weighed) -> None:
    assert weighed.left == []
