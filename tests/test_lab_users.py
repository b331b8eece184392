"""The users' machine of the lab: its judge finds every fault in the records, and its inventory every leftover."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from harness.errors import RunError
from harness.model import Accelerated, Applied, Footer, Run, TargetRecord, UnavailableRecord
from lab.machine import Machine
from lab.users import inventory, judge, session
from lab.users.session import STEPS
from lab.users.steps import JOINING, MACHINES, PROFILES, USERS, all_steps
from tests.weighing import full

MARK = session.mark("debian13")
OUTPUTS = {
    "alice-run": "setup: run: sudo usermod -aG docker,kvm alice\n",
    "bob-refused": "setup: run: sudo usermod -aG docker,kvm bob\n"
    "docker: not here: not permitted to use its socket. Try: sudo usermod -aG docker bob\n",
    "root-doctor": "".join(
        f"{profile} · KVM: QEMU 10\n  image: prepared\n  launch: ready after 9 s\n" for profile in PROFILES.split(",")
    ),
}
Records = list[dict[str, Any]]


@pytest.fixture
def good(tmp_path: Path) -> Path:
    """Made-up records of a machine without a fault."""
    done = [{"name": step.name, "user": step.user, "status": 0, "seconds": 1.0, "left": []} for step in all_steps()]
    (tmp_path / STEPS).write_text(json.dumps(done))
    for step, text in OUTPUTS.items():
        (tmp_path / f"{step}.txt").write_text(text)
    for name, targets in judge.EXPECTED.items():
        (tmp_path / f"{name}.jsonl").write_bytes(b"".join(map(_line, _records(name, targets))))
    return tmp_path


def _line(record: msgspec.Struct) -> bytes:
    return msgspec.json.encode(record) + b"\n"


def _records(name: str, targets: tuple[str, ...]) -> list[msgspec.Struct]:
    sample = full(rounds=1)
    host = msgspec.structs.replace(sample.header.host, gating={**sample.header.host.gating, "lab": MARK})
    accelerator = "tcg" if name == "alice-run" else "kvm"
    records: list[msgspec.Struct] = [msgspec.structs.replace(sample.header, host=host)]
    runs: list[Run] = []
    for target in targets:
        machine = target.startswith("libvirt/")
        records.append(TargetRecord(target, "engine", "1", "user", accelerator if machine else None))
        like = "libvirt/pc" if machine else "docker" if target == "docker" else "namespace"
        for run in (run for run in sample.runs if run.target == like and run.workload == "hello"):
            said = Accelerated(True, accelerator == "kvm", {}, None) if machine else None
            runs.append(msgspec.structs.replace(run, target=target, accelerated=said, id=f"{name}-{len(runs)}"))
    if name in judge.REFUSED:
        target, words = judge.REFUSED[name]
        records.append(UnavailableRecord(target, "not permitted to use its socket", f"run {words}"))
    return [*records, *runs, Footer(True, None, len(runs), 0)]


def test_a_machine_on_which_all_went_well_passes(good: Path) -> None:
    assert judge.check(good, MARK).startswith(f"{len(all_steps())} steps of 3 users")


def drop_step(folder: Path) -> None:
    done = json.loads((folder / STEPS).read_text())
    (folder / STEPS).write_text(json.dumps(done[:-1]))


def fail_step(folder: Path) -> None:
    _change_step(folder, "bob-refused", {"status": 3})


def leave_slice(folder: Path) -> None:
    _change_step(folder, "root-private", {"left": ["+ unit: weighbridge.slice active"]})


def forget_command(folder: Path) -> None:
    (folder / "alice-run.txt").write_text("setup: done\n")


def launch_no_snapshot(folder: Path) -> None:
    text = OUTPUTS["root-doctor"].rpartition("  launch")[0]
    (folder / "root-doctor.txt").write_text(f"{text}  launch: no: refused\n")


def drop_result(folder: Path) -> None:
    (folder / "root-user.jsonl").unlink()


def _change_step(folder: Path, name: str, change: dict[str, Any]) -> None:
    done = json.loads((folder / STEPS).read_text())
    (folder / STEPS).write_text(json.dumps([each | change if each["name"] == name else each for each in done]))


def changing(name: str, change: Callable[[dict[str, Any]], dict[str, Any] | None]) -> Callable[[Path], None]:
    """Change the records of a step's result; one that becomes None is left out."""

    def apply(folder: Path) -> None:
        path = folder / f"{name}.jsonl"
        records = [change(json.loads(line)) for line in path.read_text().splitlines()]
        path.write_text("".join(f"{json.dumps(record)}\n" for record in records if record is not None))

    return apply


