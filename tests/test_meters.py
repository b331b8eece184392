"""What is read of processes, held against children of our own, of which it is known what they hold and burn."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import cgroup
from harness.backends import Unseen
from harness.errors import EngineError
from harness.meters import cpu, memory
from harness.meters.memory import CACHE, Weight
from harness.model import Group, Sample, headline
from harness.spent import Spent
from tests.children import Told, child, ended, gone

MIB = 2**20
SIZE = 32 * MIB
"""What a child holds of one kind: much beside what Python itself holds."""
BURNED = 0.5
"""Seconds of CPU time that a child burns: much beside a tick of 10 ms."""
KINDS = ("anonymous", "file", "shmem")
GUEST_RAM = "/memfd:ram"
HIDDEN = Unseen("inside the guest")


# Memory.


def value(weight: Weight, metric: str, kind: str | None = None) -> int:
    found = weight[metric, kind]
    assert isinstance(found, int), found
    return found


def total(weight: Weight, metric: str) -> int:
    return sum(value(weight, *key) for key in weight if key[0] == metric)


def rollup(pid: int) -> dict[str, int]:
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return {name: int(kib) * 1024 for name, kib in re.findall(r"(\w+): +(\d+) kB", text)}


@pytest.fixture(scope="module")
def mapped() -> Iterator[str]:
    """A file on a disk: what is mapped of a tmpfs counts as shared memory."""
    with tempfile.NamedTemporaryFile(dir="/var/tmp") as file:
        file.write(bytes(SIZE))
        file.flush()
        yield file.name


@pytest.mark.parametrize("kind", KINDS)
def test_the_kind_of_what_a_process_holds(kind: str, mapped: str) -> None:
    """Against a twin that holds nothing. What is there once, in one process, weighs the same in all metrics."""
    scripts = {
        "anonymous": f"held = anonymous({SIZE})",
        "file": f"held = of_file({mapped!r}, {SIZE})",
        "shmem": f"held = shared({SIZE})",
    }
    with child(scripts[kind]) as holder, child("") as twin:
        more, less = memory.processes([holder.pid]), memory.processes([twin.pid])
    assert set(more) == {(metric, kind) for metric in ("rss", "pss") for kind in KINDS} | {("uss", None)}
    for metric in ("rss", "pss"):
        differ = {each: value(more, metric, each) - value(less, metric, each) for each in KINDS}
        assert differ == {each: pytest.approx(SIZE if each == kind else 0, abs=SIZE / 20) for each in KINDS}
    assert value(more, "uss") - value(less, "uss") == pytest.approx(SIZE, rel=0.05)


def test_the_kinds_are_the_totals_of_the_kernel_and_of_psutil(mapped: str) -> None:
    with child(f"a, b, c = anonymous({SIZE}), of_file({mapped!r}, {SIZE}), shared({SIZE})") as holder:
        weight, kernel = memory.processes([holder.pid]), rollup(holder.pid)
        full = psutil.Process(holder.pid).memory_full_info()
    assert total(weight, "rss") == kernel["Rss"]
    assert kernel["Pss"] - 3 * 1024 <= total(weight, "pss") <= kernel["Pss"]  # each kind is rounded down
    assert value(weight, "uss") == kernel["Private_Clean"] + kernel["Private_Dirty"]
    assert full.rss == pytest.approx(total(weight, "rss"), rel=0.01)
    assert full.pss == pytest.approx(total(weight, "pss"), rel=0.01)
    assert full.uss == pytest.approx(total(weight, "uss"), rel=0.01)


def test_what_two_processes_share_has_a_pss_that_adds_up(mapped: str) -> None:
    """Each maps all of it: twice as much RSS, once as much PSS, and nothing that would be freed with one of them."""
    script = f"held = of_file({mapped!r}, {SIZE})"
    with child(script) as one, child(script) as other, child("") as twin:
        alone, both = memory.processes([twin.pid]), memory.processes([one.pid, other.pid])
    added = {metric: value(both, metric, "file") - 2 * value(alone, metric, "file") for metric in ("rss", "pss")}
    assert added == {"rss": pytest.approx(2 * SIZE, rel=0.05), "pss": pytest.approx(SIZE, rel=0.05)}
    assert value(both, "uss") - 2 * value(alone, "uss") == pytest.approx(0, abs=SIZE / 20)


def test_who_has_ended_weighs_nothing() -> None:
    nothing: Weight = {(metric, None): 0 for metric in memory.METRICS}
    assert memory.processes([]) == memory.processes([gone()]) == nothing
    with ended() as zombie, child("") as twin:
        assert memory.processes([zombie]) == nothing
        alone = memory.processes([twin.pid])
        beside = memory.processes([zombie, twin.pid, gone()])
    assert set(beside) == set(alone)
    assert total(beside, "rss") == total(alone, "rss") > 0


OLD_ROLLUP = """\
5581c0c28000-7ffe5a5c3000 ---p 00000000 00:00 0                          [rollup]
Rss:                1816 kB
Pss:                 476 kB
Shared_Clean:       1656 kB
Shared_Dirty:          0 kB
Private_Clean:        44 kB
Private_Dirty:       116 kB
Referenced:         1816 kB
Anonymous:           116 kB
Private_Hugetlb:       0 kB
"""
STATUS = "Name:\tsleep\nState:\tS (sleeping)\nRssAnon:\t     112 kB\nRssFile:\t    1700 kB\nRssShmem:\t       8 kB\n"


def place(patch: pytest.MonkeyPatch, files: Mapping[str, str | type[OSError]]) -> None:
    """Makes the files of any process hold that, or fail so when they are read."""

    def read(_: int, file: str) -> str:
        content = files[file]
        if not isinstance(content, str):
            raise content
        return content

    patch.setattr(memory, "_read", read)


def test_a_kernel_that_does_not_tell_the_kinds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before Linux 5.4."""
    place(monkeypatch, {"status": STATUS, "smaps_rollup": OLD_ROLLUP})
    weight = memory.processes([1])
    assert weight == {("rss", None): 1816 * 1024, ("pss", None): 476 * 1024, ("uss", None): 160 * 1024}


