"""Pages in another language: all of our words, none of anybody else's."""

from __future__ import annotations

import re
import string
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from harness import comparison, gate, store
from harness.cli.telling import write_report
from harness.model import Failure
from harness.report import compared_page, html
from harness.report.language import CODES, Language, language, says_anything
from harness.report.summary import summarize
from harness.wording import Words, listed
from tests.weighing import full
from tests.words import templates

RESULTS = Path(__file__).parent.parent / "results"
GOLDEN = Path(__file__).parent / "golden" / "weighbridge-1.jsonl"
OTHERS = sorted(CODES.keys() - {"en"})


def fields(template: str) -> set[str]:
    """What a template fills in, and how it is formatted."""
    return {f"{name}:{spec}" for _, name, spec, _ in string.Formatter().parse(template) if name is not None}


@pytest.mark.parametrize("code", OTHERS)
def test_a_catalogue_has_all_of_our_words_and_no_others(code: str) -> None:
    catalogue, ours = language(code).catalogue, templates()
    assert len(ours) > 200
    assert not ours - catalogue.keys(), "these are missing"
    assert not {template for template in catalogue.keys() - ours if says_anything(template)}, "nobody says these"
    for english, other in catalogue.items():
        assert fields(english) == fields(other), english


@pytest.mark.parametrize("code", OTHERS)
def test_nothing_of_a_page_is_left_in_english(code: str) -> None:
    spoken = language(code)
    fresh = Language(code, spoken.catalogue)
    for result in (store.read(RESULTS / "sample.jsonl"), store.read(GOLDEN), full(3, cold="image")):
        page = html.render(summarize([result]), [result], fresh)
        assert f'<html lang="{CODES[code]}">' in page
    two = store.read(RESULTS / "comparison.jsonl.gz")
    compared_page.render(comparison.interleaved(two, gate.default()), fresh)
    assert not fresh.lacking


def test_words_are_put_into_another_language_with_what_they_are_filled_with() -> None:
    inner = Words("{count} failed", count=3)
    outer = Words("no: {why}", why=inner)
    assert outer == "no: 3 failed"
    assert language("en")(outer) == outer
    assert language("zh")(outer) == "否\uff1a3 次失败"
    assert language("zh")(listed([Words("yes"), "yes"])) == "是、yes"


def test_punctuation_is_that_of_the_language() -> None:
    chinese = language("zh")
    noun = Words("{noun} ({ran})", noun=Words("the VM"), ran="KVM")
    assert chinese(noun) == "虚拟机\uff08KVM\uff09"
    assert says_anything("{noun} ({ran})") and not says_anything("{target} · {ran}")
    compared = comparison.interleaved(store.read(RESULTS / "comparison.jsonl.gz"), gate.default())
    page = compared_page.render(compared, chinese)
    assert "startup.total 10 % 且 500 µs、memory.pss 5 % 且 256 KiB" in page
    first, *_ = re.findall("<h1>(.*?)</h1>", page)
    assert re.match("退化\uff1ahost .*\uff0810.2 ms → 18.9 ms\uff09\uff1bhost", first) and not re.search("[;(]", first)


def test_what_was_found_inside_and_failed_is_in_chinese() -> None:
    result = full(2)
    failed = [
        msgspec.structs.replace(run, ok=False, error=Failure("start", "EngineError", "no"))
        for run in result.runs
        if run.target == "host"
    ]
    result = replace(result, runs=[*failed, *(run for run in result.runs if run.target != "host")])
    page = html.render(summarize([result]), [result], language("zh"))
    assert "<td>0\uff08预热\uff09</td>" in page and "<td>1\uff08测量\uff09</td>" in page
    assert 'data-target="docker">过滤\uff08filter\uff09<' in page and 'data-target="namespace">无<' in page


@pytest.mark.long
def test_what_stays_english_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sample = RESULTS / "sample.jsonl"
    write_report([sample], tmp_path, "csv,md", "zh")
    assert "--lang applies to the HTML page only: md stay in English" in " ".join(capsys.readouterr().err.split())
    for formats, code in (("csv,html", "zh"), ("md", "en")):
        write_report([sample], tmp_path, formats, code)
        assert "English" not in capsys.readouterr().err


def test_what_a_catalogue_lacks_is_shown_in_english_and_noted() -> None:
    spoken = Language("zh", {})
    assert spoken(Words("{count} of them", count=2)) == "2 of them"
    assert spoken.lacking == {"{count} of them"}


def test_foreign_text_is_never_translated() -> None:
    result = full(2)
    page = html.render(summarize([result]), [result], language("zh"))
    assert re.search(r'data-workload="hello"', page) and re.search("无 KVM.{1,5}/dev/kvm is not there", page)
    assert language("zh")("Target") == "Target"
    assert language("zh")(Words("a title with a {")) == "a title with a {"
