"""Plans: what flags and a TOML file may say, and what makes no sense."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import backends, plan
from harness.errors import BadInput
from harness.ledger import Ledger
from harness.model import Limits, Plan


@pytest.fixture
def ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ledger:
    monkeypatch.setenv("WEIGHBRIDGE_STATE", str(tmp_path))
    return Ledger()


@pytest.mark.parametrize(
    ("text", "targets"),
    [
        ("host", ["host"]),
        ("host,docker", ["host", "docker"]),
        (" host , docker ,", ["host", "docker"]),
        ("namespace/pid,net", ["namespace/pid,net"]),
        ("namespace/pid,net,docker", ["namespace/pid,net", "docker"]),
        ("libvirt/pc,accel=tcg,namespace", ["libvirt/pc,accel=tcg", "namespace"]),
        ("libvirt/pc,accel=tcg,libvirt/pc", ["libvirt/pc,accel=tcg", "libvirt/pc"]),
        ("docker,pid", ["docker", "pid"]),  # `pid` cannot belong to a target that has no option yet
        ("docker/runtime=runsc,host", ["docker/runtime=runsc", "host"]),
        (",,", []),
    ],
)
def test_commas_part_targets_and_their_options(text: str, targets: list[str]) -> None:
    assert plan.targets(text) == targets


NAMES = st.sampled_from(["host", "userns-chroot", "docker", "namespace/pid,net", "libvirt/pc,accel=tcg", "docker/a=b"])


@given(st.lists(NAMES))
def test_what_is_joined_is_split_again(named: list[str]) -> None:
    assert plan.targets(",".join(named)) == named


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("90s", 90), ("10m", 600), ("1h30m", 5400), ("0.5s", 0.5), ("1.5h", 5400), ("0", 0)],
)
def test_durations(text: str, seconds: float) -> None:
    assert plan.duration(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "10x", "-5", "1e3", "10 m", "m", "1h 30m", "inf", "nan"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(BadInput, match="no duration"):
        plan.duration(text)


@given(st.integers(0, 10**6), st.integers(0, 59), st.integers(0, 59))
def test_durations_add_up(hours: int, minutes: int, seconds: int) -> None:
    assert plan.duration(f"{hours}h{minutes}m{seconds}s") == hours * 3600 + minutes * 60 + seconds


@pytest.mark.parametrize(
    ("text", "size"),
    [("1", 1), ("256M", 2**28), ("256MiB", 2**28), ("256mb", 2**28), ("1.5G", 3 * 2**29), ("2k", 2048), ("1T", 2**40)],
)
def test_sizes(text: str, size: int) -> None:
    assert plan.size(text) == size


@pytest.mark.parametrize("text", ["", "lots", "-1", "1X", "1e9", "M", "1 G", "1MM", "inf", "nan"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(BadInput, match="amount of memory"):
        plan.size(text)


@given(st.integers(0, 2**50), st.sampled_from("kMGT"))
def test_a_size_is_a_number_times_its_unit(number: int, unit: str) -> None:
    assert plan.size(f"{number}{unit}") == number * 1024 ** ("kMGT".index(unit) + 1)


@pytest.mark.parametrize(
    ("text", "fraction"), [("5%", 0.05), ("0.05", 0.05), ("2.5%", 0.025), ("99%", 0.99), ("0.0001%", 1e-6)]
)
def test_fractions(text: str, fraction: float) -> None:
    assert plan.fraction(text) == pytest.approx(fraction)


@pytest.mark.parametrize("text", ["", "5", "1", "100%", "0", "0%", "-5%", "5 %", "5%%", "%", "lots", "nan", "1e-2"])
def test_what_is_no_fraction(text: str) -> None:
    with pytest.raises(BadInput, match=r"^precision: .*no fraction"):
        plan.fraction(text)


def test_a_precision_says_how_many_rounds_there_are(tmp_path: Path) -> None:
    assert (plan.make(None, {}).precision, plan.make(None, {}).cold) == (None, None)
    made = plan.make(None, {"precision": "5%"})
    assert (made.precision, made.rounds) == (0.05, 10)
    file = tmp_path / "plan.toml"
    file.write_text('precision = 0.1\ncold = "image"\n')
    made = plan.make(file, {"cold": "all"})
    assert (made.precision, made.rounds, made.cold) == (0.1, 10, "all")
    for flags in ({"rounds": 10}, {"rounds": 10, "precision": "5%"}):
        with pytest.raises(BadInput, match="rounds and precision"):
            plan.make(file, flags)


def test_nothing_said_is_the_default_with_a_seed_of_its_own() -> None:
    one, other = plan.make(None, {}), plan.make(None, {})
    assert one.seed != other.seed
    assert (one.rounds, one.budget, one.limits, one.workloads) == (7, 600.0, Limits(), ("hello",))
    assert one.targets[0] == "host"
    assert ("userns-chroot" in one.targets) == (os.geteuid() != 0)


def test_flags_win_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "plan.toml"
    file.write_text('targets = ["host", "docker"]\nrounds = 3\ncpus = 2\nmemory = "1G"\nbudget = "5m"\ntimeout = 7\n')
    made = plan.make(file, {"rounds": 9, "memory": "64M", "budget": None})
    assert made.targets == ("host", "docker")
    assert (made.rounds, made.budget, made.timeout) == (9, 300.0, 7.0)
    assert made.limits == Limits(2.0, 2**26)


def test_a_file_may_say_what_the_flags_may(tmp_path: Path) -> None:
    file = tmp_path / "plan.toml"
    file.write_text('targets = "namespace/pid,net,docker"\nworkloads = "hello"\nbudget = "none"\nengines = "private"\n')
    made = plan.make(file, {})
    assert made.targets == ("namespace/pid,net", "docker")
    assert (made.workloads, made.budget, made.engines) == (("hello",), None, "private")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("rouns = 3", "'rouns'"),
        ("limits = {cpus = 1}", "'limits'"),
        ('rounds = "many"', "rounds: "),
        ("rounds = 0", "rounds: "),
        ("rounds = 2.5", "rounds: "),
        ("rounds = true", "rounds: "),
        ("targets = 3", "targets: "),
        ("targets = [3]", "targets"),
        ("targets = []", "no target"),
        ('targets = ["host", "host"]', "host is named twice"),
        ("workloads = []", "no workload"),
        ("[targets]", "targets: "),
        ('cpus = "one"', "cpus: "),
        ("cpus = 0", "cpus: "),
        ("cpus = nan", "cpus: "),
        ("cpus = inf", "cpus: "),
        ("memory = true", "memory: "),
        ("memory = -1", "memory: "),
        ("budget = -4", "budget: "),
        ("budget = inf", "budget: "),
        ("budget = 2020-01-01", "budget: "),
        ("timeout = [1]", "timeout: "),
        ("timeout = inf", "timeout: "),
        ('engines = "theirs"', "engines: "),
        ("kernel = 5", "kernel: "),
        ("precision = 0", "precision: "),
        ("precision = 5", "precision: "),
        ("precision = nan", "precision: "),
        ("precision = true", "precision: "),
        ('precision = "little"', "precision: "),
        ("precision = 0.05\nrounds = 7", "rounds and precision"),
        ("cold = true", "cold: "),
        ('cold = "ice"', "cold: "),
        ("rounds = 3\nrounds = 4", "plan.toml"),
        ("not toml at all", "plan.toml"),
    ],
)
def test_a_plan_that_makes_no_sense_names_the_key(tmp_path: Path, text: str, told: str) -> None:
    file = tmp_path / "plan.toml"
    file.write_text(text)
    with pytest.raises(BadInput) as refused:
        plan.make(file, {})
    assert told in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("flags", [{"cpus": float("inf")}, {"cpus": float("nan")}, {"cpus": -1.0}, {"memory": "0"}])
def test_a_flag_that_makes_no_sense(flags: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match=f"^{next(iter(flags))}: "):
        plan.make(None, flags)


@pytest.mark.parametrize(
    "target",
    ["nope", "host/x", "libvirt", "libvirt/q36", "libvirt/pc,accel=hvf", "docker/runtime", "docker/runtime=", "/", "",
     "namespace/", "namespace/pid,pid", "namespace/pid=1", "userns-chroot/pid", "libvirt/pc,,=x"],
)  # fmt: skip
def test_a_target_that_cannot_be_meant(ledger: Ledger, target: str) -> None:
    with pytest.raises(BadInput, match="target"):
        backends.create(target, ledger, Plan())


def test_options_are_read(ledger: Ledger) -> None:
    name, options = backends.parse("libvirt/pc,accel=tcg")
    assert (name, list(options), options.get("accel"), options.words()) == ("libvirt", ["pc", "accel"], "tcg", ["pc"])
    assert backends.create("docker/runtime=runsc", ledger, Plan()).options.get("runtime") == "runsc"
