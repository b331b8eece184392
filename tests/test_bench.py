"""bench/ and docs/example-project on real engines, and what is left where a session ends early."""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from harness.store import read
from tests.conftest import REQUIRED
from tests.ground import REPOSITORY, TIMEOUT, Ground, ground
from tests.test_pytest_plugin import SUITE, ZERO, benchmarks, run, started, suite

pytestmark = pytest.mark.engine

TARGETS = (ZERO, "namespace", "docker", "libvirt/pc,accel=tcg")
EXAMPLE = REPOSITORY / "docs/example-project"


@pytest.fixture
def place() -> Iterator[Ground]:
    with ground() as made:
        yield made


def test_all_benchmarks_replay_one_campaign(place: Ground) -> None:
    said = run(
        place,
        *(f"--rootdir={REPOSITORY}", f"--config-file={REPOSITORY}/pyproject.toml", REPOSITORY / "bench"),
        *("--benchmark-only", "--benchmark-json=b.json", "--weighbridge-output=r.jsonl", "-rs"),
        *(f"--weighbridge-targets={','.join(TARGETS)}", "--weighbridge-workloads=hello", "--weighbridge-rounds=2"),
    )
    assert said.code == 0, said.out
    assert "replays: each launch was made and measured once" in said.out
    result, found = read(place.folder / "r.jsonl"), benchmarks(place.folder / "b.json")
    ran = [record.target for record in result.images]
    for target in set(TARGETS) - set(ran):
        assert target.partition("/")[0] not in REQUIRED
        assert f"{target}: not here: " in said.out
    assert len(result.runs) == len(ran) * (1 + 2)
    assert len(found) == len(ran) * 3
    for target in ran:
        runs = [run.id for run in result.runs if (run.target, run.phase) == (target, "measured")]
        for name in ("startup", "memory", "disk"):
            benchmark = found[f"test_{name}[{target}-hello]"]
            assert benchmark["stats"]["data"] == started(result, target, "hello")
            assert benchmark["extra_info"]["runs"] == runs
            assert benchmark["extra_info"]["memory"]["memory.rss"]["n"] == 2
            assert benchmark["extra_info"]["disk"]["disk.shared"]["median"] > 0
            assert benchmark["extra_info"]["isolation"]
    assert place.left() == []


def test_only_what_the_selected_tests_ask_for_is_launched(place: Ground) -> None:
    suite(place)
    said = run(place, f"--weighbridge-targets={ZERO},namespace", "-k", "namespace", "--weighbridge-output=r.jsonl")
    assert said.code == 0, said.out
    assert {run.target for run in read(place.folder / "r.jsonl").runs} == {"namespace"}


def test_without_benchmarks_one_launch_of_each_is_made(place: Ground) -> None:
    suite(place)
    said = run(place, f"--weighbridge-targets={ZERO}", "--benchmark-disable", "--weighbridge-output=r.jsonl")
    assert said.code == 0, said.out
    assert [run.phase for run in read(place.folder / "r.jsonl").runs] == ["warmup", "measured"]
    assert place.left() == []


def test_nothing_is_left_where_a_test_fails(place: Ground) -> None:
    suite(place, SUITE + "    raise RuntimeError('after it')\n" + SUITE.replace("test_startup", "test_later"))
    said = run(place, f"--weighbridge-targets={ZERO},namespace", "--weighbridge-rounds=1", "-x")
    assert said.code == 1
    assert "RuntimeError: after it" in said.out
    assert "1 failed in" in said.out
    (result,) = (place.folder / "results/runs").iterdir()
    footer = read(result).footer
    assert footer is not None
    assert footer.complete
    assert place.left() == []


@contextmanager
def measuring(place: Ground) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """pytest in the middle of its campaign, and the pidfd of the process that measures."""
    suite(place)
    argv = [sys.executable, "-P", "-m", "pytest", f"--weighbridge-targets={ZERO}", "--weighbridge-rounds=500"]
    with subprocess.Popen(
        argv,
        cwd=place.folder,
        env={**os.environ, **place.environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as session:
        assert session.stdout is not None
        next(line for line in session.stdout if line.startswith("warm-up: "))
        (campaign,) = psutil.Process(session.pid).children()
        pidfd = os.pidfd_open(campaign.pid)
        try:
            yield session, pidfd
        finally:
            session.kill()
            os.close(pidfd)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda number: number.name)
def test_nothing_is_left_where_the_session_is_ended(place: Ground, number: signal.Signals) -> None:
    with measuring(place) as (session, campaign):
        session.send_signal(number)
        assert select.select([campaign], [], [], TIMEOUT)[0]
        session.communicate()
    (result,) = (place.folder / "results/runs").iterdir()
    footer = read(result).footer
    assert footer is not None
    assert footer.stopped == "interrupted by SIGTERM"
    assert place.left() == []


def test_the_example_project_runs_where_it_is_installed(place: Ground) -> None:
    def check(*argv: str | Path) -> str:
        done = subprocess.run(
            argv,
            cwd=place.folder,
            env={**os.environ, **place.environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    uv = shutil.which("uv", path=f"{os.environ['PATH']}:{Path(sys.executable).parent}")
    assert uv
    python = place.folder / "venv/bin/python"
    check(uv, "venv", "--python", sys.executable, "venv")
    check(uv, "pip", "install", "--python", python, REPOSITORY, EXAMPLE)
    for file in EXAMPLE.iterdir():
        if file.is_file():
            (place.folder / file.name).write_bytes(file.read_bytes())
    said = check(python, "-m", "pytest", "-rs")
    (result,) = (place.folder / "results/runs").iterdir()
    ran = {record.target for record in read(result).images}
    assert "namespace" in ran
    assert ran >= {"docker"} & REQUIRED
    absent = 3 - len(ran)
    assert (f"{absent} skipped" in said) == (absent > 0)
    assert f"{len(ran) + ('docker' in ran)} passed" in said
