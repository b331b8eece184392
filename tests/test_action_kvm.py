"""The action's script for /dev/kvm: the udev rule, and each machine on which it must change nothing and succeed.

sudo, udevadm, id and uname are stubs, since the real ones would change this machine. A socket stands in for a device
that this user must not open: nobody can open one, not even root. The stub of udev replaces it with a plain file.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from tests.ground import REPOSITORY, TIMEOUT

SCRIPT = REPOSITORY / "action/kvm.sh"
RULE = 'KERNEL=="kvm", GROUP="kvm", MODE="0666", OPTIONS+="static_node=kvm"\n'
APPLIED = ["udevadm control --reload-rules", "udevadm trigger --name-match=kvm", "udevadm settle --timeout=10"]
STUBS = {
    "id": 'echo "${UID_STUB-1000}"',
    "uname": 'echo "${SYSTEM_STUB-Linux}"',
    "sudo": """
        echo "sudo $*" >>"$CALLS"
        [ -z "${PASSWORD_STUB-}" ] && [ "$1" = -n ] || exit 1
        shift
        exec "$@" """,
    "udevadm": """
        echo "udevadm $*" >>"$CALLS"
        [ "$1" = "${FAILING_STUB-}" ] && exit 1
        [ "$1" = trigger ] && [ -z "${USELESS_STUB-}" ] && rm "$DEVICE" && : >"$DEVICE"
        exit 0""",
}


@dataclass
class Runner:
    """A runner whose /dev/kvm exists and is not open to its user, who has sudo without a password."""

    folder: Path

    def __post_init__(self) -> None:
        (self.folder / "bin").mkdir()
        (self.folder / "rules").mkdir()
        for name, text in STUBS.items():
            path = self.folder / "bin" / name
            path.write_text(f"#!/bin/sh\n{text}\n")
            path.chmod(0o755)
        for name in ("sh", "tee", "rm", "true"):
            (self.folder / "bin" / name).symlink_to(shutil.which(name) or "/nonexistent")
        with socket.socket(socket.AF_UNIX) as device:
            device.bind(self.device.name)  # relative to the current folder: a socket's path has at most 107 bytes

    @property
    def device(self) -> Path:
        return self.folder / "kvm"

    @property
    def rule(self) -> str | None:
        path = self.folder / "rules/99-kvm4all.rules"
        return path.read_text() if path.exists() else None

    def remove(self, program: str) -> None:
        (self.folder / "bin" / program).unlink()

    def enable(self, **stubs: str) -> str:
        """Run the script and return its only line. It must end with 0."""
        argv = [SCRIPT, self.device, self.folder / "rules"]
        environment = {
            "PATH": str(self.folder / "bin"),
            "CALLS": str(self.folder / "calls"),
            "DEVICE": str(self.device),
            **stubs,
        }
        done = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=TIMEOUT, check=False)
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith("kvm: ") and done.stdout.count("\n") == 1
        return done.stdout

    def calls(self) -> list[str]:
        path = self.folder / "calls"
        return path.read_text().splitlines() if path.exists() else []


@pytest.fixture
def runner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Runner:
    monkeypatch.chdir(tmp_path)
    return Runner(tmp_path)


def test_kvm_is_opened_to_every_user_by_a_udev_rule(runner: Runner) -> None:
    assert "is open to every user" in runner.enable()
    assert runner.rule == RULE
    assert [call for call in runner.calls() if call.startswith("udevadm")] == APPLIED
    assert runner.calls().count("sudo -n true") == 1


def test_kvm_needs_no_sudo_as_root(runner: Runner) -> None:
    runner.remove("sudo")
    assert "is open to every user" in runner.enable(UID_STUB="0")
    assert (runner.rule, runner.calls()) == (RULE, APPLIED)


def test_kvm_that_is_open_already_changes_nothing(runner: Runner) -> None:
    runner.device.unlink()
    runner.device.touch()
    assert "open to this user already" in runner.enable()
    assert (runner.rule, runner.calls()) == (None, [])


def test_no_kvm_changes_nothing(runner: Runner) -> None:
    runner.device.unlink()
    assert f"there is no {runner.device}" in runner.enable()
    assert (runner.rule, runner.calls()) == (None, [])


def test_another_system_changes_nothing(runner: Runner) -> None:
    assert "this is not Linux" in runner.enable(SYSTEM_STUB="Darwin")
    assert (runner.rule, runner.calls()) == (None, [])


@pytest.mark.parametrize(("program", "reason"), [("sudo", "no sudo"), ("udevadm", "no udevadm")])
def test_a_missing_program_is_reported_and_changes_nothing(runner: Runner, program: str, reason: str) -> None:
    runner.remove(program)
    assert reason in runner.enable()
    assert (runner.rule, runner.calls()) == (None, [])


def test_sudo_that_asks_for_a_password_changes_nothing(runner: Runner) -> None:
    assert "sudo asks for a password" in runner.enable(PASSWORD_STUB="1")
    assert (runner.rule, runner.calls()) == (None, ["sudo -n true"])


@pytest.mark.parametrize("command", ["control", "trigger", "settle"])
def test_a_udev_that_does_not_run_is_reported(runner: Runner, command: str) -> None:
    assert "could not be applied" in runner.enable(FAILING_STUB=command)


def test_rules_that_cannot_be_written_are_reported(runner: Runner) -> None:
    (runner.folder / "rules").rmdir()
    assert "could not be applied" in runner.enable()
    assert [call for call in runner.calls() if call.startswith("udevadm")] == []


def test_a_rule_without_effect_is_reported(runner: Runner) -> None:
    assert "is still not open to this user" in runner.enable(USELESS_STUB="1")


def test_the_action_enables_kvm_first_and_by_default() -> None:
    action: Any = YAML(typ="safe").load(REPOSITORY / "action.yml")
    assert action["inputs"]["kvm"]["default"] == "true"
    first = action["runs"]["steps"][0]
    assert first["if"] == "inputs.kvm == 'true'"
    assert first["run"].strip() == '"$GITHUB_ACTION_PATH/action/kvm.sh"'
    assert os.access(SCRIPT, os.X_OK)


def test_the_documentation_has_the_same_rule_and_commands() -> None:
    text = (REPOSITORY / "docs/CI.md").read_text()
    assert RULE.strip() in text
    for command in (*APPLIED[:2], "sysctl kernel.apparmor_restrict_unprivileged_userns=0"):
        assert f"sudo {command}" in text
