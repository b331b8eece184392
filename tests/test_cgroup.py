"""What control groups tell, read from trees like those of Linux, version 1 and 2, in a folder of our own."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from harness import cgroup
from harness.errors import EngineError
from harness.spent import Spent

# As Linux 6.18 writes them, in version 1 and 2.
V1_MEMORY = {
    "memory.stat": """\
cache 9342976
rss 7467008
rss_huge 0
shmem 9084928
mapped_file 7573504
dirty 36864
writeback 0
workingset_refault_anon 0
workingset_refault_file 12304
swap 0
swapcached 0
pgpgin 211058
pgpgout 206954
pgfault 259428
pgmajfault 0
inactive_anon 0
active_anon 1531904
inactive_file 24576
active_file 233472
unevictable 15020032
hierarchical_memory_limit 9223372036854771712
hierarchical_memsw_limit 9223372036854771712
total_cache 475844608
total_rss 13234176
total_rss_huge 0
total_shmem 9084928
total_mapped_file 11046912
total_dirty 806912
total_writeback 0
total_swap 0
total_pgpgin 149310639
total_pgpgout 149199285
total_inactive_anon 5730304
total_active_anon 1564672
total_inactive_file 296255488
total_active_file 170504192
total_unevictable 15020032
""",
    "memory.kmem.usage_in_bytes": "151552\n",
}
V1_CPUACCT = {
    "cpuacct.stat": "user 5\nsystem 3\n",
    "cpuacct.usage": "81893861\n",
    "cpuacct.usage_user": "50000000\n",
    "cpuacct.usage_sys": "30000000\n",
    "cpuacct.usage_percpu": "40893861 41000000 \n",
}
V2_CPU = {
    "cpu.stat": """\
usage_usec 8570482
user_usec 7127100
system_usec 1443382
nice_usec 0
core_sched.force_idle_usec 0
nr_periods 0
nr_throttled 0
throttled_usec 0
nr_bursts 0
burst_usec 0
""",
}
V2_STAT = """\
anon 41586688
file 14299136
kernel 8011776
kernel_stack 458752
pagetables 1302528
sec_pagetables 0
percpu 12480
sock 4096
vmalloc 73728
shmem 9437184
zswap 0
zswapped 0
file_mapped 10002432
file_dirty 4096
file_writeback 0
swapcached 0
anon_thp 0
inactive_anon 51000000
active_anon 4096
inactive_file 3000000
active_file 1861952
unevictable 0
slab_reclaimable 4100000
slab_unreclaimable 1900000
slab 6000000
workingset_refault_anon 0
workingset_refault_file 0
pgfault 120034
pgmajfault 12
"""
TOGETHER = ("cpu", "cpuacct", "memory")


def fill(folder: Path, files: Mapping[str, str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_text(content)


@pytest.fixture
def v1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Version 1 with each controller in a hierarchy of its own."""
    for controller in TOGETHER:
        fill(tmp_path / controller, {"cgroup.procs": ""})
    monkeypatch.setattr(cgroup, "ROOT", tmp_path)
    return tmp_path


