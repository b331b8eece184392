"""Conformance as a user sees it: what every engine must do alike, in one campaign over all by the command line."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from harness import cgroup
from harness.errors import Unavailable
from harness.meters.memory import CACHE
from harness.model import Run, Sample, headline
from harness.store import Result, read
from tests.expected import ACCELERATOR, ENGINES, EVERYWHERE, EXPECTED, IS_ROOT, LIMITS, VM
from tests.ground import Ground, ground

if TYPE_CHECKING:
    from tests.conftest import EngineOrSkip

pytestmark = pytest.mark.engine

WEIGHED = ("memory.rss", "memory.pss", "memory.uss")
PAGE = os.sysconf("SC_PAGE_SIZE")
LAG = 64 * (os.cpu_count() or 1) * PAGE
"""What a group's counters may be behind: a batch of pages (MEMCG_CHARGE_BATCH, linux/memcontrol.h) for each CPU."""


@pytest.fixture(scope="module")
def place() -> Iterator[Ground]:
    with ground() as here:
        yield here


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
        "run", "--targets", ",".join(EXPECTED), "--engines", ENGINES, "--rounds", "1", *limits, "-o", output
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
        begun = "created" if EXPECTED[target].restored else "init"  # what goes on does not begin
        assert ("init" in names) != EXPECTED[target].restored
        for earlier, later in [(begun, "ready"), ("ready", "stopping"), ("stopping", "gone")]:
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
        assert expected.own_kernel or facts["kernel"] == os.uname().release  # its own may be of the same release
        assert sorted(facts["namespaces"]) == EVERYWHERE
        if not expected.own_kernel:
            ours = {kind: Path(f"/proc/self/ns/{kind}").stat().st_ino for kind in EVERYWHERE}
            assert {kind for kind in EVERYWHERE if facts["namespaces"][kind] != ours[kind]} == expected.namespaces
        assert facts["no_new_privs"] == expected.no_new_privs
        held, bound = (int(facts["capabilities"][which], 16) for which in ("effective", "bounding"))
        assert held > 0
        assert held & ~bound == 0
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
def test_memory_by_group_and_kind(weighed: Weighed, target: str) -> None:
    for run in weighed.runs(target):
        told = [s for s in run.samples if s.metric in WEIGHED]
        for group in EXPECTED[target].groups:
            kinds = {metric: {s.part: s for s in told if (s.group, s.metric) == (group, metric)} for metric in WEIGHED}
            assert {metric: set(parts) for metric, parts in kinds.items()} == _kinds(target, group)
            if _is_hidden(target, group):
                assert all(parts[None].reason for parts in kinds.values())
                continue
            if _is_of_root_alone(target):
                assert all(kinds[metric][None].reason for metric in ("memory.pss", "memory.uss"))
                continue
            rss, pss, uss = ({part: _known(s) for part, s in kinds[metric].items()} for metric in WEIGHED)
            # Of hello one process a group: its USS is in whole pages, and its PSS is rounded down, each kind.
            assert 0 < sum(uss.values()) <= sum(pss.values()) + PAGE
            assert sum(pss.values()) <= sum(rss.values()) < 2**31
        assert {s.group for s in told} == EXPECTED[target].groups
        if _is_of_root_alone(target):
            assert headline(told, "memory.pss") is None
        else:
            assert headline(told, "memory.pss") == sum(s.value or 0 for s in told if s.metric == "memory.pss") > 0


def _is_of_root_alone(target: str) -> bool:
    """Whether only root can read the memory and the files of the target's instances: those of the system's Docker."""
    return target == "docker" and not IS_ROOT


def _is_hidden(target: str, group: str) -> bool:
    return EXPECTED[target].own_kernel and group == "workload"


def _kinds(target: str, group: str) -> dict[str, set[str | None]]:
    """{metric: parts}: USS is told without kinds, but for what has a name of its own."""
    if _is_hidden(target, group):
        return {metric: {None} for metric in WEIGHED}
    if _is_of_root_alone(target):
        return {"memory.rss": {"anonymous", "file", "shmem"}, "memory.pss": {None}, "memory.uss": {None}}
    if group == "guest":
        return {metric: {"shmem"} for metric in WEIGHED}
    named: set[str | None] = {CACHE} if group == "vmm" and ACCELERATOR == "tcg" else set()
    kinds = {"anonymous", "file", "shmem"} | named
    return {"memory.rss": kinds, "memory.pss": kinds, "memory.uss": {None} | named}


def _known(sample: Sample) -> float:
    assert sample.value is not None, sample.reason
    return sample.value


