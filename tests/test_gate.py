"""Thresholds: the defaults, what a project and a plan change of them, and what is no threshold."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness import gate
from harness.errors import BadInput
from harness.gate import Threshold


def test_the_defaults_are_those_of_the_headlines() -> None:
    told = {name: threshold.relative for name, threshold in gate.default().items()}
    assert told == {"startup.total": 0.1, "memory.pss": 0.05, "disk.instance": 0.02, "disk.shared": 0.02}
    assert all(threshold.floor > 0 for threshold in gate.default().values())


def test_a_project_changes_them_and_a_plan_has_the_last_word(tmp_path: Path) -> None:
    project, plan = tmp_path / "pyproject.toml", tmp_path / "plan.toml"
    project.write_text(
        "[tool.weighbridge.gate]\n"
        'memory.pss = "7%"\n'
        '"startup.total" = {threshold = "20%", floor = "2ms"}\n'
        'disk.shared = {floor = "1M"}\n'
    )
    plan.write_text('[gate]\n"memory.pss" = 0.5\n"cpu.start" = "30%"\n')
    told = gate.configured(plan, project)
    assert told["startup.total"] == Threshold(0.2, 0.002)
    assert told["memory.pss"] == Threshold(0.5, 256 * 1024)
    assert told["disk.shared"] == Threshold(0.02, 2**20)
    assert told["disk.instance"] == gate.default()["disk.instance"]
    assert told["cpu.start"].relative == 0.3


def test_what_the_command_line_names_is_judged_alone() -> None:
    told = gate.parse("memory.pss:5%, startup.total:0.25")
    assert {name: threshold.relative for name, threshold in told.items()} == {"memory.pss": 0.05, "startup.total": 0.25}
    assert gate.chosen("memory.pss:5%") == {"memory.pss": told["memory.pss"]}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "no threshold is named"),
        ("memory.pss", "is no threshold"),
        ("memory.pss:", "is no threshold"),
        ("memory.pss:-5%", "is no threshold"),
        ("memory.pss:nan", "is no threshold"),
        ("memory.psss:5%", "unknown metric 'memory.psss'"),
        ("host.load:5%", "neither better nor worse"),
    ],
)
def test_what_is_no_threshold_is_one_line(text: str, told: str) -> None:
    with pytest.raises(BadInput, match=told) as refused:
        gate.parse(text)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("[tool.weighbridge]\ngate = 5\n", "gate is no table"),
        ('[tool.weighbridge.gate]\n"memory.pss" = {treshold = 1}\n', "unknown"),
        ('[tool.weighbridge.gate]\n"memory.pss" = true\n', "is no threshold"),
        ('[tool.weighbridge.gate]\n"memory.pss" = {floor = "5 apples"}\n', "apples"),
        ('[tool.weighbridge.gate]\n"startup.total" = {floor = "5 apples"}\n', "is no floor"),
        ("[tool.weighbridge.gate\n", "pyproject.toml"),
        (f"[tool]\na = {'[' * 5000}", r"pyproject\.toml: nested deeper than"),
        (f"tool.weighbridge.gate{'.a' * 5000} = 1", r"pyproject\.toml: nested deeper than"),
        (f"[tool]\na = {'9' * 5000}", r"pyproject\.toml: .*4300 digits"),
    ],
)
def test_what_a_project_says_wrongly_is_one_line(tmp_path: Path, content: str, told: str) -> None:
    project = tmp_path / "pyproject.toml"
    project.write_text(content)
    with pytest.raises(BadInput, match=told):
        gate.configured(None, project)