@pytest.fixture
def v1_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Version 1 as systemd mounts it: cpu and cpuacct in one hierarchy, with a link for each."""
    fill(tmp_path / "cpu,cpuacct", {"cgroup.procs": ""})
    fill(tmp_path / "memory", {"cgroup.procs": ""})
    for controller in ("cpu", "cpuacct"):
        (tmp_path / controller).symlink_to("cpu,cpuacct")
    monkeypatch.setattr(cgroup, "ROOT", tmp_path)
    return tmp_path


@pytest.fixture
def v2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    controllers = "cpuset cpu io memory pids\n"
    fill(tmp_path, {"cgroup.controllers": controllers, "cgroup.subtree_control": "cpu memory pids\n"})
    monkeypatch.setattr(cgroup, "ROOT", tmp_path)
    return tmp_path


def test_version_and_hierarchy_of_v1(v1: Path) -> None:
    assert cgroup.version() == 1
    assert [cgroup.hierarchy(name) for name in TOGETHER] == [v1 / name for name in TOGETHER]
    assert cgroup.hierarchy("hugetlb") is None


def test_controllers_that_are_mounted_together_have_one_hierarchy(v1_together: Path) -> None:
    assert cgroup.version() == 1
    assert cgroup.hierarchy("cpu") == cgroup.hierarchy("cpuacct") == v1_together / "cpu,cpuacct"
    assert cgroup.hierarchy("memory") == v1_together / "memory"


def test_a_hybrid_is_version_1(v1: Path) -> None:
    """With the unified hierarchy beside those of the controllers, which it does not have."""
    fill(v1 / "unified", {"cgroup.controllers": "\n"})
    assert cgroup.version() == 1


def test_version_and_hierarchy_of_v2(v2: Path) -> None:
    """A controller that the kernel has, but that is not handed on, is none."""
    assert cgroup.version() == 2
    assert cgroup.hierarchy("cpu") == cgroup.hierarchy("memory") == v2
    assert cgroup.hierarchy("io") is None
    assert cgroup.hierarchy("cpuacct") is None


def test_cpu_time_of_v1_is_the_exact_total_in_the_ratio_of_the_modes(v1: Path) -> None:
    fill(v1 / "cpuacct/mine", V1_CPUACCT)
    told = cgroup.cpu_time({"cpu": v1 / "cpu/mine", "cpuacct": v1 / "cpuacct/mine"})
    assert told is not None
    assert told.total == pytest.approx(0.081893861, rel=1e-12)
    assert told.user / told.system == pytest.approx(5 / 3)


def test_cpu_time_of_v1_before_the_first_tick(v1: Path) -> None:
    ticks = {"cpuacct.usage": "1893861\n", "cpuacct.usage_user": "0\n", "cpuacct.usage_sys": "0\n"}
    fill(v1 / "cpuacct/mine", ticks)
    assert cgroup.cpu_time({"cpuacct": v1 / "cpuacct/mine"}) == Spent(0.001893861, 0.0)


def test_cpu_time_of_controllers_that_are_mounted_together(v1_together: Path) -> None:
    fill(v1_together / "cpu,cpuacct/mine", V1_CPUACCT)
    for link in ("cpu", "cpuacct", "cpu,cpuacct"):
        told = cgroup.cpu_time({"cpuacct": v1_together / link / "mine"})
        assert told is not None
        assert told.total == pytest.approx(0.081893861)


def test_cpu_time_of_v2(v2: Path) -> None:
    fill(v2 / "mine", V2_CPU)
    assert cgroup.cpu_time({"cpu": v2 / "mine", "memory": v2 / "mine"}) == Spent(7.1271, 1.443382)


def test_cpu_time_without_a_controller_or_a_group(v1: Path) -> None:
    fill(v1 / "memory/mine", V1_MEMORY)
    assert cgroup.cpu_time({}) is None
    assert cgroup.cpu_time({"cpu": v1 / "cpu/mine", "memory": v1 / "memory/mine"}) is None
    assert cgroup.cpu_time({"cpuacct": v1 / "cpuacct/gone"}) is None


def test_cpu_time_without_a_controller_or_a_group_in_v2(v2: Path) -> None:
    assert cgroup.cpu_time({}) is None
    assert cgroup.cpu_time({"cpu": v2 / "gone"}) is None


def test_charge_of_v1_is_that_of_the_groups_below_too(v1: Path) -> None:
    fill(v1 / "memory/mine", V1_MEMORY)
    assert cgroup.memory_charge(v1 / "memory/mine") == {
        "anonymous": 13234176,
        "file": 475844608 - 9084928,
        "shmem": 9084928,
        "kernel": 151552,
    }


def test_charge_of_a_v1_that_does_not_count_the_kernels_memory(v1: Path) -> None:
    fill(v1 / "memory/mine", {"memory.stat": V1_MEMORY["memory.stat"]})
    assert set(cgroup.memory_charge(v1 / "memory/mine")) == {"anonymous", "file", "shmem"}


def test_charge_of_v2(v2: Path) -> None:
    fill(v2 / "mine", {"memory.stat": V2_STAT})
    assert cgroup.memory_charge(v2 / "mine") == {
        "anonymous": 41586688,
        "file": 14299136 - 9437184,
        "shmem": 9437184,
        "kernel": 8011776,
    }


def test_charge_of_v2_before_linux_5_18(v2: Path) -> None:
    """The kernel's own memory is then the sum of its kinds: slab is both kinds of slab together."""
    absent = ("kernel ", "sec_pagetables ", "vmalloc ", "zswap")
    older = [line for line in V2_STAT.splitlines() if not line.startswith(absent)]
    fill(v2 / "mine", {"memory.stat": "\n".join(older) + "\n"})
    assert cgroup.memory_charge(v2 / "mine")["kernel"] == 458752 + 1302528 + 12480 + 4096 + 6000000


