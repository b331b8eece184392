"""Reports: the same truth in every format, nothing made up, and foreign text taken as text."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from statistics import median
from typing import Any
from xml.etree import ElementTree

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.patches import Rectangle
from rich.console import Console

from harness import report, store
from harness.errors import BadInput
from harness.model import Failure, Footer, Run, Sample, TargetRecord
from harness.report import html, markdown, pictures, tables, terminal
from harness.report.rows import Row
from harness.report.summary import Campaign, summarize
from harness.stats.estimate import Ratio, median_interval
from harness.store import Result
from harness.wording import NONE, label, line, measured, quantity, times

GOLDEN = Path(__file__).parent / "golden" / "weighbridge-1.jsonl"
TCG = "QEMU TCG (no KVM: /dev/kvm is not there: the machine does not pass virtualization on)"
HOSTILE = '<script>alert(1)</script> | `x` [a](http://evil.example) & "q" $\\frac$ \x1b[31mred\x1b[0m \x00'


@pytest.fixture(scope="module")
def golden() -> Result:
    return store.read(GOLDEN)


@pytest.fixture(scope="module")
def campaign(golden: Result) -> Campaign:
    return summarize([golden]).campaigns[0]


def changed(result: Result, change: Callable[[Run], Run | None], **fields: Any) -> Result:
    """The result with each run changed, or left out where the change is None."""
    return replace(result, runs=[run for run in map(change, result.runs) if run is not None], **fields)


def row(campaign: Campaign, target: str, metric: str) -> Row:
    (found,) = (row for row in campaign.rows if (row.target, row.metric) == (target, metric))
    return found


def fail(run: Run) -> Run:
    return msgspec.structs.replace(run, ok=False, error=Failure("start", "EngineError", "no"), samples=[])


def blind(run: Run) -> Run:
    """The run as it is where PSS cannot be read."""
    samples = [
        Sample(s.metric, "B", None, s.group, reason="not permitted") if s.metric == "memory.pss" else s
        for s in run.samples
    ]
    return msgspec.structs.replace(run, samples=samples)


def hostile(result: Result) -> Result:
    """Every text that comes from outside, replaced by what would break a page, a table, a terminal or a drawing."""

    def poison(run: Run) -> Run:
        samples = [Sample(s.metric, s.unit, s.value, s.group, HOSTILE, s.reason and HOSTILE) for s in run.samples]
        error = run.error and Failure(HOSTILE, HOSTILE, HOSTILE, f"````\n</pre>{HOSTILE}\n")
        return msgspec.structs.replace(run, samples=samples, error=error, workload=HOSTILE, id=HOSTILE)

    targets = [
        msgspec.structs.replace(t, accelerator_reason=t.accelerator_reason and HOSTILE, profile={HOSTILE: HOSTILE})
        for t in result.targets
    ]
    absent = [msgspec.structs.replace(u, reason=HOSTILE, hint=HOSTILE) for u in result.unavailable]
    header = msgspec.structs.replace(result.header, campaign=HOSTILE, command=[HOSTILE], commit=HOSTILE)
    return changed(result, poison, targets=targets, unavailable=absent, header=header, warnings=[HOSTILE])


def shown(result: Result, width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    terminal.show(summarize([result]), console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


# What is summarized


def test_only_measured_runs_that_succeeded_count(golden: Result, campaign: Campaign) -> None:
    start = row(campaign, "docker", "startup.total")
    ready = [r.mark("ready") for r in golden.runs if r.target == "docker" and r.ok and r.phase == "measured"]
    assert sorted(start.values) == sorted(at for at in ready if at is not None)
    assert start.estimate is not None and start.estimate.median == median(start.values)
    assert (start.estimate.n, start.failed) == (6, 1)
    assert (campaign.measured, campaign.failed) == (27, 1)


def test_memory_is_summed_over_its_groups_and_a_guests_blind_spot_is_skipped(campaign: Campaign) -> None:
    machine = row(campaign, "libvirt/pc", "memory.pss")
    pieces = {piece.name: piece for piece in machine.pieces}
    assert pieces["workload"].median is None and pieces["workload"].reason
    assert pieces["guest"].n == pieces["vmm"].n == 7
    assert machine.estimate is not None and machine.estimate.n == 7
    assert machine.estimate.low < (pieces["guest"].median or 0) + (pieces["vmm"].median or 0) < machine.estimate.high


def test_disk_is_exact_and_the_shared_part_is_weighed_once(campaign: Campaign) -> None:
    instance, shared = row(campaign, "docker", "disk.instance"), row(campaign, "docker", "disk.shared")
    assert instance.estimate == median_interval([69632.0] * 6)
    assert shared.values == (2494464 + 16384,) and shared.failed == 0
    assert {piece.name: piece.median for piece in shared.pieces} == {"layers": 2494464, "image metadata": 16384}


def test_phases_come_in_the_order_of_time(campaign: Campaign) -> None:
    names = [piece.name for piece in row(campaign, "libvirt/pc", "startup.total").pieces]
    assert names == ["overlay", "created", "kernel", "init", "ready"]


def test_ratios_are_to_the_host_and_say_so(golden: Result, campaign: Campaign) -> None:
    assert campaign.reference == "host"
    ratio, own = row(campaign, "docker", "startup.total").ratio, row(campaign, "host", "startup.total").ratio
    assert own is not None and (own.low, own.ratio, own.high) == (1, 1, 1)
    assert ratio is not None and ratio.n == 6 and ratio.low is not None and ratio.high is not None
    assert 50 < ratio.low <= ratio.ratio <= ratio.high < 500


def test_without_host_the_reference_is_userns_chroot_or_none(golden: Result) -> None:
    def rename(run: Run) -> Run:
        return msgspec.structs.replace(run, target="userns-chroot" if run.target == "host" else run.target)

    assert summarize([changed(golden, rename)]).campaigns[0].reference == "userns-chroot"
    without = summarize([changed(golden, lambda run: fail(run) if run.target == "host" else run)]).campaigns[0]
    docker = row(without, "docker", "startup.total")
    assert (without.reference, docker.ratio) == (None, None)
    assert docker.ratio_reason == "no reference: neither host nor userns-chroot has data"


def test_what_could_not_be_had_is_a_dash_with_its_reason_and_never_zero(golden: Result) -> None:
    blinded = changed(golden, blind)
    unread = row(summarize([blinded]).campaigns[0], "namespace", "memory.pss")
    assert (unread.estimate, unread.values, unread.reason) == (None, (), "not permitted")
    assert tables.value(unread) == NONE
    for text in (shown(blinded), markdown.render(summarize([blinded])), html.render(summarize([blinded]))):
        assert NONE in text and "not permitted" in text


def test_a_value_missing_from_some_runs_is_told_beside_the_estimate(golden: Result) -> None:
    some = changed(golden, lambda run: blind(run) if run.round == 2 else run)
    part = row(summarize([some]).campaigns[0], "namespace", "memory.pss")
    assert part.estimate is not None and part.estimate.n == 6
    assert part.reason == "1 of 7 not read: not permitted"


def test_a_target_that_failed_each_time_stays_in_the_report(golden: Result) -> None:
    result = changed(golden, lambda run: fail(run) if run.target == "docker" else run)
    start = row(summarize([result]).campaigns[0], "docker", "startup.total")
    assert (start.estimate, start.failed, start.reason) == (None, 7, "no measured run succeeded")
    assert f"{NONE}, 7 failed" in shown(result)


def test_few_runs_are_printed_with_the_coverage_they_reach(golden: Result) -> None:
    few = changed(golden, lambda run: run if run.round <= 3 else None)
    assert "n=3 (75% only)" in markdown.render(summarize([few]))


def test_the_state_of_a_campaign_is_told(golden: Result) -> None:
    def incomplete(footer: Footer | None) -> str | None:
        return summarize([replace(golden, footer=footer)]).campaigns[0].incomplete

    assert incomplete(golden.footer) is None
    assert incomplete(None) == "it did not come to its end"
    assert (
        incomplete(Footer(False, "the budget of 600 s is spent", 9, 0))
        == "it was cut short: the budget of 600 s is spent"
    )
    assert "it did not come to its end" in shown(replace(golden, footer=None))


def test_runs_of_another_kind_are_never_pooled_with_these(golden: Result) -> None:
    cold = changed(golden, lambda run: msgspec.structs.replace(run, cold=run.round == 4))
    told = summarize([cold]).campaigns[0]
    assert row(told, "host", "startup.total").values == tuple(
        run.marks[2][1] for run in golden.runs if run.target == "host" and run.round not in (0, 4)
    )
    assert told.warnings == ("4 runs (cold, of one side, or of several instances at once) are not in this summary",)


def test_runs_of_other_bytes_are_pointed_out(golden: Result) -> None:
    other = changed(golden, lambda run: msgspec.structs.replace(run, bundle_sha256="00") if run.seq == 9 else run)
    (warning,) = summarize([other]).campaigns[0].warnings
    assert warning.startswith("1 runs did not start the recorded bundle") and golden.runs[8].id in warning


def test_two_campaigns_stand_side_by_side(golden: Result) -> None:
    other = replace(golden, header=msgspec.structs.replace(golden.header, campaign="second"))
    table = tables.headline(summarize([golden, other]))
    assert table.columns[0] == "Campaign"
    assert [cells[0] for cells in table.rows] == [golden.header.campaign] * 4 + ["second"] * 4
    assert all("n=14" not in cell for cells in table.rows for cell in cells)
    with pytest.raises(BadInput, match="given twice"):
        summarize([golden, golden])


def test_a_stand_in_is_never_reported(golden: Result) -> None:
    fake = TargetRecord("fake", "fake", "1", "private")
    with pytest.raises(BadInput, match="stand-in"):
        summarize([replace(golden, targets=[*golden.targets, fake])])
    with pytest.raises(BadInput, match="no result"):
        summarize([])


# How it is worded


@pytest.mark.parametrize(
    ("accelerator", "reason", "told"),
    [
        ("kvm", None, "libvirt/pc · KVM"),
        ("kvm", "ignored", "libvirt/pc · KVM"),
        ("tcg", "no /dev/kvm", "libvirt/pc · QEMU TCG (no KVM: no /dev/kvm)"),
        ("tcg", None, "libvirt/pc · QEMU TCG (no KVM: the reason was not recorded)"),
        ("hvf", None, "libvirt/pc · hvf"),
        (None, None, "libvirt/pc"),
    ],
)
def test_kvm_is_said_only_where_kvm_ran(accelerator: str | None, reason: str | None, told: str) -> None:
    assert label(TargetRecord("libvirt/pc", "QEMU", "7.2", "private", accelerator, reason)) == told


@pytest.mark.parametrize(
    ("value", "unit", "told"),
    [
        (0.00321, "s", "3.21 ms"), (12.3456, "s", "12.3 s"), (0.99961, "s", "1.00 s"), (0.000_000_4, "s", "0.400 µs"),
        (0, "s", "0 s"), (0, "B", "0 B"), (512, "B", "512 B"), (1024, "B", "1.00 KiB"), (1_258_291, "B", "1.20 MiB"),
        (1023.9 * 1024, "B", "1.00 MiB"), (2**40 * 5000, "B", "5000 TiB"), (0.21, "1", "0.210"), (9.996, "1", "10.0"),
    ],
)  # fmt: skip
def test_quantities_have_three_digits_and_a_fitting_unit(value: float, unit: str, told: str) -> None:
    assert quantity(value, unit) == told


@given(st.floats(min_value=1e-6, max_value=1e15), st.sampled_from(["s", "B", "1"]))
def test_a_quantity_stays_within_half_a_percent_of_its_value(value: float, unit: str) -> None:
    number, _, name = quantity(value, unit).partition(" ")
    sizes = {"µs": 1e-6, "ms": 1e-3, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
    tolerance = 0.5 if name == "B" else 0.005 * value
    assert abs(float(number) * sizes.get(name, 1) - value) <= tolerance + 1e-12


def test_an_interval_shares_the_unit_of_its_median_and_a_single_value_has_none() -> None:
    assert measured(median_interval([0.9, 0.95, 1.0, 1.1, 1.2, 1.3]), "s") == "1.05 s [0.90, 1.30] n=6"
    assert measured(median_interval([4096.0]), "B") == "4.00 KiB n=1"
    assert times(Ratio(12.34, 11.96, 12.78, 7, 0.95)) == "12.3x [12.0, 12.8]"
    assert times(Ratio(2.0, None, None, 2, 0.95)) == "2.00x n=2"


# How it is written


def test_every_format_says_what_ran_the_guest(golden: Result, tmp_path: Path) -> None:
    written = {path.name: path for path in report.write([golden], tmp_path, report.FORMATS)}
    assert set(written) == {
        "index.html", "report.md", "startup.png", "memory.png", "disk.png", "values.csv", "summary.json",
    }  # fmt: skip
    for name in ("index.html", "report.md", "values.csv", "summary.json"):
        text = written[name].read_text("utf-8")
        assert "QEMU TCG (no KVM: /dev/kvm is not there" in text, name
        assert not re.search(r"libvirt/pc(?! ·)[^\n]*· KVM\b", text), name
    for picture in pictures.draw(summarize([golden])):
        drawn = " ".join("".join(text.itertext()) for text in ElementTree.fromstring(picture.svg()).iter() if text.text)
        assert "QEMU TCG (no KVM:" in line(drawn), picture.name
    assert TCG in shown(golden, width=200)


def test_the_page_is_one_file_that_asks_no_one(golden: Result) -> None:
    page = html.render(summarize([golden]))
    opened, ids, uses = _parse(page)
    assert not {"script", "link", "img", "iframe", "object"} & {tag for tag, _ in opened}
    assert not [value for _, attributes in opened for name, value in attributes if name in ("src", "onload")]
    assert "@import" not in page and not re.search(r"url\((?!#)", page)
    assert len(ids) == len(set(ids)), "an id is there twice"
    assert uses and uses <= set(ids)
    assert "prefers-color-scheme: dark" in page


def test_foreign_text_stays_text_in_a_page(golden: Result) -> None:
    opened, _, _ = _parse(html.render(summarize([hostile(golden)])))
    calm, _, _ = _parse(html.render(summarize([golden])))
    assert {tag for tag, _ in opened} <= {tag for tag, _ in calm}
    assert all(value is None or "evil" not in value for tag, a in opened for name, value in a if name == "href")


def test_foreign_text_stays_in_its_cell_in_markdown(golden: Result) -> None:
    text = markdown.render(summarize([hostile(golden)]))
    outside, fenced = _fences(text)
    assert "</pre><script>" in fenced and "````" in fenced
    assert not re.search(r"(?<!\\)<script|(?<!\\)\]\(http|(?<!\\)\$", outside)
    for block in re.findall(r"(?:^\|.*\n)+", outside, flags=re.M):
        cells = {len(re.findall(r"(?<!\\)\|", row)) for row in block.splitlines()}
        assert len(cells) == 1, block
    assert "\x1b" not in text and "\x00" not in text


def test_foreign_text_cannot_steer_a_terminal(golden: Result) -> None:
    text = shown(hostile(golden))
    assert "\x1b" not in text and "\x00" not in text and "<script>" in text


@pytest.mark.parametrize("width", [80, 120])
def test_a_terminals_table_fits_and_nothing_is_cut(golden: Result, width: int) -> None:
    text = shown(golden, width)
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    flat = line(text)
    for told in ("QEMU TCG (no KVM:", "n=6, 1 failed", "1 (reference)", "not here: the runtime runsc is not installed"):
        assert told in flat
    for metric in ("startup.total", "memory.pss", "disk.instance", "disk.shared"):
        for value in map(tables.value, summarize([golden]).rows(metric)):
            assert all(word in text for word in value.replace(" n=", "|n=").replace(" [", "|[").split("|"))


def test_the_csv_has_every_value_as_it_was_measured(golden: Result, tmp_path: Path) -> None:
    (path,) = report.write([golden], tmp_path, ["csv"])
    rows = list(csv.DictReader(path.open(encoding="utf-8", newline="")))
    assert len(rows) == len(golden.frame())
    ready = {row["run"]: float(row["value"]) for row in rows if row["metric"] == "startup.total"}
    assert ready == {run.id: run.mark("ready") for run in golden.runs if run.ok}
    for cells in rows:
        assert (cells["value"] == "") == (cells["reason"] != "")
        assert cells["label"] == (f"libvirt/pc · {TCG}" if cells["target"] == "libvirt/pc" else cells["target"])
    assert {cells["value"] for cells in rows if cells["part"] == "kernel"} == {"8196096"}


def test_the_json_is_strict_and_holds_the_rows(golden: Result, tmp_path: Path) -> None:
    (path,) = report.write([golden], tmp_path, ["json"])

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    (read,) = json.loads(path.read_text("utf-8"), parse_constant=refuse)["campaigns"]
    (start,) = (r for r in read["rows"] if (r["target"], r["metric"]) == ("docker", "startup.total"))
    assert start["estimate"]["n"] == 6 and start["failed"] == 1 and len(start["values"]) == 6
    assert read["unavailable"] == [
        {
            "target": "docker/runtime=runsc",
            "reason": "the runtime runsc is not installed",
            "hint": "install gVisor and name it in daemon.json",
        }
    ]
    assert read["failures"][0]["type"] == "StartTimeout" and "no one listens" in read["failures"][0]["log"]


def test_a_report_is_the_same_each_time(golden: Result, tmp_path: Path) -> None:
    first, second = (report.write([golden], tmp_path / name, report.FORMATS) for name in ("a", "b"))
    for one, other in zip(first, second, strict=True):
        assert one.read_bytes() == other.read_bytes(), one.name


def test_every_launch_is_a_point_and_every_number_is_written(golden: Result) -> None:
    summary = summarize([golden])
    for picture, metric in zip(pictures.draw(summary), ("startup.total", "memory.pss", "disk.instance"), strict=True):
        points = sum(np.shape(c.get_offsets())[0] for axes in picture.figure.axes for c in axes.collections)
        assert points == sum(len(row.values) for row in summary.rows(metric)) == 27
        texts = [text.get_text() for axes in picture.figure.axes for text in axes.texts]
        assert "1 failed" in texts
        for drawn in summary.rows(metric):
            assert drawn.estimate and quantity(drawn.estimate.median, drawn.unit) in texts


def test_pictures_have_a_log_scale_only_where_the_span_demands_it(golden: Result) -> None:
    near = changed(golden, lambda run: run if run.target in ("host", "namespace") else None)
    far, close = (
        [[axes.get_xscale() for axes in picture.figure.axes] for picture in pictures.draw(summarize([result]))]
        for result in (golden, near)
    )
    # The log axis of a total has its parts' shares beside it; the disk that is shared spans too little for one.
    assert far == [["log"], ["log", "linear"], ["linear", "log", "linear"]]
    assert close == [["linear"], ["linear"], ["linear", "linear"]]


def test_beside_a_log_axis_the_parts_are_shares_of_the_whole(golden: Result) -> None:
    summary = summarize([golden])
    _, shares = pictures.draw(summary)[1].figure.axes
    bars = [bar.get_width() for bar in shares.patches if isinstance(bar, Rectangle)]
    expected = []
    for drawn in summary.rows("memory.pss"):
        parts = [piece.median for piece in drawn.pieces if piece.median is not None]
        expected += [100 * part / sum(parts) for part in parts]
    assert bars == pytest.approx(expected) and sum(bars) == pytest.approx(400)
    assert shares.get_xlim() == (0, 100)


def test_a_total_that_fills_many_powers_of_ten_has_no_more_marks_than_fit(golden: Result) -> None:
    def spread(run: Run) -> Run:
        vast = 1e6 if run.target == "libvirt/pc" else 1.0
        samples = [msgspec.structs.replace(s, value=s.value and s.value * vast) for s in run.samples]
        return msgspec.structs.replace(run, samples=samples)

    axes = pictures.draw(summarize([changed(golden, spread)]))[1].figure.axes[0]
    low, high = axes.get_xlim()
    assert low <= 174080 and high >= 1.3e14
    assert 2 <= len(axes.get_xticks()) <= 6


def test_a_campaign_without_any_run_still_gives_a_report(golden: Result, tmp_path: Path) -> None:
    empty = changed(golden, lambda _: None, images=[])
    assert report.write([empty], tmp_path, report.FORMATS)
    assert "not here" in shown(empty)


@pytest.mark.parametrize(
    "place", [lambda tmp: tmp / "file", lambda tmp: tmp / "file" / "r", lambda _: Path("/proc/none")]
)
def test_a_folder_that_cannot_be_written_is_refused(
    golden: Result, tmp_path: Path, place: Callable[[Path], Path]
) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(BadInput, match="cannot write the report to") as refused:
        report.write([golden], place(tmp_path), ["csv"])
    assert "\n" not in str(refused.value)


def test_a_format_that_is_not_there_is_refused_before_anything_is_written(golden: Result, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"no report format 'pdf': choose among html, md, csv, json"):
        report.write([golden], tmp_path / "r", ["html", "pdf"])
    assert not (tmp_path / "r").exists()


def _parse(page: str) -> tuple[list[tuple[str, list[tuple[str, str | None]]]], list[str], set[str]]:
    """The tags of a page with their attributes, its ids, and the ids that it refers to."""
    opened: list[tuple[str, list[tuple[str, str | None]]]] = []

    class Parser(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            opened.append((tag, attrs))

    Parser().feed(page)
    attributes = [(name, value or "") for _, attrs in opened for name, value in attrs]
    ids = [value for name, value in attributes if name == "id"]
    uses = {found for _, value in attributes for found in re.findall(r"url\(#([^)]+)\)", value)}
    uses |= {value.removeprefix("#") for name, value in attributes if name.endswith("href")}
    return opened, ids, uses


def _fences(text: str) -> tuple[str, str]:
    """Markdown, parted into what is outside and what is inside of fenced blocks."""
    outside: list[str] = []
    inside: list[str] = []
    fence = ""
    for row in text.splitlines(keepends=True):
        ticks = re.match(r"`{3,}", row)
        if not fence and ticks:
            fence = ticks.group()
        elif fence and row.strip() == fence:
            fence = ""
        else:
            (inside if fence else outside).append(row)
    assert not fence, "a fence is left open"
    return "".join(outside), "".join(inside)
