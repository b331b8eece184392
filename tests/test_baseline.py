"""Baselines: what is kept of which kind of host, and which campaigns a head is held against."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness import baseline, store
from harness.errors import BadInput, Incomparable
from harness.model import Footer
from tests.campaigns import write

SERIES = {None: {"docker": [0.2, 0.21, 0.19]}}


def test_campaigns_are_kept_as_they_are_by_kind_of_host(tmp_path: Path) -> None:
    files = [write(tmp_path / f"{number}.jsonl", SERIES) for number in range(3)]
    files.append(write(tmp_path / "other.jsonl", SERIES, gating={"cores": 64}))
    added, removed = baseline.add(files, tmp_path / "baseline")
    assert removed == []
    assert len({copy.parent for copy in added}) == 2
    assert store.read(added[0]).runs == store.read(files[0]).runs
    assert "x86-64-64-example" in added[-1].parent.name


def test_the_newest_stay(tmp_path: Path) -> None:
    files = [write(tmp_path / f"2026112{number}-000000-aa.jsonl", SERIES) for number in range(7)]
    baseline.add(files[:4], tmp_path / "baseline", newest=5)
    added, removed = baseline.add(files[4:], tmp_path / "baseline", newest=5)
    assert [copy.name for copy in removed] == ["20261120-000000-aa.jsonl.gz", "20261121-000000-aa.jsonl.gz"]
    kept, _ = baseline.load(tmp_path / "baseline", store.read(files[0]))
    assert [result.header.campaign for result in kept] == [file.stem for file in files[2:]]
    assert all(copy.exists() for copy in added)
    again, _ = baseline.add(files[4:], tmp_path / "baseline", newest=5)
    assert again == added
    assert added[0].read_bytes() == again[0].read_bytes()


def test_another_kind_of_host_is_not_comparable_by_name(tmp_path: Path) -> None:
    baseline.add([write(tmp_path / "a.jsonl", SERIES)], tmp_path / "baseline")
    head = store.read(write(tmp_path / "b.jsonl", SERIES, gating={"kernel": "6.9"}))
    with pytest.raises(Incomparable, match=r"kernel: 6\.1 or 6\.9"):
        baseline.load(tmp_path / "baseline", head)
    kept, _ = baseline.load(tmp_path / "baseline", head, ["kernel"])
    assert len(kept) == 1


def test_campaigns_of_another_engine_are_left_out_and_noted(tmp_path: Path) -> None:
    old = write(tmp_path / "old.jsonl", SERIES, version="20.10")
    new = write(tmp_path / "new.jsonl", SERIES, version="27.0")
    baseline.add([old, new], tmp_path / "baseline")
    kept, notes = baseline.load(tmp_path / "baseline", store.read(new))
    assert [result.header.campaign for result in kept] == ["new"]
    assert "docker version: 20.10 or 27.0" in notes[0]
    head = store.read(write(tmp_path / "head.jsonl", SERIES, version="28.0"))
    with pytest.raises(Incomparable, match="docker version"):
        baseline.load(tmp_path / "baseline", head)
    kept, notes = baseline.load(tmp_path / "baseline", head, ["docker version"])
    assert (len(kept), notes) == (2, [])


def test_a_folder_of_campaigns_is_taken_whole(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    for number in range(3):
        write(folder / f"{number}.jsonl", SERIES)
    (folder / "notes.txt").write_text("not a campaign")
    kept, notes = baseline.load(folder)
    assert ([result.header.campaign for result in kept], notes) == (["0", "1", "2"], [])


@pytest.mark.parametrize(
    ("footer", "told"),
    [
        (Footer(False, "the budget of 5 s was used up", 3, 0), "budget"),
        (Footer(True, None, 3, 1), "1 of its runs failed"),
    ],
)
def test_what_is_not_whole_is_no_baseline(tmp_path: Path, footer: Footer, told: str) -> None:
    whole = write(tmp_path / "whole.jsonl", SERIES)
    cut = write(tmp_path / "cut.jsonl", SERIES, footer=footer)
    with pytest.raises(BadInput, match=told):
        baseline.add([whole, cut], tmp_path / "baseline")
    assert not (tmp_path / "baseline").exists()


def test_an_empty_or_missing_folder_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="holds no campaign"):
        baseline.load(tmp_path)
    with pytest.raises(BadInput, match="cannot read"):
        baseline.load(tmp_path / "nowhere")


@pytest.mark.parametrize("content", [b"", b"no gzip", b"\x1f\x8b\x08\x00cut"])
def test_what_is_no_whole_gzip_file_is_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.jsonl.gz").write_bytes(content)
    with pytest.raises(BadInput, match=r"a\.jsonl\.gz"):
        store.read(tmp_path / "a.jsonl.gz")
