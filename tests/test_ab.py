"""Two sides in one campaign: what they may differ in, that they take turns, and what the command line makes of them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from harness import plan, store
from harness.campaign import Campaign
from harness.errors import BadInput
from tests.campaigns import write
from tests.ground import TIMEOUT

if TYPE_CHECKING:
    from tests.conftest import EngineOrSkip

pytestmark = pytest.mark.long

START = """
block=0123456789abcdef
for double in 1 2 3 4 5 6 7 8 9 10 11 12; do block=$block$block; done
held=0; while [ $held -lt {blocks} ]; do eval "held$held=\\$block"; held=$((held + 1)); done
dd if=/dev/zero of=/written bs=64k count={blocks} 2> /dev/null
turn=0; while [ $turn -lt {turns} ]; do turn=$((turn + 1)); done
(sleep 86400; :) &
"""


def workload(folder: Path, blocks: int, turns: int) -> Path:
    """Holds and writes so many blocks of 64 KiB, and counts so far, before it is ready."""
    folder.mkdir()
    (folder / "workload.toml").write_text('packages = ["busybox-static"]\nstart = "start"\n')
    (folder / "start").write_text(START.format(blocks=blocks, turns=turns))
    return folder


def weighbridge(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-P", "-m", "harness", *map(str, arguments)]
    return subprocess.run(argv, capture_output=True, text=True, cwd=cwd, timeout=TIMEOUT, check=False)


def test_a_side_changes_what_it_says_and_nothing_else(tmp_path: Path) -> None:
    file = tmp_path / "plan.toml"
    file.write_text(
        'targets = ["docker", "libvirt/pc"]\nmemory = "256M"\n[base]\n[head]\nmemory = "512M"\ndocker_host = "unix:///s"\n'
    )
    made = plan.make(file, {})
    base, head = plan.sides(made).values()
    assert base == msgspec.structs.replace(made, sides={})
    assert (head.limits.memory, head.docker_host, head.targets) == (512 * 2**20, "unix:///s", made.targets)
    assert made.rounds == plan.COMPARED_ROUNDS
    again = plan.make(file, {"seed": made.seed, "base": {}, "head": {"memory": "1G"}})
    assert again.sides["head"] == {"memory": 2**30, "docker_host": "unix:///s"}
    done = weighbridge("run", file, cwd=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "has two sides, which `weighbridge ab` measures" in done.stderr
    assert msgspec.json.decode(msgspec.json.encode(made), type=type(made)) == made


@pytest.mark.parametrize(
    ("base", "head", "told"),
    [
        (["kernel"], [], "is not KEY=VALUE"),
        ([], ["seed=5"], "'seed' is nothing that two sides may differ in"),
        ([], ["targets=host"], "base has 4 targets and head 1"),
        ([], ["workloads=hello,python"], "base has 1 workloads and head 2"),
        ([], ["memory=5"], "memory: 5 bytes can run nothing"),
        ([], ["cpus=many"], "'many' is no number"),
        ([], ["engines=mine"], "engines"),
        ([], ["targets=docker,docker,host,host"], "named twice"),
    ],
)
def test_what_makes_no_sense_is_one_line(base: list[str], head: list[str], told: str) -> None:
    with pytest.raises(BadInput, match=told) as refused:
        plan.make(
            None, {"targets": "host,namespace,docker,libvirt/pc", "base": plan.side(base), "head": plan.side(head)}
        )
    assert "\n" not in str(refused.value)


def test_a_program_that_is_none_is_refused_before_anything_starts(tmp_path: Path) -> None:
    done = weighbridge("ab", "--targets", "libvirt/pc", "--head", "emulator=/nowhere/qemu", cwd=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "/nowhere/qemu is no program" in done.stderr
    assert not (tmp_path / "results").exists()


def test_the_command_line_gates(tmp_path: Path) -> None:
    slow = {"base": {"docker": [0.2] * 20}, "head": {"docker": [0.3] * 20}}
    write(tmp_path / "slow.jsonl", slow)
    assert weighbridge("compare", "slow.jsonl", cwd=tmp_path).returncode == 0
    gated = weighbridge("compare", "slow.jsonl", "--gate", "--format", "markdown", cwd=tmp_path)
    assert gated.returncode == 1
    assert gated.stdout.startswith("**Regressed: startup.total of docker with hello +50.0 % (200 ms → 300 ms)**\n")
    assert weighbridge("compare", "slow.jsonl", "--fail", "memory.pss:5%", cwd=tmp_path).returncode == 0
    assert weighbridge("compare", "slow.jsonl", "--fail", "startup.total:60%", cwd=tmp_path).returncode == 0
    (tmp_path / "pyproject.toml").write_text('[tool.weighbridge.gate]\n"startup.total" = "60%"\n')
    assert weighbridge("compare", "slow.jsonl", "--gate", cwd=tmp_path).returncode == 0
    found = json.loads(weighbridge("compare", "slow.jsonl", "--format", "json", cwd=tmp_path).stdout)
    assert found["comparisons"][0]["change"] == pytest.approx(0.5)


def test_undecided_passes_a_gate_unless_it_is_strict(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write(tmp_path / f"{name}.jsonl", {None: {"docker": [0.2] * 20}})
    assert weighbridge("compare", "a.jsonl", "b.jsonl", "--gate", cwd=tmp_path).returncode == 0
    assert weighbridge("compare", "a.jsonl", "b.jsonl", "--gate=strict", cwd=tmp_path).returncode == 3


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("compare", "a.jsonl", "other.jsonl"), 3),
        (("compare", "a.jsonl", "nowhere.jsonl"), 2),
        (("compare", "a.jsonl"), 2),
        (("compare", "a.jsonl", "newer.jsonl"), 2),
        (("compare", "a.jsonl", "b.jsonl", "--fail", "speed:5%"), 2),
        (("compare", "a.jsonl", "b.jsonl", "--format", "xml"), 2),
        (("baseline", "add", "nowhere.jsonl"), 2),
    ],
)
def test_bad_input_is_one_line(tmp_path: Path, arguments: tuple[str, ...], code: int) -> None:
    for name in ("a", "b"):
        write(tmp_path / f"{name}.jsonl", {None: {"docker": [0.2] * 20}})
    write(tmp_path / "other.jsonl", {None: {"docker": [0.2] * 20}}, gating={"kernel": "6.2"})
    content = (tmp_path / "a.jsonl").read_text()
    (tmp_path / "newer.jsonl").write_text(content.replace("weighbridge/1", "weighbridge/2"))
    done = weighbridge(*arguments, cwd=tmp_path)
    assert (done.returncode, done.stderr.strip().count("\n"), done.stdout) == (code, 0, ""), done.stderr


def campaign(path: Path, flags: dict[str, Any]) -> store.Result:
    Campaign(plan.make(None, flags), path, ["test"], lambda event: None).run()
    return store.read(path)


@pytest.mark.engine
def test_sides_take_turns_in_every_round(tmp_path: Path, engine_or_skip: EngineOrSkip) -> None:
    with engine_or_skip("namespace"):
        result = campaign(tmp_path / "ab.jsonl", {"targets": "namespace", "rounds": 4, "base": {}, "head": {}})
    assert [run.side for run in result.runs].count("base") == [run.side for run in result.runs].count("head") == 5
    orders = {
        tuple(run.side for run in result.runs if run.round == number) for number in {run.round for run in result.runs}
    }
    assert orders <= {("base", "head"), ("head", "base")}
    sided: tuple[Any, ...] = (result.targets, result.bundles, result.images)
    for records in sided:
        assert [record.side for record in records] == ["base", "head"]


@pytest.mark.engine
def test_an_injected_slow_down_fails_the_gate(tmp_path: Path, engine_or_skip: EngineOrSkip) -> None:
    workload(tmp_path / "base", 16, 100)
    workload(tmp_path / "head", 48, 60_000)
    with engine_or_skip("docker"):
        done = weighbridge(
            *("ab", "--targets", "docker", "--rounds", 10, "--base", "workloads=base", "--head", "workloads=head"),
            *("--gate", "--confirm", "--format", "markdown", "--into", "comment.md", "-o", "ab.jsonl"),
            cwd=tmp_path,
        )
        if done.returncode == 3:
            pytest.fail(done.stderr)
    assert done.returncode == 1, done.stderr
    first = (tmp_path / "comment.md").read_text().partition("\n")[0]
    assert "Regressed: startup.total of docker with base → head +" in first
    assert "memory.pss of docker" in first
    assert "disk.instance of docker" in first
    again = store.read(tmp_path / "ab-again.jsonl")
    assert again.header.plan.seed == store.read(tmp_path / "ab.jsonl").header.plan.seed + 1


@pytest.mark.engine
def test_two_machines_are_two_sides(tmp_path: Path, engine_or_skip: EngineOrSkip) -> None:
    """A guest with more memory and a QEMU named by its path: both are the head's alone."""
    target = "libvirt/pc,accel=tcg"
    with engine_or_skip("libvirt"):
        head = {
            "memory": "384M",
            "emulator": "/usr/bin/qemu-system-x86_64",
        }
        result = campaign(
            tmp_path / "ab.jsonl", {"targets": target, "rounds": 1, "budget": "none", "base": {}, "head": head}
        )
    assert result.footer is not None
    assert (result.footer.runs, result.footer.failed, result.unavailable) == (4, 0, [])
    profiles = {record.side: record.profile["domain"] for record in result.targets}
    assert "<emulator>" not in profiles["base"]
    assert "<emulator>/usr/bin/qemu-system-x86_64</emulator>" in profiles["head"]
    seen = {run.side: run.limits["memory"].asked for run in result.runs}
    assert seen == {"base": 256 * 2**20, "head": 384 * 2**20}
