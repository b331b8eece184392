"""Conformance from within: what every engine must do alike, one at a time, with instances that are looked at."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from harness import backends, bundle, cgroup, delegation, workloads
from harness.backends import Backend, Instance
from harness.doorbell import Doorbell
from harness.ledger import Ledger
from harness.measure import REST, Cell, measure
from harness.model import Plan, TargetRecord, headline
from tests.expected import EXPECTED, LIMITS, LOOKED_AT
from tests.ground import LONG, WORKLOADS, lasting

if TYPE_CHECKING:
    from tests.conftest import EngineOrSkip

pytestmark = pytest.mark.engine

"""Seconds until a wait that should not last fails."""


@dataclass(frozen=True)
class Engine:
    """An engine that was started, with the limits of its instances."""

    target: str
    ledger: Ledger
    backend: Backend
    record: TargetRecord

    @contextmanager
    def cell(self, workload: str) -> Iterator[Cell]:
        built = bundle.build(workloads.load(workload))
        with self.backend.prepare(built, LIMITS) as image:
            yield Cell(self.target, workload, self.backend, image)

    @contextmanager
    def instance(self, workload: str) -> Iterator[tuple[Instance, Doorbell]]:
        with self.cell(workload) as cell, self.ledger.holding_folder() as folder, Doorbell(folder) as bell:
            bell.mark("requested")
            self.backend.refresh(cell.image)
            with self.backend.launch(cell.image, bell, bell.mark) as instance:
                yield instance, bell


@pytest.fixture(scope="module", params=LOOKED_AT)
def engine(request: pytest.FixtureRequest, engine_or_skip: EngineOrSkip) -> Iterator[Engine]:
    target: str = request.param
    with pytest.MonkeyPatch.context() as patch:
        for name, value in lasting().environment.items():
            patch.setenv(name, value)
        plan = Plan(targets=(target,), engines="private", limits=LIMITS)
        with Ledger() as opened, delegation.enter_delegated_group(opened):
            backend = backends.create(target, opened, plan)
            try:
                with engine_or_skip(backend.name):
                    record = backend.probe()
                yield Engine(target, opened, backend, record)
            finally:
                backend.close()


def marked(bell: Doorbell, name: str) -> None:
    """Returns when the instance has written that mark. Fails where it ends before, or takes too long."""
    for _ in range(int(LONG / 0.01)):
        if name in (mark for mark, _ in bell.marks()):
            return
        assert not bell.wait_dead(0.01), f"ended before the mark {name}"
    raise AssertionError(f"no mark {name} within {LONG:g} s")


def runs(pid: int) -> bool:
    """Whether there is such a process, one that is dead and that its parent was not yet told of left out."""
    try:
        return psutil.Process(pid).status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
    except psutil.NoSuchProcess:
        return False


def main_process(instance: Instance) -> int:
    """Of the workload, or where that is not visible, the VMM."""
    groups = instance.processes()
    pids = groups["workload"]
    if not isinstance(pids, list):
        pids = groups["vmm"]
    assert isinstance(pids, list)
    [first] = [pid for pid in pids if runs(pid) and psutil.Process(pid).ppid() not in pids]
    return first


def test_the_limits_are_in_force(engine: Engine) -> None:
    if EXPECTED[engine.target].own_kernel:
        pytest.skip("its limit is the machine that it gets: see test_limits_are_told")
    with engine.instance("hello") as (instance, bell):
        bell.wait_ready(LONG)
        bell.wait_facts(LONG)
        groups = instance.cgroups()
        files = (
            {"cpu": {"cpu.max": "100000 100000"}, "memory": {"memory.max": str(LIMITS.memory)}}
            if cgroup.version() == 2
            else {
                "cpu": {"cpu.cfs_quota_us": "100000", "cpu.cfs_period_us": "100000"},
                "memory": {"memory.limit_in_bytes": str(LIMITS.memory)},
            }
        )
        pid = main_process(instance)
        for controller, wanted in files.items():
            told = {file: (groups[controller] / file).read_text().strip() for file in wanted}
            assert told == wanted
            assert pid in cgroup.members(groups[controller])
            assert cgroup.of_process(pid)[controller] == groups[controller]


def test_the_processes_are_the_instances(engine: Engine) -> None:
    with engine.instance("hello") as (instance, bell):
        bell.wait_ready(LONG)
        bell.wait_facts(LONG)
        groups = instance.processes()
        assert set(groups) == EXPECTED[engine.target].groups
        mine = [pid for pids in groups.values() if isinstance(pids, list) for pid in pids]
        assert os.getpid() not in mine
        assert all(runs(pid) for pid in mine)
        if not EXPECTED[engine.target].own_kernel:
            # What it runs, not its arguments: while /init becomes what stays (exec), it has none.
            assert Path(f"/proc/{main_process(instance)}/exe").readlink().name == "busybox"
    assert [pid for pid in mine if runs(pid)] == []


def test_a_killed_instance_is_a_failed_run(engine: Engine) -> None:
    """Its first process is killed from outside while it is waited for: no timeout, but its end, and with its log."""
    if EXPECTED[engine.target].restored:
        pytest.skip("one that is never ready is never saved")
    with engine.cell(str(WORKLOADS / "silent")) as cell:
        instances: list[tuple[Instance, Doorbell]] = []
        launched = threading.Event()
        launch = cell.backend.launch

        @contextmanager
        def watched(image: object, bell: Doorbell, mark: object) -> Iterator[Instance]:
            with launch(image, bell, mark) as instance:  # type: ignore[arg-type]
                instances.append((instance, bell))
                launched.set()
                yield instance

        def kill() -> None:
            assert launched.wait(LONG)
            instance, bell = instances[0]
            marked(bell, "here")
            os.kill(main_process(instance), signal.SIGKILL)

        killer = threading.Thread(target=kill)
        killer.start()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(cell.backend, "launch", watched)
            run = measure(cell, engine.ledger, LONG, 0, 1, "measured", lambda phase: None)
        killer.join(LONG)
    assert not run.ok
    assert run.error is not None
    assert (run.error.phase, run.error.type) == ("waiting", "ExitedBeforeReady")
    assert "silent: waiting for nothing" in run.error.log
    assert run.mark("ready") is None
    assert run.mark("gone") is not None


def test_no_instance_sees_what_another_one_wrote(engine: Engine, tmp_path: Path) -> None:
    if EXPECTED[engine.target].restored:
        pytest.skip("it has written before it was saved: see test_snapshots")
    folder = tmp_path / "writes"
    folder.mkdir()
    (folder / "workload.toml").write_text('packages = ["busybox-static"]\nstart = "start"\n')
    script = ["[ ! -e /var/written ] || echo 'MARK seen' >&3", "echo x >/var/written", "echo 'MARK wrote' >&3", ""]
    (folder / "start").write_text("\n".join(script))
    with engine.cell(str(folder)) as cell:
        for number in (1, 2):
            run = measure(cell, engine.ledger, LONG, number, number, "measured", lambda phase: None)
            names = [name for name, _ in run.marks]
            assert run.error is None
            assert "wrote" in names
            assert "seen" not in names


@pytest.mark.parametrize("engine", ["host"], indirect=True)
def test_a_start_is_not_charged_for_the_run_before_it(engine: Engine, tmp_path: Path) -> None:
    """The one engine whose instances follow each other in one place, with a workload that is busy when it is ended."""
    folder = tmp_path / "busy"
    folder.mkdir()
    (folder / "workload.toml").write_text('packages = ["busybox-static"]\nstart = "start"\n')
    (folder / "start").write_text("while :; do :; done &\n")
    with engine.cell(str(folder)) as cell:
        earlier, later = (measure(cell, engine.ledger, LONG, n, n, "measured", lambda phase: None) for n in (1, 2))
    assert (earlier.error, later.error) == (None, None)
    at_rest, start = headline(earlier.samples, "cpu.rest"), headline(later.samples, "cpu.start")
    assert at_rest is not None
    assert start is not None
    assert start < at_rest * REST


def test_what_the_kernel_kills_for_want_of_memory_is_a_failed_run(engine: Engine, tmp_path: Path) -> None:
    """Its other processes live on, and would weigh as little as if they were all."""
    if EXPECTED[engine.target].own_kernel:
        pytest.skip("a guest's kernel tells nobody")
    folder = tmp_path / "greedy"
    folder.mkdir()
    (folder / "workload.toml").write_text('packages = ["busybox-static"]\nstart = "start"\n')
    (folder / "start").write_text("tail /dev/zero &\n")
    with engine.cell(str(folder)) as cell:
        run = measure(cell, engine.ledger, LONG, 0, 1, "measured", lambda phase: None)
    assert run.error is not None
    assert "for want of memory" in run.error.message
