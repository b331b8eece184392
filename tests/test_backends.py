"""What every engine must do alike, and what each one must do by itself: one conformance test over all of them."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from harness import backends, bundle, cgroup, workloads
from harness.backends import Backend, Instance
from harness.doorbell import Doorbell
from harness.errors import Unavailable
from harness.ledger import Ledger
from harness.measure import Cell, measure
from harness.model import Group, Limits, Plan, Run, Sample, TargetRecord, headline
from harness.store import Result, read
from tests.ground import WORKLOADS, Ground, ground, lasting

if TYPE_CHECKING:
    from tests.conftest import EngineOrSkip

pytestmark = pytest.mark.engine

VM = "libvirt/pc,accel=tcg"
SANDBOX_OF_ROOT = "namespace/pid,net"
LIMITS = Limits(cpus=1, memory=200 * 2**20)
"""Not the defaults: what is in force must be what was asked for."""
LONG = 60.0
"""Seconds until a wait that should not last fails."""

EVERYWHERE = ["cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"]


@dataclass(frozen=True)
class Expected:
    """What the record of a target's runs must say. namespaces: those that differ from ours."""

    groups: frozenset[Group]
    namespaces: frozenset[str]
    shared: tuple[str, ...]
    instance: tuple[str, ...]
    mechanisms: Mapping[str, str] = field(
        default_factory=lambda: {"cpus": f"cfs quota, cgroup v{cgroup.version()}",
                                 "memory": f"memory cgroup, cgroup v{cgroup.version()}"}
    )  # fmt: skip
    capabilities: str | None = None
    no_new_privs: int = 0
    own_kernel: bool = False


LAYER = ("upper", "overlay work", "log")
ALL_BUT_TIME = frozenset(EVERYWHERE) - {"time"}
EXPECTED = {
    "host": Expected(frozenset({"workload"}), frozenset(), ("tree",), LAYER),
    "userns-chroot": Expected(frozenset({"workload"}), frozenset({"mnt", "user"}), ("tree",), LAYER),
    "namespace": Expected(frozenset({"workload", "supervisor"}), ALL_BUT_TIME, ("tree",), LAYER, no_new_privs=1),
    SANDBOX_OF_ROOT: Expected(
        frozenset({"workload", "supervisor"}), frozenset({"mnt", "pid", "net"}), ("tree",), LAYER, no_new_privs=1
    ),
    "docker": Expected(
        frozenset({"workload", "supervisor"}),
        frozenset({"mnt", "uts", "ipc", "pid", "net"}),
        ("layers",),
        ("container layer", "-init layer", "metadata", "log"),
    ),
    VM: Expected(
        frozenset({"workload", "guest", "vmm"}),
        frozenset(),  # inode numbers say nothing across kernels
        ("kernel", "initramfs", "base disk"),
        ("overlay", "metadata", "log"),
        {"cpus": "1 vCPU", "memory": "guest RAM"},
        own_kernel=True,
    ),
}
every_target = pytest.mark.parametrize("target", EXPECTED)


@pytest.fixture(scope="module")
def place() -> Iterator[Ground]:
    with ground() as here:
        yield here


# As a user sees it: one campaign over all, by the command line.


@dataclass(frozen=True)
class Weighed:
    code: int
    result: Result
    left: list[str]

    def runs(self, target: str) -> list[Run]:
        """The measured ones."""
        return [run for run in self.result.runs if run.target == target and run.phase == "measured"]


@pytest.fixture(scope="module")
def weighed(place: Ground) -> Weighed:
    limits = ("--cpus", f"{LIMITS.cpus:g}", "--memory", str(LIMITS.memory))
    output = place.folder / "all.jsonl"
    said = place.weighbridge(
        "run", "--targets", ",".join(EXPECTED), "--engines", "private", "--rounds", "1", *limits, "-o", output
    )
    return Weighed(said.code, read(output), place.left())


