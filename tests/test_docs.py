"""What the documentation shows is what the program prints, and what it points to is there.

After a new results/sample.jsonl, machines.jsonl, lab/, selfbench.json or comparison.jsonl.gz: `.venv/bin/python
tests/test_docs.py` writes the README's table, the committed reports and a picture of the first screen, the figures of
docs/PERFORMANCE.md, what docs/LAB.md found and the comparison in docs/CI.md.
"""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from dataclasses import replace
from itertools import product
from pathlib import Path
from statistics import median

import msgspec
import pytest
from rich.console import Console

from harness import comparison, gate
from harness.report import compared, markdown, tables, terminal
from harness.report.formats import write
from harness.report.summary import counted, summarize
from harness.stats import compare
from harness.stats.estimate import ratio_interval
from harness.store import Result, amount, read
from harness.vm import profile
from harness.wording import NONE, times
from lab import machine, proof
from lab.inside import KVM, TCG
from selfbench import rounds
from selfbench.document import Selfbench
from selfbench.document import table as figures_table
from selfbench.proofs.__main__ import RESULT
from selfbench.proofs.finding import Proofs
from selfbench.proofs.finding import table as proofs_table
from tests.browser import chromium, opened

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
SAMPLE = ROOT / "results/sample.jsonl"
REPORT = ROOT / "reports/sample"
FORMATS = ("html", "md")
SCREEN = {"width": 1280, "height": 740}
PERFORMANCE = ROOT / "docs/PERFORMANCE.md"
SELFBENCH = ROOT / "results/selfbench.json"
FIGURES = re.compile(r"(<!-- figures: [^\n]*-->\n).*?(<!-- /figures -->)", re.DOTALL)
TABLE = re.compile(r"(<!-- table: [^\n]*-->\n).*?(<!-- /table -->)", re.DOTALL)
CI = ROOT / "docs/CI.md"
COMPARISON = ROOT / "results/comparison.jsonl.gz"
SHOWN = re.compile(r"(<!-- (markdown|junit|json|rounds): [^\n]*-->\n).*?(<!-- /\2 -->)", re.DOTALL)
METHOD = ROOT / "docs/METHOD.md"
PROVED = re.compile(r"(<!-- proofs: [^\n]*-->\n).*?(<!-- /proofs -->)", re.DOTALL)
MACHINES = ROOT / "results/machines.jsonl"
MACHINES_REPORT = ROOT / "reports/machines"
ORDINARY = "libvirt/pc"
LAB = ROOT / "docs/LAB.md"
LAB_RESULTS = ROOT / "results/lab"
LAB_CAMPAIGNS = [LAB_RESULTS / name for name in (KVM, TCG)]
LAB_REPORT = ROOT / "reports/lab"
FOUND = re.compile(r"(<!-- lab: [^\n]*-->\n).*?(<!-- /lab -->)", re.DOTALL)
WEIGHED = re.compile(r"(<!-- machines: [^\n]*-->\n).*?(<!-- /machines -->)", re.DOTALL)
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


def in_ci(shown: str) -> str:
    """What the program makes of the recorded comparison, as docs/CI.md has it."""
    result = read(COMPARISON)
    match shown:
        case "markdown":
            return compared.markdown(comparison.interleaved(result, gate.default()))
        case "junit":
            told = compared.junit(comparison.interleaved(result, gate.parse("memory.pss:20%")))
            return f"```xml\n{told}```\n"
        case "json":
            told = compared.as_json(comparison.interleaved(result, gate.default()))
            return f"```json\n{json.dumps(json.loads(told)['comparisons'][0], indent=1)}\n```\n"
        case _:
            return "\n".join(rounds.table(result)) + "\n"


def with_comparison(text: str) -> str:
    return SHOWN.sub(lambda found: f"{found[1]}\n{in_ci(found[2])}\n{found[3]}", text)


def test_what_ci_is_shown_to_say_is_what_the_program_says() -> None:
    text = CI.read_text()
    assert [found[2] for found in SHOWN.finditer(text)] == ["markdown", "junit", "json", "rounds"]
    assert text == with_comparison(text), f"run .venv/bin/python {Path(__file__).name}"