def of_target(target: str, change: dict[str, Any]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda record: record | change if record["kind"] == "run" and record["target"] == target else record


def without(kind: str, target: str) -> Callable[[dict[str, Any]], dict[str, Any] | None]:
    return lambda record: None if record["kind"] == kind and record.get("target") == target else record


UNLIMITED = {"memory": msgspec.to_builtins(Applied(1, None, reason="not delegated"))}
FAILED = {"ok": False, "error": {"phase": "starting", "type": "EngineError", "message": "refused", "log": ""}}
TCG = {"accelerator": "tcg", "accelerator_reason": "not permitted"}


@pytest.mark.parametrize(
    ("spoil", "fault"),
    [
        (drop_step, "bob-conformance: it did not run"),
        (fail_step, "bob-refused: it ended with 3"),
        (leave_slice, r"root-private: it left \+ unit: weighbridge.slice active"),
        (forget_command, "alice-run: its output lacks set-up's command"),
        (launch_no_snapshot, "root-doctor: its output lacks a launch of libvirt/snapshot"),
        (drop_result, "root-user: it wrote no result"),
        (changing("bob-run", of_target("namespace", {"limits": UNLIMITED})), "the memory limit was not applied"),
        (changing("alice-user", of_target("docker", {"samples": []})), "the memory of its control group is missing"),
        (changing("root-user", of_target("libvirt/pc", FAILED)), "libvirt/pc failed while starting"),
        (changing("alice-again", without("run", "docker")), "alice-again: docker was not measured"),
        (changing("bob-private", without("unavailable", "docker")), "docker was not refused with 'root'"),
        (
            changing("root-run", lambda record: record | TCG if record.get("accelerator") else record),
            "libvirt/pc ran by tcg, not kvm: not permitted",
        ),
    ],
)
def test_each_fault_is_found(good: Path, spoil: Callable[[Path], None], fault: str) -> None:
    spoil(good)
    with pytest.raises(RunError, match=fault):
        judge.check(good, MARK)


def test_numbers_without_the_mark_are_a_fault(good: Path) -> None:
    with pytest.raises(RunError, match="lack the mark of the lab"):
        judge.check(good, session.mark("debian12"))


def test_every_user_clones_first_and_every_step_has_a_name_of_its_own() -> None:
    names = [step.name for step in all_steps()]
    assert len(set(names)) == len(names)
    assert sorted(user for users in MACHINES.values() for user in users) == sorted(USERS)
    for user in USERS:
        assert next(step.name for step in all_steps() if step.user == user) == f"{user}-clone"
    assert set(JOINING) < set(names)
    assert names.index("alice-groups") < names.index("alice-again")


def test_a_mark_is_one_word_of_qemus_options() -> None:
    for name in ("debian12", "debian13"):
        assert "," not in session.mark(name)


def test_a_folder_of_first_use_is_passed_over_and_its_content_listed(tmp_path: Path) -> None:
    folder = tmp_path / "weighbridge/ledgers"
    folder.mkdir(parents=True)
    top = str(tmp_path)
    assert list(inventory._files([top])) == [f"file: {tmp_path}/weighbridge"]
    (folder / "left.jsonl").touch()
    assert f"file: {folder}/left.jsonl" in list(inventory._files([top]))


def test_the_command_is_taken_from_set_up_alone(tmp_path: Path) -> None:
    printed = "setup: run this: sudo usermod -aG docker,kvm alice\nTry: run `sudo usermod -aG docker alice`\n"
    (tmp_path / "run.txt").write_text(printed)
    (step,) = (step for step in all_steps() if step.name == "alice-groups")
    command = step.command.replace("&& $command", "")
    done = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["sudo usermod -aG docker,kvm alice"]


def test_what_a_machine_recorded_is_brought_out_though_another_recorded_nothing(tmp_path: Path) -> None:
    recorded, kept = tmp_path / "recorded", tmp_path / "kept"
    for folder in (recorded, kept):
        folder.mkdir()
    (recorded / "steps-root.json").write_text('[{"name": "root-clone"}]')
    (recorded / "root-clone.txt").write_text("cloned\n")
    unused: Any = None  # its console and its process
    with (tmp_path / "full").open("w+b") as full, (tmp_path / "empty").open("w+b") as empty:
        subprocess.run(["tar", "-c", "-C", recorded, "."], stdout=full, check=True)
        empty.truncate(2**20)
        machines = [Machine(unused, disk, unused, print) for disk in (empty, full)]
        assert [each.has_written for each in machines] == [False, True]
        session.take_out(machines, kept)
    assert json.loads((kept / STEPS).read_text()) == [{"name": "root-clone"}]
    assert sorted(path.name for path in kept.iterdir()) == ["root-clone.txt", STEPS]