@pytest.fixture
def target(request: pytest.FixtureRequest, engine_or_skip: EngineOrSkip, weighed: Weighed) -> str:
    """Skips the test, or fails it, where the target cannot run here."""
    wanted: str = request.param
    with engine_or_skip(wanted.partition("/")[0]):
        for absent in weighed.result.unavailable:
            if absent.target == wanted:
                raise Unavailable(absent.reason, absent.hint)
    return wanted


every_weighed = pytest.mark.parametrize("target", EXPECTED, indirect=True)


def test_the_campaign_came_to_its_end(weighed: Weighed) -> None:
    assert [(run.target, run.error) for run in weighed.result.runs if not run.ok] == []
    assert weighed.code == 0
    footer = weighed.result.footer
    assert footer is not None
    cells = len(EXPECTED) - len(weighed.result.unavailable)
    assert (footer.complete, footer.runs, footer.failed) == (True, 2 * cells, 0)
    assert weighed.left == []


@every_weighed
def test_marks(weighed: Weighed, target: str) -> None:
    for run in weighed.runs(target):
        names = [name for name, _ in run.marks]
        assert run.marks[0] == ("requested", 0.0)
        assert sorted(set(names)) == sorted(names), "a mark came twice"
        for earlier, later in [("init", "ready"), ("ready", "stopping"), ("stopping", "gone")]:
            assert names.index(earlier) < names.index(later)
        assert {"settled", "unsettled"} & set(names)
        ready = run.mark("ready")
        assert ready is not None
        assert ready > 0


@every_weighed
def test_the_bytes_are_the_same_for_all(weighed: Weighed, target: str) -> None:
    [built] = weighed.result.bundles
    for run in weighed.runs(target):
        assert run.bundle_sha256 == run.facts["bundle"] == built.sha256


@every_weighed
def test_facts_from_inside(weighed: Weighed, target: str) -> None:
    expected = EXPECTED[target]
    for run in weighed.runs(target):
        facts = run.facts
        assert set(facts) == {
            "bundle", "boot_id", "kernel", "namespaces", "uid_map", "capabilities", "seccomp", "no_new_privs", "cpus",
            "memory", "processes", "cgroup",
        }  # fmt: skip
        here = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        assert (facts["boot_id"] != here) == expected.own_kernel
        assert (facts["kernel"] != os.uname().release) == expected.own_kernel
        assert sorted(facts["namespaces"]) == EVERYWHERE
        if not expected.own_kernel:
            ours = {kind: Path(f"/proc/self/ns/{kind}").stat().st_ino for kind in EVERYWHERE}
            assert {kind for kind in EVERYWHERE if facts["namespaces"][kind] != ours[kind]} == expected.namespaces
        assert facts["no_new_privs"] == expected.no_new_privs
        assert int(facts["capabilities"]["effective"], 16) > 0
        assert facts["memory"] > 2**20
        assert facts["cpus"] >= 1


@every_weighed
def test_who_root_is(weighed: Weighed, target: str) -> None:
    """Where there is a user namespace, root in it is nobody outside."""
    for run in weighed.runs(target):
        inside, outside, count = map(int, run.facts["uid_map"].split())
        assert inside == 0
        if "user" in EXPECTED[target].namespaces:
            assert count == 1
            assert outside == os.geteuid() or outside >= 65534
            assert outside != 0
        else:
            assert (outside, count) == (0, 2**32 - 1)


@every_weighed
def test_what_a_process_id_namespace_hides(weighed: Weighed, target: str) -> None:
    for run in weighed.runs(target):
        seen: int = run.facts["processes"]
        if "pid" in EXPECTED[target].namespaces:
            assert seen <= 3
        elif not EXPECTED[target].own_kernel:
            assert seen > 3