def test_without_the_right_to_ptrace_there_is_rss(monkeypatch: pytest.MonkeyPatch) -> None:
    place(monkeypatch, {"status": STATUS, "smaps_rollup": PermissionError})
    unseen = Unseen("not permitted to read /proc/1/smaps_rollup")
    rss: Weight = {("rss", "anonymous"): 112 * 1024, ("rss", "file"): 1700 * 1024, ("rss", "shmem"): 8 * 1024}
    assert memory.processes([1]) == rss | {("pss", None): unseen, ("uss", None): unseen}
    samples = memory.weigh(Told({"workload": [1]}))
    assert [headline(samples, f"memory.{metric}") for metric in memory.METRICS] == [1820 * 1024, None, None]
    assert {s.reason for s in samples if s.metric != "memory.rss"} == {unseen.reason}


def test_a_zombie_of_somebody_else_weighs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    place(monkeypatch, {"status": "Name:\tsleep\nState:\tZ (zombie)\n", "smaps_rollup": PermissionError})
    assert memory.processes([1]) == {(metric, None): 0 for metric in memory.METRICS}


def test_a_process_of_which_nothing_may_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    place(monkeypatch, {"status": PermissionError, "smaps_rollup": PermissionError})
    unseen = Unseen("not permitted to read /proc/1/status")
    assert memory.processes([1]) == {(metric, None): unseen for metric in memory.METRICS}


def by_group(samples: list[Sample]) -> dict[tuple[str | None, str, str | None], Sample]:
    return {(s.group, s.metric.removeprefix("memory."), s.part): s for s in samples}


def machine(pid: int, guest_ram: str | None = GUEST_RAM) -> Told:
    return Told({"workload": HIDDEN, "guest": [pid], "vmm": [pid]}, guest_ram=guest_ram)


