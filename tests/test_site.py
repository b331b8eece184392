"""`weighbridge site`: an index of what there is, and of nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness import comparison, gate, store
from harness.errors import BadInput
from harness.report import compared_page, site
from harness.report.formats import write
from harness.report.language import language

RESULTS = Path(__file__).parent.parent / "results"
GOLDEN = Path(__file__).parent / "golden" / "weighbridge-1.jsonl"


def test_the_newest_report_comes_first(tmp_path: Path) -> None:
    write([store.read(GOLDEN)], tmp_path / "older", ["html"])
    write([store.read(GOLDEN)], tmp_path / "b/deeper", ["html"], "zh")
    (tmp_path / "notes.html").write_text("<title>somebody else's</title>")
    newer = (
        (tmp_path / "b/deeper/index.html")
        .read_text("utf-8")
        .replace('name="date" content="2', 'name="date" content="3')
    )
    (tmp_path / "b/deeper/index.html").write_text(newer, "utf-8")
    index, count = site.write(tmp_path)
    text = index.read_text("utf-8")
    assert (index, count) == (tmp_path / "index.html", 2)
    assert text.index("b/deeper/index.html") < text.index("older/index.html")
    assert "notes.html" not in text
    assert site.write(tmp_path, language("zh"))[1] == 2, "its own index is none of them"


def test_an_index_says_how_many_there_are_and_of_when(tmp_path: Path) -> None:
    two = store.read(RESULTS / "comparison.jsonl.gz")
    compared = compared_page.render(comparison.interleaved(two, gate.default()))
    (tmp_path / "a.html").write_text(compared, "utf-8")
    assert f'<p class="footing">1 report, the newest of {two.header.started[:10]}</p>' in indexed(tmp_path)
    (tmp_path / "b.html").write_text(compared.replace('name="date"', 'name="other"'), "utf-8")
    assert "2 reports, the newest of" in indexed(tmp_path)
    (tmp_path / "a.html").unlink()
    assert '<p class="footing">1 report</p>' in indexed(tmp_path)


def indexed(folder: Path) -> str:
    return site.write(folder)[0].read_text("utf-8")


def test_an_index_escapes_what_it_reads(tmp_path: Path) -> None:
    report = tmp_path / "<b>&" / "index.html"
    write([store.read(GOLDEN)], report.parent, ["html"])
    text = report.read_text("utf-8").replace(
        'name="description" content="', 'name="description" content="&lt;script&gt;'
    )
    report.write_text(text, "utf-8")
    index, _ = site.write(tmp_path)
    page = index.read_text("utf-8")
    assert "&lt;script&gt;" in page and page.count("<script>") == 1 and "%3Cb%3E%26/index.html" in page


def test_a_folder_without_a_report_is_refused(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(BadInput, match="holds no report"):
            site.write(folder)


def test_somebody_elses_index_is_never_overwritten(tmp_path: Path) -> None:
    write([store.read(GOLDEN)], tmp_path, ["html"])
    before = (tmp_path / "index.html").read_bytes()
    with pytest.raises(BadInput, match="no index of ours"):
        site.write(tmp_path)
    assert (tmp_path / "index.html").read_bytes() == before


def test_data_too_many_for_a_page_are_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from harness.report import attached

    monkeypatch.setattr(attached, "MOST_RUNS", 3)
    page, beside = write([store.read(GOLDEN)], tmp_path, ["html"])
    assert beside.name == "data-1.jsonl.gz" and store.read(beside).runs == store.read(GOLDEN).runs
    assert 'href="data-1.jsonl.gz"' in page.read_text("utf-8")
    assert "base64," not in page.read_text("utf-8").partition('<section id="data">')[2]
