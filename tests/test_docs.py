"""What the documentation shows is what the program prints, and what it points to is there.

After a new results/sample.jsonl or results/selfbench.json: `.venv/bin/python tests/test_docs.py` writes the README's
table, the sample report and the figures of docs/PERFORMANCE.md.
"""

from __future__ import annotations

import io
import re
from dataclasses import replace
from itertools import product
from pathlib import Path

import msgspec
import pytest
from rich.console import Console

from harness.report import terminal
from harness.report.formats import write
from harness.report.summary import summarize
from harness.store import read
from selfbench.document import Selfbench
from selfbench.document import table as figures_table

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
SAMPLE = ROOT / "results/sample.jsonl"
REPORT = ROOT / "reports/sample"
FORMATS = ("md",)
PERFORMANCE = ROOT / "docs/PERFORMANCE.md"
SELFBENCH = ROOT / "results/selfbench.json"
FIGURES = re.compile(r"(<!-- figures: [^\n]*-->\n).*?(<!-- /figures -->)", re.DOTALL)
TABLE = re.compile(r"(<!-- table: [^\n]*-->\n).*?(<!-- /table -->)", re.DOTALL)
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])


def table() -> str:
    """What the terminal shows of the sample's hello, as the README has it."""
    shown, sample = io.StringIO(), read(SAMPLE)
    hello = replace(sample, runs=[run for run in sample.runs if run.workload == "hello"])
    terminal.show(summarize([hello]), Console(file=shown, width=80, color_system=None))
    return "\n" + "".join(f"    {line}".rstrip() + "\n" for line in shown.getvalue().splitlines()) + "\n"


def figures() -> str:
    """What `python -m selfbench` prints of its committed result."""
    return f"\n{figures_table(msgspec.json.decode(SELFBENCH.read_bytes(), type=Selfbench))}\n"


def test_the_readme_shows_the_table_that_the_program_prints() -> None:
    found = TABLE.search(README.read_text())
    assert found
    assert found[0] == f"{found[1]}{table()}{found[2]}", f"run .venv/bin/python {Path(__file__).name}"


def test_the_figures_are_those_of_the_committed_result() -> None:
    found = FIGURES.search(PERFORMANCE.read_text())
    assert found
    assert found[0] == f"{found[1]}{figures()}{found[2]}", f"run .venv/bin/python {Path(__file__).name}"


def test_the_sample_report_is_what_the_program_writes(tmp_path: Path) -> None:
    write([read(SAMPLE)], tmp_path, FORMATS)
    assert (tmp_path / "report.md").read_text() == (REPORT / "report.md").read_text()


def test_the_sample_is_a_whole_default_campaign() -> None:
    sample = read(SAMPLE)
    assert sample.warnings == []
    assert sample.footer is not None
    assert sample.footer.complete
    for target, workload in product(("host", "namespace", "docker", "libvirt/pc"), ("hello", "python", "redis")):
        runs = [run for run in sample.runs if (run.target, run.workload, run.phase) == (target, workload, "measured")]
        assert [run.ok for run in runs] == [True] * 7, (target, workload)
    digests = {(run.workload, run.bundle_sha256, run.facts["bundle"]) for run in sample.runs}
    assert digests == {(built.workload, built.sha256, built.sha256) for built in sample.bundles}
    assert len(digests) == 3


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_what_a_document_links_to_is_there(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", document.read_text()):
        if not target.startswith("http"):
            assert (document.parent / target).exists(), target


@pytest.mark.parametrize(
    ("document", "example"), [("WORKLOADS.md", "example-workload"), ("PYTEST.md", "example-project")]
)
def test_a_document_quotes_its_example_to_the_letter(document: str, example: str) -> None:
    text = (ROOT / "docs" / document).read_text()
    quoted = dict(re.findall(r"^`([^`\n]+)`:\n\n```\w*\n(.*?)^```$", text, re.DOTALL | re.MULTILINE))
    assert quoted == {path.name: path.read_text() for path in (ROOT / "docs" / example).iterdir() if path.is_file()}
    assert len(quoted) >= 3


def regenerate() -> None:
    README.write_text(TABLE.sub(lambda found: found[1] + table() + found[2], README.read_text()))
    PERFORMANCE.write_text(FIGURES.sub(lambda found: found[1] + figures() + found[2], PERFORMANCE.read_text()))
    write([read(SAMPLE)], REPORT, FORMATS)


if __name__ == "__main__":
    regenerate()