@every_weighed
def test_memory_by_group(weighed: Weighed, target: str) -> None:
    for run in weighed.runs(target):
        values = {(s.group, s.metric): s for s in run.samples if s.metric.startswith("memory.")}
        kinds = ("memory.rss", "memory.pss", "memory.uss")
        assert set(values) == {(group, kind) for group in EXPECTED[target].groups for kind in kinds}
        for group in EXPECTED[target].groups:
            rss, pss, uss = (values[group, kind] for kind in kinds)
            if target == VM and group == "workload":
                assert (rss.value, pss.value, uss.value) == (None, None, None)
                assert all(sample.reason for sample in (rss, pss, uss))
                continue
            assert rss.value is not None
            assert pss.value is not None
            assert uss.value is not None
            assert 0 < uss.value <= pss.value <= rss.value < 2**31
        total = headline(run.samples, "memory.pss")
        assert total is not None
        assert total == sum(s.value or 0 for s in run.samples if s.metric == "memory.pss")


@pytest.mark.parametrize("target", [VM], indirect=True)
def test_the_guests_ram_is_told_from_the_vmms(weighed: Weighed, target: str) -> None:
    for run in weighed.runs(target):
        values = {s.group: s.value for s in run.samples if s.metric == "memory.rss"}
        assert values["guest"] is not None
        assert values["vmm"] is not None
        assert 2**24 < values["guest"] <= LIMITS.memory
        assert values["vmm"] > 2**23


@every_weighed
def test_disk_by_part(weighed: Weighed, target: str) -> None:
    [image] = [image for image in weighed.result.images if image.target == target]
    _check_parts(image.samples, "disk.shared", EXPECTED[target].shared, nothing_is_empty=True)
    for run in weighed.runs(target):
        mine = [s for s in run.samples if s.metric.startswith("disk.")]
        _check_parts(mine, "disk.instance", EXPECTED[target].instance, nothing_is_empty=False)


def _check_parts(samples: list[Sample], metric: str, parts: tuple[str, ...], *, nothing_is_empty: bool) -> None:
    assert {s.metric for s in samples} == {metric}
    assert sorted(s.part or "" for s in samples) == sorted(parts)
    for sample in samples:
        assert sample.value is not None, f"{sample.part}: {sample.reason}"
        assert sample.value % 512 == 0
        assert sample.value > 0 or not nothing_is_empty
    assert sum(s.value or 0 for s in samples) > 0


@every_weighed
def test_limits_are_told(weighed: Weighed, target: str) -> None:
    for run in weighed.runs(target):
        assert {name: limit.asked for name, limit in run.limits.items()} == {
            "cpus": LIMITS.cpus,
            "memory": LIMITS.memory,
        }
        assert {name: limit.mechanism for name, limit in run.limits.items()} == EXPECTED[target].mechanisms
        assert {name: limit.seen for name, limit in run.limits.items()} == {
            "cpus": run.facts["cpus"],
            "memory": run.facts["memory"],
        }
        if EXPECTED[target].own_kernel:
            assert run.limits["cpus"].seen == LIMITS.cpus
            assert LIMITS.memory / 2 < run.facts["memory"] < LIMITS.memory


@every_weighed
def test_what_stands_behind_a_target(weighed: Weighed, target: str) -> None:
    [record] = [record for record in weighed.result.targets if record.target == target]
    assert record.version
    assert record.whose == ("private" if target in ("docker", VM) else "system")
    assert (record.accelerator, bool(record.accelerator_reason)) == (("tcg", True) if target == VM else (None, False))


# From within: one engine at a time, and instances that are looked at while they run.


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


@pytest.fixture(scope="module", params=EXPECTED)
def engine(request: pytest.FixtureRequest, engine_or_skip: EngineOrSkip) -> Iterator[Engine]:
    target: str = request.param
    with pytest.MonkeyPatch.context() as patch:
        for name, value in lasting().environment.items():
            patch.setenv(name, value)
        plan = Plan(targets=(target,), engines="private", limits=LIMITS)
        with Ledger() as opened:
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
            command = Path(f"/proc/{main_process(instance)}/cmdline").read_bytes()
            assert b"/init" in command or b"sleep" in command
    assert [pid for pid in mine if runs(pid)] == []


def test_a_killed_instance_is_a_failed_run(engine: Engine) -> None:
    """Its first process is killed from outside while it is waited for: no timeout, but its end, and with its log."""
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