def test_a_machine_by_its_ram_and_its_translation_cache() -> None:
    """Both have a name of their own, and are left out where they were counted before."""
    held = f"ram = named('ram', {SIZE})"
    cache = f"code = anonymous({SIZE // 2}, mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)"
    with child(f"{held}; {cache}; other = anonymous({SIZE // 4})") as vmm, child("") as twin:
        samples = by_group(memory.weigh(machine(vmm.pid)))
        less, kernel = memory.processes([twin.pid]), rollup(vmm.pid)
    seen = {key: sample.value for key, sample in samples.items() if sample.value is not None}
    for metric in memory.METRICS:
        assert samples["workload", metric, None].reason == HIDDEN.reason
        assert seen["guest", metric, "shmem"] == SIZE
        assert seen["vmm", metric, CACHE] == SIZE // 2
    kinds = {each: seen["vmm", "rss", each] - value(less, "rss", each) for each in KINDS}
    wanted = {"anonymous": SIZE // 4, "file": 0, "shmem": 0}
    assert kinds == {each: pytest.approx(wanted[each], abs=SIZE / 20) for each in KINDS}
    assert seen["vmm", "uss", None] - value(less, "uss") == pytest.approx(SIZE // 4, abs=SIZE / 20)
    assert sum(amount for (_, metric, _), amount in seen.items() if metric == "rss") == kernel["Rss"]


def test_a_machine_whose_ram_cannot_be_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(process: psutil.Process, grouped: bool = True) -> None:
        raise psutil.AccessDenied(process.pid)

    with child("") as vmm:
        unknown = memory.weigh(machine(vmm.pid, None))
        absent = memory.weigh(machine(vmm.pid))
        monkeypatch.setattr(psutil.Process, "memory_maps", refuse)
        refused = memory.weigh(machine(vmm.pid))
    for samples, reason in ((unknown, "does not tell"), (absent, GUEST_RAM), (refused, f"/proc/{vmm.pid}/smaps")):
        assert [s.value for s in samples] == [None] * 9
        assert {s.metric for s in samples} == {"memory.rss", "memory.pss", "memory.uss"}
        assert all(reason in str(s.reason) for s in samples if s.group != "workload")


def test_what_is_charged(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    [alone] = memory.charged(Told({"workload": []}))
    assert alone == Sample("memory.charged", "B", None, reason="it has no control group of its own")
    kinds = {"anonymous": 53248, "file": 0, "shmem": 4096, "kernel": 151552}
    monkeypatch.setattr(cgroup, "memory_charge", {tmp_path: kinds}.__getitem__)
    samples = memory.charged(Told({"workload": []}, {"memory": tmp_path}))
    assert {s.part: s.value for s in samples} == kinds
    assert {(s.metric, s.unit, s.group) for s in samples} == {("memory.charged", "B", None)}


def test_a_group_that_is_gone_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="cannot be read"):
        memory.charged(Told({"workload": []}, {"memory": tmp_path / "gone"}))


def test_daemons_are_weighed_in_whole() -> None:
    with child(f"held = anonymous({SIZE})") as daemon:
        samples = memory.daemons({"docker": [daemon.pid], "libvirt/pc": Unseen("out of sight"), "host": []})
        kernel = rollup(daemon.pid)
    told = {(s.part, s.metric): (s.value, s.reason) for s in samples}
    assert {s.group for s in samples} == {"daemon"}
    assert told["docker", "memory.rss"] == (kernel["Rss"], None)
    for metric in ("memory.rss", "memory.pss", "memory.uss"):
        assert told["libvirt/pc", metric] == (None, "out of sight")
        assert told["host", metric] == (0, None)


def test_the_headline_is_the_sum_over_groups_and_kinds() -> None:
    with child(f"held = anonymous({SIZE})") as workload, child("") as supervisor:
        samples = memory.weigh(Told({"workload": [workload.pid], "supervisor": [supervisor.pid]}))
        whole = sum(rollup(pid)["Pss"] for pid in (workload.pid, supervisor.pid))
    assert headline(samples, "memory.pss") == pytest.approx(whole, rel=0.01)


# CPU time.

TICKS = 0.03
"""Seconds that a time of two fields, each rounded down to ticks of 10 ms, may be short of."""


def spent(reading: cpu.Reading, group: Group) -> Spent:
    found = reading[group]
    assert isinstance(found, Spent)
    return found


def test_what_a_process_burned_by_its_own_account() -> None:
    with child(f"burn({BURNED}); say(time.process_time())") as burner:
        told = cpu.processes([burner.pid])
    [own] = burner.said
    assert own >= BURNED
    assert told.total == pytest.approx(own, rel=0.05)


@pytest.mark.parametrize("mode", ["user", "system"])
def test_the_modes_are_told_apart_and_keep_the_total(mode: str) -> None:
    work = {"user": "count", "system": "call"}[mode]
    with child(f"burn({BURNED}, work={work}); say(time.process_time())") as burner:
        told = cpu.processes([burner.pid])
    assert told.user + told.system == pytest.approx(burner.said[0], rel=0.05)
    assert (told.user > told.system) == (mode == "user")


def test_children_that_were_waited_for_count() -> None:
    script = (
        f"if os.fork() == 0:\n    burn({BURNED}, work=lambda: None)\n    os._exit(0)\nos.wait()\n"
        "used = resource.getrusage(resource.RUSAGE_CHILDREN)\n"
        "say(used.ru_utime + used.ru_stime); say(time.process_time())"
    )
    with child(script) as parent:
        told = cpu.processes([parent.pid])
    children, own = parent.said
    assert children >= BURNED
    assert told.total == pytest.approx(own + children, abs=TICKS)


def test_threads_count_those_too_that_ended() -> None:
    """The files of a process's threads are gone with them, but not what they used."""
    script = (
        f"in_thread(lambda: burn({BURNED}, time.thread_time)).join()\n"
        f"stay = threading.Event(); go = threading.Event()\n"
        f"def work(): burn({BURNED / 2}, time.thread_time); go.set(); stay.wait()\n"
        "threading.Thread(target=work, daemon=True).start(); go.wait()\nsay(time.process_time())"
    )
    with child(script) as burner:
        assert len(list(Path(f"/proc/{burner.pid}/task").iterdir())) == 2
        told = cpu.processes([burner.pid])
    assert burner.said[0] >= 1.5 * BURNED
    assert told.total == pytest.approx(burner.said[0], abs=TICKS)


def test_a_kernel_without_schedstat_has_ticks(monkeypatch: pytest.MonkeyPatch) -> None:
    read = cpu._get
    monkeypatch.setattr(cpu, "_get", lambda file: "" if file.name == "schedstat" else read(file))
    with child(f"burn({BURNED}); say(time.process_time())") as burner:
        told = cpu.processes([burner.pid])
    assert told.total == pytest.approx(burner.said[0], abs=TICKS)


def test_who_has_ended_used_nothing() -> None:
    assert cpu.processes([]) == cpu.processes([gone()]) == Spent()


def test_a_machine_by_its_threads() -> None:
    """The guest runs in those that QEMU calls after its vCPUs, under KVM and TCG; all others are the VMM."""
    threads = f"in_thread(lambda: (burn({BURNED}, time.thread_time), %s.set(), stay.wait()), %r)"
    script = (
        "stay = threading.Event(); one = threading.Event(); two = threading.Event(); say(time.thread_time())\n"
        f"{threads % ('one', 'CPU 0/TCG')}; one.wait()\n{threads % ('two', 'worker')}; two.wait()\n"
        "say(time.process_time())"
    )
    with child(script) as vmm:
        told = cpu.read(machine(vmm.pid))
    assert told["workload"] == HIDDEN
    assert spent(told, "guest").total == pytest.approx(BURNED, abs=TICKS)
    assert spent(told, "guest").total + spent(told, "vmm").total == pytest.approx(vmm.said[1], rel=0.05)


@pytest.mark.parametrize("name", ["CPU 0/KVM", "CPU 12/TCG", "ALL CPUs/TCG"])
def test_the_names_of_vcpus(name: str) -> None:
    assert cpu.VCPU.match(name)


def test_the_workload_is_what_its_control_group_counted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Whoever ran in it and ended is in that, but not the supervisor that runs in it too."""
    with child(f"burn({BURNED})") as supervisor, child("") as outside:
        (tmp_path / "cgroup.procs").write_text(f"{supervisor.pid}\n")
        monkeypatch.setattr(cgroup, "cpu_time", lambda folders: Spent(10.0, 5.0) if folders else None)
        folders = {"cpu": tmp_path, "memory": tmp_path}
        inside = cpu.read(Told({"workload": [], "supervisor": [supervisor.pid, outside.pid]}, folders))
        without = cpu.read(Told({"workload": [supervisor.pid], "supervisor": [outside.pid]}))
        used = cpu.processes([supervisor.pid])
        both = cpu.processes([supervisor.pid, outside.pid])
    assert spent(inside, "workload").total == pytest.approx(15.0 - used.total)
    assert spent(inside, "supervisor").total == pytest.approx(both.total, abs=0.01)  # read one after the other
    assert spent(without, "workload").total == pytest.approx(used.total)


def test_samples_of_a_start() -> None:
    """From nothing for what was not there before; null with a reason for what was unseen at either end."""
    before: cpu.Reading = {"daemon": Spent(4.0, 2.0), "supervisor": Unseen("then")}
    after: cpu.Reading = {
        "workload": Spent(0.25, 0.125),
        "daemon": Spent(4.5, 2.25),
        "supervisor": Spent(1.0, 1.0),
        "guest": Unseen("now"),
    }
    assert cpu.start(before, after) == [
        Sample("cpu.start", "s", 0.25, "workload", "user"),
        Sample("cpu.start", "s", 0.125, "workload", "system"),
        Sample("cpu.start", "s", 0.5, "daemon", "user"),
        Sample("cpu.start", "s", 0.25, "daemon", "system"),
        Sample("cpu.start", "s", None, "supervisor", reason="then"),
        Sample("cpu.start", "s", None, "guest", reason="now"),
    ]


def test_samples_at_rest() -> None:
    before: cpu.Reading = {"workload": Spent(1.0, 1.0), "guest": Unseen("then"), "vmm": Unseen("then")}
    after: cpu.Reading = {"workload": Spent(1.25, 1.25), "guest": Unseen("now"), "vmm": Spent(1.0)}
    assert cpu.rest(before, after, 2.0) == [
        Sample("cpu.rest", "1", 0.25, "workload"),
        Sample("cpu.rest", "1", None, "guest", reason="now"),
        Sample("cpu.rest", "1", None, "vmm", reason="then"),
    ]


seconds = st.floats(0, 1e6)
times = st.builds(Spent, seconds, seconds)


@given(times, times)
def test_a_difference_keeps_the_totals_and_is_never_negative(later: Spent, earlier: Spent) -> None:
    used = later - earlier
    assert min(used.user, used.system) >= 0
    assert used.total == pytest.approx(max(0.0, later.total - earlier.total), abs=1e-9)
    assert (later + earlier).total == pytest.approx(later.total + earlier.total)


@given(times, times)
def test_a_difference_of_what_only_grew_is_each_modes(earlier: Spent, more: Spent) -> None:
    used = (earlier + more) - earlier
    assert used.user == pytest.approx(more.user, abs=1e-9)
    assert used.system == pytest.approx(more.system, abs=1e-9)


@given(seconds, st.integers(0, 10**9), st.integers(0, 10**9))
def test_a_division_keeps_the_exact_time_in_the_ratio_of_the_ticks(exact: float, user: int, system: int) -> None:
    divided = Spent.divided(exact, user, system)
    assert divided.total == pytest.approx(exact)
    assert min(divided.user, divided.system) >= 0
    if user + system:
        assert divided.user * system == pytest.approx(divided.system * user, rel=1e-6, abs=1e-6)
    else:
        assert divided.user == exact