def test_a_table_of_rounds_says_of_those_recorded_what_the_gate_says() -> None:
    result = read(COMPARISON)
    judged = comparison.interleaved(result, gate.default()).comparisons
    found = {each.metric + each.target: each.smallest for each in judged}
    changes = rounds.changes(result)
    assert len(changes) == 9
    for (metric, target, _), changed in changes.items():
        threshold = gate.default()[metric].relative
        smallest = rounds.smallest(changed, len(changed), threshold, compare.ALPHA / len(changes))
        assert smallest == pytest.approx(found[metric + target], rel=1e-9)


def test_a_table_of_rounds_takes_a_campaign_of_two_sides() -> None:
    argv = [sys.executable, "-m", "selfbench.rounds", str(SAMPLE)]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert re.fullmatch(r"selfbench: .* holds no rounds of two sides: .*\n", done.stderr)


def test_the_thresholds_that_ci_is_shown_are_some(tmp_path: Path) -> None:
    found = re.search(r"^```toml\n(.*?)^```$", CI.read_text(), re.DOTALL | re.MULTILINE)
    assert found
    project = tmp_path / "pyproject.toml"
    project.write_text(found[1])
    assert gate.configured(project=project) == gate.default() | {
        "startup.total": gate.Threshold(0.15, 0.0005),
        "memory.pss": gate.Threshold(0.05, 2**20),
        "cpu.start": gate.Threshold(0.2, 0.001),
    }


def test_the_readme_shows_the_table_that_the_program_prints() -> None:
    found = TABLE.search(README.read_text())
    assert found
    assert found[0] == f"{found[1]}{table()}{found[2]}", f"run .venv/bin/python {Path(__file__).name}"


def test_the_figures_are_those_of_the_committed_result() -> None:
    found = FIGURES.search(PERFORMANCE.read_text())
    assert found
    assert found[0] == f"{found[1]}{figures()}{found[2]}", f"run .venv/bin/python {Path(__file__).name}"


def proved() -> str:
    """What `python -m selfbench.proofs` prints of its committed result, and how to come to it."""
    proofs = msgspec.json.decode((ROOT / RESULT).read_bytes(), type=Proofs)
    return f"\n`{' '.join(proofs.command)}`:\n\n{proofs_table(proofs)}\n"


def test_the_proofs_are_those_of_the_committed_result() -> None:
    found = PROVED.search(METHOD.read_text())
    assert found
    assert found[0] == f"{found[1]}{proved()}{found[2]}", f"run .venv/bin/python {Path(__file__).name}"


def machines() -> str:
    """What each machine costs, and how much of that the ordinary one does."""
    campaign = read(MACHINES)
    (summary,) = summarize([campaign]).campaigns
    rows = {(row.target, row.metric): row for row in summary.rows}
    starts = {target: by_round for target, _, metric, by_round in _launches(campaign) if metric == "startup.total"}
    lines = ["| target | start-up | of `libvirt/pc` | memory, PSS | RAM touched | disk, one more | disk, shared |"]
    lines.append("| --- " * 7 + "|")
    for target in campaign.targets:
        cells = [tables.value(rows[target.target, "startup.total"])]
        ratio = ratio_interval(starts[target.target], starts[ORDINARY])
        cells.append(times(ratio) if ratio else NONE)
        cells.append(tables.value(rows[target.target, "memory.pss"]))
        cells.append(touched(campaign, target.target))
        cells += [tables.value(rows[target.target, metric]) for metric in ("disk.instance", "disk.shared")]
        lines.append(f"| `{target.target}` | {' | '.join(cells)} |")
    return "\n" + "\n".join(lines) + "\n"


def _launches(campaign: Result) -> list[tuple[str, str, str, dict[int, float]]]:
    found: dict[tuple[str, str, str], dict[int, float]] = {}
    for run in counted(campaign):
        if (value := amount(run, "startup.total")) is not None:
            found.setdefault((run.target, run.workload, "startup.total"), {})[run.round] = value
    return [(*key, by_round) for key, by_round in found.items()]


