"""What is said of a comparison: the first line, and forms that no name can break."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import xmlschema
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from harness.comparison import Compared
from harness.gate import Threshold
from harness.report.compared import COLUMNS, FORMATS, as_json, first_line, junit, markdown, text
from harness.verdict import Comparison, Verdict, Weighed
from harness.wording import line

JENKINS = xmlschema.XMLSchema(str(Path(__file__).parent / "jenkins-junit.xsd"))
HOSTILE = (
    "a|b", "a\\|b", "a\nb", "a\r\n\r\nb", "`a`", "**a**", "<img src=x>", "</details>", "[a](http://b)", "&lt;", "a & b",
    "\"a' ]]>", "🚛", "a\x00b\x1b[31mc", "$a$", "_a_", "~~a~~", "\\", "|", "[/x]", ":tada:", "",
)  # fmt: skip
NAMES = st.one_of(st.sampled_from(HOSTILE), st.text(st.characters(exclude_categories=["Cs"])))


def found(verdict: Verdict = "regressed", **others: Any) -> Comparison:
    """Memory of docker with hello, and 12 % more of it."""
    told: dict[str, Any] = {
        "workload": "hello",
        "target": "docker",
        "metric": "memory.pss",
        "unit": "B",
        "threshold": Threshold(0.05, 2**18),
        "base": Weighed(10 * 2**20, 30, 0),
        "head": Weighed(11.2 * 2**20, 30, 0),
        "change": 0.12,
        "low": 0.11,
        "high": 0.13,
        "n": 30,
        "p": 0.001,
        "smallest": 0.06,
        "reason": "about 40 rounds would decide" if verdict == "undecided" else "",
    }
    return Comparison(**{**told, "verdict": verdict, **others})


def of(*comparisons: Comparison, **others: Any) -> Compared:
    told: dict[str, Any] = {"design": "interleaved", "base": ("1",), "head": ("1",), "missing": (), "notes": ()}
    return Compared(**{**told, "comparisons": comparisons, **others})


# The first line.


def test_it_says_what_got_worse_and_by_how_much() -> None:
    regressed = of(found("unchanged", target="host"), found())
    told = "Regressed: memory.pss of docker with hello +12.0 % [+11.0 %, +13.0 %] (10.0 MiB → 11.2 MiB)"
    assert first_line(regressed) == told
    assert text(regressed).splitlines()[0] == told
    assert markdown(regressed).splitlines()[0] == f"**{told}**"
    assert json.loads(as_json(regressed))["first_line"] == told


def test_of_many_it_names_three() -> None:
    told = first_line(of(*(found(target=f"target{number}") for number in range(5))))
    assert [f"target{number}" in told for number in range(5)] == [True, True, True, False, False]
    assert told.endswith("; and 2 more")


def test_where_nothing_got_worse_it_says_what_is_not_known() -> None:
    compared = of(found("unchanged"), found("unchanged"), found("undecided"), found("improved"))
    assert first_line(compared) == "Nothing regressed: 2 unchanged, 1 improved, 1 undecided"


def test_launches_of_the_head_that_failed_are_in_it() -> None:
    failed = Weighed(1.0, 28, 2)
    told = first_line(of(found("unchanged", head=failed), found("unchanged", metric="startup.total", head=failed)))
    assert told == "Nothing regressed: 2 unchanged. 2 launches of the head failed"


def test_what_is_no_ratio_is_in_its_unit() -> None:
    appeared = found(relative=False, change=2.0**20, low=2.0**19, high=2.0**21, base=Weighed(0.0, 30, 0))
    assert "+1.00 MiB [+512 KiB, +2.00 MiB] (0 B → 11.2 MiB)" in first_line(of(appeared))


@pytest.mark.parametrize("name", ["[/x]", "[bold]", ":tada:"])
def test_a_terminal_shows_a_name_as_it_is(name: str) -> None:
    assert text(of(found(target=name))).count(name) == 2


# Markdown.


def cells(told: str) -> list[list[str]]:
    """The rows of all tables as a parser of GitHub's Markdown sees them; that no cell holds markup is asserted."""
    found: list[list[str]] = []
    tokens = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(told)
    for before, token in pairwise(tokens):
        if before.type == "tr_open":
            found.append([])
        if before.type in ("td_open", "th_open"):
            assert {child.type for child in token.children or ()} <= {"text", "text_special"}, token.content
            found[-1].append("".join(child.content for child in token.children or ()))
    return found


