"""All of our English words, as they stand in the source: what a page in another language has to have."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

from harness.meters.isolation import ISOLATES, SECCOMP
from harness.metrics import METRICS
from harness.model import Phase
from harness.report import html
from harness.report.language import says_anything
from harness.verdict import Verdict

ELSEWHERE = (
    "own", "host's", "before", "between", "after", "Targets", "Workloads", "Metrics", "{some}, {more}",
    "{some}; {more}",
)  # fmt: skip
HARNESS = Path(__file__).parent.parent / "harness"
_IN_TEMPLATES = re.compile(r"""_\(("(?:[^"\\]|\\.)*")""")


def templates() -> set[str]:
    """The literals that are given to Words(), the names of metrics and the like, and those of the pages' templates."""
    found = {metric.title for metric in METRICS.values()} | {
        *ISOLATES.values(),
        *SECCOMP.values(),
        *get_args(Phase),
        *get_args(Verdict),
    }
    found |= {metric.by for metric in METRICS.values() if metric.by}
    found |= {metric.by.capitalize() for metric in METRICS.values() if metric.by}
    found |= {told for _, told in html.SECTIONS} | {*ELSEWHERE}
    for name in ("doubts.py", "verdict.py", "comparison.py", "comparable.py", "baseline.py"):
        path = HARNESS / name
        found |= set(_in_source(ast.parse(path.read_text("utf-8"))))
    for path in (HARNESS / "wording.py", *HARNESS.glob("report/*.py")):
        found |= set(_in_source(ast.parse(path.read_text("utf-8"))))
    for path in HARNESS.glob("report/templates/*.html"):
        found |= {ast.literal_eval(literal) for literal in _IN_TEMPLATES.findall(path.read_text("utf-8"))}
    return {template for template in found if says_anything(template)}


def _in_source(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and node.args and _called(node) in ("Words", "say"):
            yield from _literals(node.args[0])
        # What is told in one of two ways is first put into `told`; `columns` are mapped to Words.
        if isinstance(node, ast.Assign | ast.AnnAssign):
            names = {each.id for each in ast.walk(node) if isinstance(each, ast.Name)}
            if "told" in names:
                yield from (literal for literal in _literals(node) if "{" in literal)
            if "columns" in names:
                yield from (literal for literal in _literals(node) if literal[:1].isupper())


def _called(call: ast.Call) -> str:
    return call.func.id if isinstance(call.func, ast.Name) else getattr(call.func, "attr", "")


def _literals(node: ast.AST) -> Iterator[str]:
    for each in ast.walk(node):
        if isinstance(each, ast.Constant) and isinstance(each.value, str):
            yield each.value