@pytest.mark.parametrize("tree", ["v1", "v2"])
def test_counters_that_do_not_fit_together(tree: str, request: pytest.FixtureRequest) -> None:
    """A page of shared memory that is counted as such already, and not yet as cache, is no negative number."""
    root: Path = request.getfixturevalue(tree)
    text = V2_STAT if tree == "v2" else V1_MEMORY["memory.stat"]
    for line in ("file 14299136", "total_cache 475844608"):
        text = text.replace(line, f"{line.split()[0]} 4096")
    fill(root / "mine", {"memory.stat": text})
    told = cgroup.memory_charge(root / "mine")
    assert (told["file"], told["shmem"]) == (0, 9437184 if tree == "v2" else 9084928)


@pytest.mark.parametrize("tree", ["v1", "v2"])
def test_charge_of_a_group_that_is_gone(tree: str, request: pytest.FixtureRequest) -> None:
    root: Path = request.getfixturevalue(tree)
    with pytest.raises(EngineError, match="gone"):
        cgroup.memory_charge(root / "gone")


# Of a running process.


def place_us(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: str) -> int:
    """Makes /proc/PID/cgroup of our own process hold that, and returns the pid."""
    mine, told = f"/proc/{os.getpid()}/cgroup", tmp_path / "proc-pid-cgroup"
    told.write_text(content)
    monkeypatch.setattr(cgroup, "Path", lambda path: told if str(path) == mine else Path(path))
    return os.getpid()


def test_of_process_in_v1(v1: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hierarchy that is not mounted, systemd's own and the unified one are left out; a colon may be in a path."""
    lines = "9:name=systemd:/init.scope\n6:hugetlb:/mine\n4:memory:/a/b:c\n3:cpuacct:/mine\n2:cpu:/\n0::/other\n"
    pid = place_us(monkeypatch, v1, lines)
    assert cgroup.of_process(pid) == {"cpu": v1 / "cpu", "cpuacct": v1 / "cpuacct/mine", "memory": v1 / "memory/a/b:c"}


def test_of_process_where_controllers_are_mounted_together(v1_together: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pid = place_us(monkeypatch, v1_together, "5:memory:/mine\n4:cpu,cpuacct:/mine\n0::/\n")
    together = v1_together / "cpu,cpuacct/mine"
    assert cgroup.of_process(pid) == {"cpu": together, "cpuacct": together, "memory": v1_together / "memory/mine"}


def test_of_process_in_v2(v2: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The unified hierarchy counts for every controller, and cpu.stat is there without the cpu controller."""
    pid = place_us(monkeypatch, v2, "0::/user.slice/mine.scope\n")
    mine = v2 / "user.slice/mine.scope"
    assert cgroup.of_process(pid) == {"cpu": mine, "memory": mine}


def test_the_members_of_a_group_and_of_those_below(v2: Path) -> None:
    fill(v2 / "mine", {"cgroup.procs": "12\n7\n"})
    fill(v2 / "mine/below/deeper", {"cgroup.procs": "30\n"})
    assert sorted(cgroup.members(v2 / "mine")) == [7, 12, 30]
    assert cgroup.members(v2 / "gone") == []