@given(NAMES, NAMES)
def test_no_name_can_break_the_table_or_become_markup(workload: str, target: str) -> None:
    regressed, undecided = found(workload=workload, target=target), found("undecided", target=target)
    told = markdown(of(regressed, undecided, notes=(target,), missing=(workload,)))
    expected = [line(regressed.name), line(undecided.name)]
    assert [row[0] for row in cells(told)] == ["Metric", *expected] * 2
    assert {len(row) for row in cells(told)} == {len(COLUMNS)}
    left = re.sub(r"\\[!-/:-@\[-`{-~]", "", told)  # what Markdown takes for text is left out
    assert left.count("<") == 4  # <details><summary></summary></details>
    assert left.count("**") == 2
    assert not set("`$~&") & set(left)
    assert "](" not in left
    plain = markdown(of(found(), found("undecided"), notes=("a",), missing=("a",)))
    assert told.count("\n") == plain.count("\n")


def test_what_is_notable_comes_first_with_its_reason_and_the_rest_is_folded() -> None:
    compared = of(found("unchanged", target="host"), found("undecided", target="namespace"), found())
    shown, _, folded = markdown(compared).partition("<details>")
    assert [row[0].split()[2] for row in cells(shown)[1:]] == ["docker", "namespace"]
    assert "is undecided: about 40 rounds would decide; +6.0 % would have been found 4 times in 5" in shown
    assert [row[0].split()[2] for row in cells(folded)[1:]] == ["host", "namespace", "docker"]


def test_what_was_not_measured_is_not_folded() -> None:
    shown = markdown(of(found("unchanged"), missing=("head has not measured docker with hello",))).partition("<det")[0]
    assert "- head has not measured docker with hello" in shown


# JUnit.


def junit_of(compared: Compared) -> ET.Element:
    """What a program reads that takes UTF-8, after Jenkins' schema was asked."""
    told = junit(compared).encode()
    JENKINS.validate(told)
    return ET.fromstring(told)


@given(NAMES, NAMES, st.sampled_from(["regressed", "improved", "unchanged", "undecided"]))
def test_junit_is_valid_whatever_the_names(workload: str, target: str, verdict: Verdict) -> None:
    case = found(verdict, workload=workload, target=target, reason=target)
    suites = junit_of(of(case, replace(case, head=Weighed(None, 0, 3)), notes=(workload,), missing=(target,)))
    assert [each.get("name") for each in suites.iter("testcase")] == ["memory.pss", "memory.pss", "launches"]


def test_a_regression_is_a_failure_and_what_is_undecided_is_skipped() -> None:
    verdicts: tuple[Verdict, ...] = ("regressed", "improved", "unchanged", "undecided")
    suites = junit_of(of(*(found(verdict, target=verdict) for verdict in verdicts)))
    outcomes = {case.get("classname"): [child.tag for child in case if child.tag != "system-out"] for case in suites[0]}
    outcomes.pop(None)  # the suite's own system-out
    assert outcomes == {
        "weighbridge.regressed.hello": ["failure"],
        "weighbridge.improved.hello": [],
        "weighbridge.unchanged.hello": [],
        "weighbridge.undecided.hello": ["skipped"],
    }
    failure = suites.find(".//failure")
    assert failure is not None
    assert "+12.0 % [+11.0 %, +13.0 %] (10.0 MiB → 11.2 MiB)" in (failure.text or "")
    counts = [suites[0].get(name) for name in ("tests", "failures", "errors", "skipped")]
    assert counts == ["4", "1", "0", "1"]


def test_launches_that_failed_are_one_error_of_their_target() -> None:
    failed = Weighed(1.0, 28, 2)
    compared = of(found("unchanged", head=failed), found("unchanged", metric="startup.total", head=failed))
    suites = junit_of(compared)
    assert [(suites.get(name), suites[0].get(name)) for name in ("tests", "errors")] == [("3", "3"), ("1", "1")]
    assert [error.get("message") for error in suites.iter("error")] == ["2 launches of the head failed"]


def test_the_schema_would_tell() -> None:
    told = junit(of(found()))
    for wrong in (
        told.replace('name="memory.pss"', ""),
        told.replace("<failure", "<fault").replace("/failure", "/fault"),
    ):
        with pytest.raises(xmlschema.XMLSchemaValidationError):
            JENKINS.validate(wrong.encode())


# All of them.


@pytest.mark.parametrize("name", FORMATS)
@given(NAMES, NAMES)
def test_nothing_moves_a_cursor_and_a_program_reads_what_was_written(name: str, workload: str, target: str) -> None:
    told = FORMATS[name](of(found(workload=workload, target=target), notes=(workload,)))
    assert told.endswith("\n")
    if name == "json":
        assert json.loads(told)["comparisons"][0]["workload"] == workload
    else:
        assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]", told)