def touched(campaign: Result, target: str) -> str:
    """The median of the guest's RAM that was in memory at rest, of what it was given."""
    shares = [
        (sample.value or 0) / run.limits["memory"].asked
        for run in counted(campaign)
        for sample in run.samples
        if (run.target, sample.metric, sample.group) == (target, "memory.rss", "guest")
    ]
    return f"{median(shares):.0%}" if shares else NONE


def test_the_machines_are_those_of_the_committed_campaign() -> None:
    found = WEIGHED.search(PERFORMANCE.read_text())
    assert found
    assert found[0] == f"{found[1]}{machines()}{found[2]}", f"run .venv/bin/python {Path(__file__).name}"


def test_every_machine_is_in_the_committed_campaign() -> None:
    campaign = read(MACHINES)
    named = {f"{backend}/{name}" for backend in ("libvirt", "qemu") for name in profile.names(backend)}
    assert named <= {target.target for target in campaign.targets}
    assert [run.error for run in campaign.runs if not run.ok] == []
    starts = {target: by_round for target, _, _, by_round in _launches(campaign)}
    ratios = {target: ratio_interval(starts[target], starts[ORDINARY]) for target in starts}
    for target, most in {"libvirt/direct": 0.65, "libvirt/snapshot": 0.35, "qemu/snapshot": 0.15}.items():
        ratio = ratios[target]
        assert ratio is not None and ratio.ratio <= most, target


def in_lab() -> str:
    """What the lab found, and that it was KVM."""
    about = json.loads((LAB_RESULTS / "lab.json").read_text())
    headline = markdown.table(tables.headline(summarize([read(each) for each in LAB_CAMPAIGNS])))
    steps = ", ".join(f"{step['name']} {step['seconds']:.0f} s" for step in about["steps"])
    proven, minutes = proof.of(LAB_RESULTS, machine.NAMED), about["seconds"] / 60
    told = f"Proof: {proven}. All of it took {minutes:.0f} min; in the lab: {steps}."
    return "\n" + re.sub(r"^- ", "", headline.replace("\n- ", "\n\n"), flags=re.MULTILINE) + f"\n\n{told}\n"


def test_the_lab_is_shown_as_it_was() -> None:
    found = FOUND.search(LAB.read_text())
    assert found
    assert found[0] == f"{found[1]}{in_lab()}{found[2]}", f"run .venv/bin/python {Path(__file__).name}"


REPORTS = {REPORT: [SAMPLE], MACHINES_REPORT: [MACHINES], LAB_REPORT: LAB_CAMPAIGNS}


@pytest.mark.long
@pytest.mark.parametrize("report", REPORTS, ids=lambda path: path.name)
def test_a_committed_report_is_what_the_program_writes(tmp_path: Path, report: Path) -> None:
    write([read(source) for source in REPORTS[report]], tmp_path, FORMATS)
    for name in ("index.html", "report.md"):
        shown, committed = ((folder / name).read_text("utf-8") for folder in (tmp_path, report))
        assert without_data(shown) == without_data(committed), f"{name}: run .venv/bin/python {Path(__file__).name}"


def without_data(page: str) -> str:
    """What is compressed may differ from one zlib to the next."""
    return re.sub(r"base64,[A-Za-z0-9+/=]{100,}", "", page)


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
    PERFORMANCE.write_text(WEIGHED.sub(lambda found: found[1] + machines() + found[2], PERFORMANCE.read_text()))
    METHOD.write_text(PROVED.sub(lambda found: found[1] + proved() + found[2], METHOD.read_text()))
    CI.write_text(with_comparison(CI.read_text()))
    LAB.write_text(FOUND.sub(lambda found: found[1] + in_lab() + found[2], LAB.read_text()))
    for report, sources in REPORTS.items():
        write([read(source) for source in sources], report, FORMATS)
    with chromium() as browser, opened(browser, REPORT / "index.html", viewport=SCREEN) as seen:
        seen.page.screenshot(path=REPORT / "page.png")


if __name__ == "__main__":
    regenerate()
