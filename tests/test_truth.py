"""The meters tell the truth: a workload that uses known amounts of everything, on every engine."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from harness.errors import Unavailable
from harness.model import Run
from harness.store import Result, read
from tests.ground import WORKLOADS, Ground, ground

if TYPE_CHECKING:
    from tests.conftest import EngineOrSkip

pytestmark = pytest.mark.engine

VM = "libvirt/pc,accel=tcg"
SHARING = ["host", "userns-chroot", "namespace", "docker"]
"""Targets whose instances run on the host's kernel."""
MIB = 2**20
TRUE = 0.05


@dataclass(frozen=True)
class Amounts:
    """What a workload holds, in MiB, and the seconds of CPU time that it takes until it is ready."""

    anonymous: int = 64
    file: int = 64
    shmem: int = 32
    seconds: int = 3


PLAIN = Amounts()
MORE = Amounts(anonymous=576, seconds=11)


def true(amount: float) -> object:
    return pytest.approx(amount, rel=TRUE)


@pytest.fixture(scope="module")
def place() -> Iterator[Ground]:
    with ground() as here:
        yield here


@pytest.fixture(scope="module")
def holder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    program = tmp_path_factory.mktemp("holder") / "holder"
    subprocess.run(["gcc", "-static", "-O1", "-o", program, WORKLOADS / "truth/holder.c"], check=True)
    return program


@dataclass(frozen=True)
class Weighed:
    """The runs of a campaign, the warm-up's too: what is true is true of them all."""

    result: Result

    def runs(self, target: str, workload: str = "plain") -> list[Run]:
        runs = [run for run in self.result.runs if (run.target, run.workload) == (target, workload)]
        assert [run.error for run in runs] == [None] * len(runs)
        assert len(runs) >= 2
        return runs


def amount(run: Run, metric: str, group: str | None = None, part: str | None = None) -> float:
    """The sum of what was sampled of this metric, group and part; None stands for all of them."""
    mine = [
        sample.value
        for sample in run.samples
        if sample.metric == metric and group in (None, sample.group) and part in (None, sample.part)
    ]
    assert mine
    assert None not in mine
    return sum(value for value in mine if value is not None)


@pytest.fixture(scope="module")
def weighed(place: Ground, holder: Path) -> Weighed:
    """`plain` on every target, `more` on the VM: there only the difference of two, in turn, tells what one holds."""
    for name, amounts in {"plain": PLAIN, "more": MORE}.items():
        folder = place.folder / name
        shutil.copytree(WORKLOADS / "truth", folder)
        shutil.copy(holder, folder)
        told = (amounts.anonymous, amounts.file, amounts.shmem, amounts.seconds)
        (folder / "amounts").write_text(" ".join(map(str, told)) + "\n")
    for targets, workloads, rounds in ((SHARING, ("plain",), 1), ([VM], ("plain", "more"), 2)):
        named = ",".join(str(place.folder / name) for name in workloads)
        said = place.weighbridge(
            *("run", "--targets", ",".join(targets), "--workloads", named, "--memory", "1G", "--engines", "private"),
            *("--rounds", str(rounds), "--progress", "none", "-o", f"{workloads[-1]}.jsonl"),
        )
        assert "Traceback" not in said.err
    sharing, machines = (read(place.folder / f"{name}.jsonl") for name in ("plain", "more"))
    sharing.runs.extend(machines.runs)
    sharing.unavailable.extend(machines.unavailable)
    return Weighed(sharing)


@pytest.fixture
def target(request: pytest.FixtureRequest, engine_or_skip: EngineOrSkip, weighed: Weighed) -> str:
    wanted: str = request.param
    with engine_or_skip(wanted.partition("/")[0]):
        for absent in weighed.result.unavailable:
            if absent.target == wanted:
                raise Unavailable(absent.reason, absent.hint)
    return wanted


sharing = pytest.mark.parametrize("target", SHARING, indirect=True)
machine = pytest.mark.parametrize("target", [VM], indirect=True)
everywhere = pytest.mark.parametrize("target", [*SHARING, VM], indirect=True)


@sharing
@pytest.mark.parametrize("kind", ["anonymous", "file", "shmem"])
def test_memory_is_of_the_kind_that_it_is(weighed: Weighed, target: str, kind: str) -> None:
    held = getattr(PLAIN, kind) * MIB
    for run in weighed.runs(target):
        assert amount(run, "memory.pss", "workload", kind) == true(held)
        assert amount(run, "memory.rss", "workload", kind) == true(held)
        assert amount(run, "memory.charged", None, kind) == true(held)


@sharing
def test_memory_is_in_the_group_that_it_is(weighed: Weighed, target: str) -> None:
    held = (PLAIN.anonymous + PLAIN.file + PLAIN.shmem) * MIB
    for run in weighed.runs(target):
        assert amount(run, "memory.uss", "workload") == true(held)
        others = [s.value for s in run.samples if s.metric == "memory.uss" and s.group != "workload"]
        assert None not in others
        assert sum(value for value in others if value is not None) < 16 * MIB  # Docker's shim; nothing that was held


@everywhere
def test_the_disk_grows_by_what_was_written(weighed: Weighed, target: str) -> None:
    layer = {"docker": "container layer", VM: "overlay"}.get(target, "upper")
    for run in weighed.runs(target):
        assert amount(run, "disk.instance", None, layer) == true(PLAIN.file * MIB)
        assert amount(run, "disk.instance") == true(PLAIN.file * MIB)


@sharing
def test_the_cpu_time_of_a_start(weighed: Weighed, target: str) -> None:
    for run in weighed.runs(target):
        assert amount(run, "cpu.start", "workload") == true(PLAIN.seconds)


@everywhere
def test_the_cpu_time_at_rest(weighed: Weighed, target: str) -> None:
    """It spins: one CPU, by the limit and by the number of its threads."""
    spins = "guest" if target == VM else "workload"
    runs = weighed.runs(target)
    rests = [amount(run, "cpu.rest", spins) for run in runs]
    assert max(rests) == true(1.0)  # whoever else runs on this machine can only make it less
    assert max(rests) <= 1 + TRUE
    for run in runs:
        assert sum(s.value or 0 for s in run.samples if s.metric == "cpu.rest" and s.group != spins) < 0.1


@machine
def test_a_guests_share(weighed: Weighed, target: str) -> None:
    """What a guest holds is touched RAM, what it computes is its vCPU's time, and neither is in QEMU's own."""

    def difference(of: Callable[[Run], float]) -> float:
        plain, more = ([of(run) for run in weighed.runs(target, name)] for name in ("plain", "more"))
        return min(more) - min(plain)  # whoever else runs on this machine can only make it more

    held = (MORE.anonymous - PLAIN.anonymous) * MIB
    assert difference(lambda run: amount(run, "memory.pss", "guest")) == true(held)
    assert difference(lambda run: amount(run, "memory.charged", None, "shmem")) == true(held)
    assert abs(difference(lambda run: amount(run, "memory.pss", "vmm"))) < TRUE * held
    burned = MORE.seconds - PLAIN.seconds
    assert difference(lambda run: amount(run, "cpu.start", "guest")) == true(burned)
    assert abs(difference(lambda run: amount(run, "cpu.start", "vmm"))) < TRUE * burned
