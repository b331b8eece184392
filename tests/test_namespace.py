"""The namespace sandbox holds: its root cannot be left, its network and its names are its own."""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from harness import backends, bundle, delegation, workloads
from harness.campaign import Campaign
from harness.doorbell import Doorbell
from harness.errors import Unavailable
from harness.ledger import Ledger
from harness.model import Limits, Plan
from harness.store import Result, read
from tests.ground import LONG, WORKLOADS, Ground, ground

if TYPE_CHECKING:
    from tests.conftest import EngineOrSkip

pytestmark = pytest.mark.engine

IFF_UP = 1
OPEN = ("host", "userns-chroot")
CLOSED = ("namespace", "namespace/pid,net", "namespace/mount")


@pytest.fixture(scope="module")
def place() -> Iterator[Ground]:
    with ground() as here, pytest.MonkeyPatch.context() as patch:
        for name, value in here.environment.items():
            patch.setenv(name, value)
        yield here


@pytest.fixture(scope="module")
def witness(place: Ground) -> Path:
    """A folder of the host's in which everybody may write."""
    folder = place.folder / "witness"
    folder.mkdir()
    folder.chmod(0o1777)
    return folder


@pytest.fixture(scope="module")
def tried(place: Ground, witness: Path) -> Result:
    """A campaign of attempts to get out."""
    if shutil.which("gcc") is None:
        pytest.skip("there is no gcc to compile the attempt with")
    folder = place.folder / "escape"
    shutil.copytree(WORKLOADS / "escape", folder)
    argv = ["gcc", "-Wall", "-Werror", "-static", "-o", "escape", "escape.c"]
    subprocess.run(argv, cwd=folder, check=True, timeout=LONG)
    (folder / "witness").write_text(f"{witness}\n")
    plan = Plan(targets=(*OPEN, *CLOSED), workloads=(str(folder),), rounds=1, limits=Limits())
    Campaign(plan, place.folder / "escape.jsonl", [], lambda event: None).run()
    return read(place.folder / "escape.jsonl")


@pytest.fixture
def attempts(request: pytest.FixtureRequest, engine_or_skip: EngineOrSkip, tried: Result) -> list[list[str]]:
    """The marks of all runs of a target."""
    with engine_or_skip(request.param.partition("/")[0]):
        for absent in tried.unavailable:
            if absent.target == request.param:
                raise Unavailable(absent.reason, absent.hint)
    mine = [run for run in tried.runs if run.target == request.param]
    assert [run.error for run in mine] == [None, None]
    return [[name for name, _ in run.marks] for run in mine]


@pytest.mark.parametrize("attempts", OPEN, indirect=True)
def test_the_attempt_leaves_a_mere_chroot(attempts: list[list[str]], witness: Path) -> None:
    """Without this the tests below would pass with an attempt that fails by itself."""
    for marks in attempts:
        assert "got-out" in marks
        assert "stayed" not in marks
    assert (witness / "created").exists()


@pytest.mark.parametrize("attempts", CLOSED, indirect=True)
def test_the_attempt_does_not_leave_the_sandbox(attempts: list[list[str]]) -> None:
    for marks in attempts:
        assert "stayed" in marks
        assert "got-out" not in marks


def looked(target: str, engine_or_skip: EngineOrSkip) -> dict[str, list[str]]:
    """What an instance saw of the world: {word: values}."""
    name = socket.gethostname()
    try:
        with Ledger() as ledger, delegation.enter_delegated_group(ledger):
            backend = backends.create(target, ledger, Plan())
            with engine_or_skip(backend.name):
                backend.probe()
            built = bundle.build(workloads.load(str(WORKLOADS / "looks")))
            with (
                backend.prepare(built, Limits()) as image,
                ledger.holding_folder() as folder,
                Doorbell(folder) as bell,
                backend.launch(image, bell, bell.mark) as instance,
            ):
                bell.wait_ready(LONG)
                lines = [line.split() for line in instance.log().splitlines()]
                assert socket.gethostname() == name
            backend.close()
        return {line[0]: line[1:] for line in lines if line}
    finally:
        if socket.gethostname() != name:
            socket.sethostname(name)


@pytest.fixture(scope="module")
def inside(place: Ground, engine_or_skip: EngineOrSkip) -> dict[str, list[str]]:
    return looked("namespace", engine_or_skip)


def test_its_network_is_its_own_loopback(inside: dict[str, list[str]]) -> None:
    assert inside["up"] == ["lo"]
    assert inside["routes"] == []
    assert inside["loopback"] == ["answers"]


def test_its_mounts_are_its_own(inside: dict[str, list[str]]) -> None:
    devices = {f"/dev/{name}" for name in bundle.DEVICES}
    assert set(inside["mounts"]) == {"/", "/proc", "/run/doorbell"} | devices


def test_it_sees_its_own_processes(inside: dict[str, list[str]]) -> None:
    assert "1" in inside["pids"]
    assert len(inside["pids"]) <= 4  # /init, and what it looks with


def test_its_hostname_is_its_own(inside: dict[str, list[str]]) -> None:
    assert inside["hostname"] == ["intruder"]
    assert socket.gethostname() != "intruder"


def test_its_root_is_nobody_outside(inside: dict[str, list[str]]) -> None:
    assert inside["ids"][:2] == ["0", "0"]
    assert inside["cannot"] == ["set", "sysctls"]


def test_without_a_network_namespace_the_network_is_the_hosts(place: Ground, engine_or_skip: EngineOrSkip) -> None:
    """The control of what is told above: what is not asked for is not isolated."""
    seen = looked("namespace/mount,pid,uts", engine_or_skip)
    flags = {
        path.name: int((path / "flags").read_text(), 16) for path in Path("/sys/class/net").iterdir() if path.is_dir()
    }
    assert set(seen["up"]) == {name for name, value in flags.items() if value & IFF_UP}