@every_weighed
def test_what_the_control_group_is_charged(weighed: Weighed, target: str) -> None:
    """All of these have one, a machine too: libvirt makes it in our partition. It pays for what its processes made.

    An ordinary user's libvirt makes none.
    """
    for run in weighed.runs(target):
        if target.startswith("libvirt") and not IS_ROOT:
            assert all(s.reason for s in run.samples if s.metric == "memory.charged")
            continue
        charged = {s.part: _known(s) for s in run.samples if s.metric == "memory.charged"}
        assert set(charged) - {"kernel"} == {"anonymous", "file", "shmem"}
        assert "kernel" in charged or cgroup.version() == 1
        assert 0 < sum(charged.values()) < 2**31
        for kind in () if _is_of_root_alone(target) else ("anonymous", "shmem"):
            kinds = (kind, CACHE) if kind == "anonymous" else (kind,)
            groups = {"guest", "vmm"} if EXPECTED[target].own_kernel else {"workload"}
            held = sum(
                _known(s) for s in run.samples if s.metric == "memory.pss" and s.group in groups and s.part in kinds
            )
            assert charged[kind] >= 0.99 * held - LAG


@every_weighed
def test_cpu_time_of_the_start(weighed: Weighed, target: str) -> None:
    groups = EXPECTED[target].groups | ({"daemon"} if target == "docker" else set())
    for run in weighed.runs(target):
        told = {(s.group, s.part): s for s in run.samples if s.metric == "cpu.start"}
        hidden = {group for group in groups if _is_hidden(target, group)}
        parts = {group: {part for of, part in told if of == group} for group in groups}
        assert all(told[group, None].reason for group in hidden)
        for group in groups - hidden:  # too few ticks tell no modes apart
            assert parts[group] in ({"user", "system"}, {None})
        spent = {group: sum(_known(told[group, part]) for part in parts[group]) for group in groups - hidden}
        assert min(spent.values()) >= 0
        assert headline(run.samples, "cpu.start") == pytest.approx(sum(spent.values()))
        assert max(spent.values()) > 0
        if EXPECTED[target].restored:
            assert max(spent, key=spent.__getitem__) == "vmm", "its memory is read, and hardly anything runs"
        elif EXPECTED[target].own_kernel:
            assert max(spent, key=spent.__getitem__) == "guest"
            assert parts["guest"] == {"user", "system"}


@every_weighed
def test_hello_does_nothing_at_rest(weighed: Weighed, target: str) -> None:
    for run in weighed.runs(target):
        told = {s.group: s for s in run.samples if s.metric == "cpu.rest"}
        assert set(told) == EXPECTED[target].groups
        assert {group for group, s in told.items() if s.reason} == {g for g in told if g and _is_hidden(target, g)}
        busy = headline(run.samples, "cpu.rest")
        assert busy is not None
        assert 0 <= busy < 0.5


@pytest.mark.parametrize("target", [VM], indirect=True)
def test_the_guests_ram_is_told_from_the_vmms(weighed: Weighed, target: str) -> None:
    """And from what QEMU translated of the guest's code: without hardware's help that is a memory of its own."""
    for run in weighed.runs(target):
        values = {(s.group, s.part): s.value or 0 for s in run.samples if s.metric == "memory.rss"}
        assert 2**24 < values["guest", "shmem"] <= LIMITS.memory
        assert (values.get(("vmm", CACHE), 0) > 2**20) == (ACCELERATOR == "tcg")
        assert sum(amount for (group, part), amount in values.items() if group == "vmm" and part != CACHE) > 2**23


@every_weighed
def test_disk_by_part(weighed: Weighed, target: str) -> None:
    [image] = [image for image in weighed.result.images if image.target == target]
    if _is_of_root_alone(target):
        assert (headline(image.samples, "disk.reported_shared") or 0) > 0
        for run in weighed.runs(target):
            assert headline(run.samples, "disk.instance") is None
            assert headline(run.samples, "disk.reported_instance") is not None
        return
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
def test_qemu_says_what_ran_the_guest(weighed: Weighed, target: str) -> None:
    for run in weighed.runs(target):
        said = run.accelerated
        assert (said is not None) == EXPECTED[target].own_kernel
        if said is not None:
            assert said.enabled == (ACCELERATOR == "kvm")
            assert (said.counters.get("exits", 0) > 0) == said.enabled
            assert bool(said.reason) != said.enabled


@every_weighed
def test_what_stands_behind_a_target(weighed: Weighed, target: str) -> None:
    [record] = [record for record in weighed.result.targets if record.target == target]
    assert record.version
    whose = "private" if target.startswith("libvirt") else "system"
    if target == "docker":
        whose = "private" if IS_ROOT else "user"
    assert record.whose == whose
    assert (record.accelerator, bool(record.accelerator_reason)) == (
        (ACCELERATOR, True) if EXPECTED[target].own_kernel else (None, False)
    )
