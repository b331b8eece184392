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
from matplotlib.colors import to_hex
from matplotlib.legend import Legend
from matplotlib.patches import Rectangle
from rich.console import Console

from harness import store
from harness.errors import BadInput
from harness.meters.isolation import CAPABILITIES, NAMESPACES
from harness.model import Applied, Failure, Footer, Run, Sample, TargetRecord, headline
from harness.report import formats, html, looks, markdown, matrix, particulars, pictures, tables, terminal
from harness.report.rows import Row
from harness.report.summary import Campaign, summarize
from harness.stats.estimate import Ratio, median_interval
from harness.store import Result
from harness.wording import NONE, label, line, measured, quantity, times, unit
from tests.weighing import DOCKER, MIB, TARGETS, UNSEEN, WORKLOADS, full

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


def cell(campaign: Campaign, target: str, workload: str, metric: str) -> Row:
    found = [row for row in campaign.rows if (row.target, row.workload, row.metric) == (target, workload, metric)]
    assert len(found) == 1
    return found[0]


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
        found = {**run.facts, "kernel": HOSTILE, "seccomp": HOSTILE, "namespaces": {HOSTILE: HOSTILE}}
        limits = {name: Applied(1, HOSTILE, reason=HOSTILE) for name in run.limits}
        known = {"workload": HOSTILE, "id": HOSTILE, "facts": found, "limits": limits}
        return msgspec.structs.replace(run, samples=samples, error=error, **known)

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
    for text in (shown(blinded), markdown.render(summarize([blinded])), html.render(summarize([blinded]), [blinded])):
        assert NONE in text and "not permitted" in text


def members_of_the_docker_group(result: Result) -> Result:
    """The result where PSS and files of Docker are for root alone, and the engine reports sizes."""

    def unread(samples: list[Sample]) -> list[Sample]:
        return [
            Sample(s.metric, s.unit, None, s.group, s.part, "not permitted")
            if s.metric in ("memory.pss", "disk.instance", "disk.shared")
            else s
            for s in samples
        ]

    def change(run: Run) -> Run:
        if run.target != "docker":
            return run
        size = Sample("disk.reported_instance", "B", 8 * MIB, part="writable layer")
        return msgspec.structs.replace(run, samples=[*unread(run.samples), size])

    images = [
        msgspec.structs.replace(
            image,
            samples=[*unread(image.samples), Sample("disk.reported_shared", "B", 3 * MIB, part="image")],
        )
        if image.target == "docker"
        else image
        for image in result.images
    ]
    return changed(result, change, images=images)


def test_a_stand_in_is_shown_by_its_own_name_where_a_headline_could_not_be_read() -> None:
    result = members_of_the_docker_group(full())
    summary = summarize([result])
    table = tables.headline(summary)
    [cells] = [cells for cells in table.rows if cells[:2] == ("hello", "docker")]
    assert cells[-3:] == (
        "6.00 MiB charged [6.00, 6.00] n=7",
        "8.00 MiB reported [8.00, 8.00] n=7",
        "3.00 MiB reported n=1",
    )
    assert "charged" not in str([cells for cells in table.rows if "docker" not in cells])
    assert [note for note in table.notes if note.startswith(("charged:", "reported:"))] == list(
        tables.STAND_IN_NOTES.values()
    )
    (campaign,) = summary.campaigns
    assert cell(campaign, "docker", "hello", "memory.pss").estimate is None
    assert {row.target for row in campaign.rows if row.metric.startswith("disk.reported")} == {"docker"}
    titles = {"Size of one more instance, as reported by the engine", "Size of the image, as reported by the engine"}
    assert titles <= {cells[0] for cells in tables.metrics(campaign).rows}
    for text in (shown(result, 200), markdown.render(summary), html.render(summary, [result])):
        assert "charged" in text and "reported" in text
    page = html.render(summary, [result])
    assert "not permitted; 6.00 MiB charged [6.00, 6.00] n=7" in page


def test_stand_ins_are_not_explained_where_all_metrics_were_read() -> None:
    table = tables.headline(summarize([full(2)]))
    assert "charged" not in str(table) and "reported" not in str(table)


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
    (warning,) = (warning for warning in told.warnings if warning.kind == "left-out")
    assert str(warning) == "4 runs (cold, of one side, or of several instances at once) left out of this summary"


def test_runs_of_other_bytes_are_pointed_out(golden: Result) -> None:
    other = changed(golden, lambda run: msgspec.structs.replace(run, bundle_sha256="00") if run.seq == 9 else run)
    (warning,) = (each for each in summarize([other]).campaigns[0].warnings if each.kind == "other-bundle")
    assert warning.told.startswith("1 run did not start the recorded bundle") and golden.runs[8].id in warning.told


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


# The full weighing


@pytest.fixture(scope="module")
def weighing() -> Result:
    return full()


@pytest.fixture(scope="module")
def weighed(weighing: Result) -> Campaign:
    return summarize([weighing]).campaigns[0]


def test_every_metric_of_a_full_weighing_has_a_row(weighing: Result, weighed: Campaign) -> None:
    for target, workload in ((target.target, workload) for target in TARGETS for workload in WORKLOADS):
        mine = [r for r in weighing.runs if (r.target, r.workload, r.phase) == (target, workload, "measured")]
        for metric in ("memory.pss", "memory.rss", "memory.uss", "memory.charged", "cpu.start", "cpu.rest"):
            shown = cell(weighed, target, workload, metric)
            totals = [headline(run.samples, metric) for run in mine]
            assert list(shown.values) == [total for total in totals if total is not None]
            assert len(shown.values) == (0 if (target, metric) == ("libvirt/pc", "memory.charged") else 7)


def test_launches_that_sampled_in_other_ways_are_one_cell(weighing: Result) -> None:
    """Samples in another order, one that could not be read, and two of one piece: each total is its own launch's."""

    def otherwise(run: Run) -> Run:
        samples = list(run.samples)
        if run.round == 2:
            samples.sort(key=lambda sample: sample.metric)
        if run.round == 3:
            samples = [
                msgspec.structs.replace(s, value=None, reason="gone") if s.metric == "memory.pss" else s
                for s in samples
            ]
        if run.round == 4:
            samples += [s for s in samples if s.metric == "memory.pss"]
        return msgspec.structs.replace(run, samples=samples)

    before, after = (summarize([result]).campaigns[0] for result in (weighing, changed(weighing, otherwise)))
    for was in before.rows:
        now = cell(after, was.target, was.workload, was.metric)
        if was.metric != "memory.pss":
            assert replace(now, pieces=()) == replace(was, pieces=())
            assert {piece.name: piece for piece in now.pieces} == {piece.name: piece for piece in was.pieces}
        else:
            *_, third, fourth = was.values[:4]
            assert now.values == (*was.values[:2], 2 * fourth, *was.values[4:])
            assert now.reason == "1 of 7 not read: gone"
            assert third not in now.values


def test_pieces_are_named_by_group_and_part(weighed: Campaign) -> None:
    def named(target: str, metric: str) -> dict[str, float | None]:
        return {piece.name: piece.median for piece in cell(weighed, target, "hello", metric).pieces}

    # The median of seven rounds is that of round 4: 4096 bytes a round are on top of each part.
    grown = 4 * 4096
    assert named("host", "memory.pss") == {
        "workload · anonymous": 1.25 * 5 / 8 * MIB + grown,
        "workload · file": 1.25 * 2 / 8 * MIB + grown,
        "workload · shmem": 1.25 / 8 * MIB + grown,
    }
    assert named("libvirt/pc", "memory.uss") == {
        "workload": None, "guest": 116.25 * MIB + grown, "vmm": 45 * MIB + grown,
        "vmm · translation cache": 70 * MIB + grown,
    }  # fmt: skip
    assert named("docker", "memory.charged") == {
        "anonymous": 1.5 * MIB, "file": 4 * MIB, "shmem": 0, "kernel": 0.5 * MIB,
    }  # fmt: skip
    assert list(named("docker", "cpu.start")) == [
        f"{group} · {mode}" for group in ("workload", "supervisor", "daemon") for mode in ("user", "system")
    ]
    assert named("libvirt/pc", "cpu.rest") == {"guest": 0, "vmm": 0.0123}


def test_what_a_group_consists_of_adds_up_to_the_total_in_each_launch(weighing: Result, weighed: Campaign) -> None:
    for target in TARGETS:
        total = cell(weighed, target.target, "redis", "memory.pss").values
        runs = [r for r in weighing.runs if (r.target, r.workload, r.phase) == (target.target, "redis", "measured")]
        parts = [sum(s.value or 0 for s in run.samples if s.metric == "memory.pss") for run in runs]
        assert list(total) == parts and min(parts) > 10 * MIB


def test_a_row_a_group_and_a_column_a_kind(weighed: Campaign) -> None:
    made = {table.title: table for table in tables.pieces(weighed)}
    memory = made["Memory at rest, PSS, medians by group and kind"]
    assert memory.columns == (
        "Target", "Workload", "Group", "Anonymous", "File", "Shmem", "Translation cache", "n", "Note",
    )  # fmt: skip
    machine = [row[2:] for row in memory.rows if row[0].startswith("libvirt/pc") and row[1] == "hello"]
    assert machine == [
        ("workload", NONE, NONE, NONE, NONE, "0", UNSEEN),
        ("guest", "", "", "116 MiB", "", "7", ""),
        ("vmm", "28.1 MiB", "11.3 MiB", "5.64 MiB", "70.0 MiB", "7", ""),
    ]
    charged = made["Memory charged to the control group, medians by kind"]
    assert charged.rows[2] == ("docker", "hello", "1.50 MiB", "4.00 MiB", "0 B", "512 KiB", "7", "")
    assert charged.rows[3][2:] == (NONE,) * 4 + ("0", "libvirt made no control group for the machine")
    start = made["CPU time that a start takes, medians by group and mode"]
    assert [row[2] for row in start.rows if row[:2] == ("docker", "hello")] == ["workload", "supervisor", "daemon"]
    rest = made["CPUs in use at rest, by group"]
    assert rest.rows[6][2:] == ("vmm", "0.0123 CPUs", "7", "")
    assert "0.0123 CPUs [0.0123, 0.0123] n=7" in [row[3] for row in tables.metrics(weighed).rows]


def test_older_results_are_shown_without_what_they_never_sampled(campaign: Campaign) -> None:
    assert {row.metric for row in campaign.rows} == {
        "startup.total", "memory.pss", "memory.rss", "memory.uss", "disk.instance", "disk.shared",
    }  # fmt: skip
    memory = next(table for table in tables.pieces(campaign) if table.title.startswith("Memory"))
    assert memory.columns == ("Target", "Group", "Median", "n", "Note")
    assert [row[1] for row in memory.rows] == [
        "workload", "workload", "supervisor", "workload", "supervisor", "workload", "guest", "vmm",
    ]  # fmt: skip


def test_a_campaign_of_cold_starts_is_one_and_says_so(tmp_path: Path) -> None:
    planned = full(3, cold="image")
    warm_too = replace(planned, runs=[*planned.runs, msgspec.structs.replace(planned.runs[-1], cold=False)])
    summary = summarize([warm_too])
    (told,) = summary.campaigns
    assert (told.cold, told.measured) == ("image", 36)
    (warning,) = (warning for warning in told.warnings if warning.kind == "left-out")
    assert str(warning) == "1 run (not cold, of one side, or of several instances at once) left out of this summary"
    assert cell(told, "docker", "redis", "cache.resident").values == (0, 0, 0)
    dropped = "the page cache of the image's files"
    assert dict(particulars.origin(told))["Starts"] == f"cold starts: {dropped} is dropped before each"
    assert "Cold start" in tables.headline(summary).columns
    assert f"Cold starts: {dropped} is dropped before each." in tables.headline(summary).notes
    assert "Start-up: requested to ready, cold starts, by phase" in [table.title for table in particulars.details(told)]
    start = pictures.draw(summary)[0]
    titles = [text.get_text() for axes in start.figure.axes for text in axes.texts]
    assert start.title == f"Cold starts, {dropped} dropped before each, requested to ready"
    assert [f"Cold starts, {dropped} dropped before each · {name}" in titles for name in WORKLOADS] == [True] * 3


def test_cold_and_other_starts_side_by_side_are_told_apart(weighing: Result) -> None:
    cold = full(3, cold="all")
    cold = replace(cold, header=msgspec.structs.replace(cold.header, campaign="other"))
    summary = summarize([weighing, cold])
    table, (start, *_) = tables.headline(summary), pictures.draw(summary)
    assert "Start-up" in table.columns
    assert "Cold starts in campaign other: the page cache of the whole machine is dropped before each." in table.notes
    texts = [text.get_text() for text in start.figure.axes[0].texts]
    assert (texts.count("other · cold"), texts.count("full"), start.title) == (4, 4, "Start-up, requested to ready")
    assert [matrix.title for matrix in matrix.tables(summary)] == [
        "Isolation, as found inside: campaign full", "Isolation, as found inside: campaign other",
    ]  # fmt: skip


def test_a_precision_that_was_asked_for_is_told() -> None:
    told = dict(particulars.origin(summarize([full(3, precision=0.05)]).campaigns[0]))
    assert told["Rounds"].startswith("at least 3 measured after one of warm-up, until every headline median")
    assert "5 %" in told["Rounds"]


def test_the_memory_picture_has_a_colour_a_group_and_a_hatch_a_kind(weighing: Result) -> None:
    memory = pictures.draw(summarize([weighing]))[1]
    # Each workload's stacks are shares, beside the axes of its totals: those of the first are the second of all.
    bars = [bar for bar in memory.figure.axes[3].patches if isinstance(bar, Rectangle)]
    seen = [(to_hex(bar.get_facecolor()), bar.get_hatch() or "") for bar in bars]
    blue, orange, green, pink = looks.PALETTE[:4]
    anonymous, file, shmem, cache = looks.HATCHES
    workload = [(blue, anonymous), (blue, file), (blue, shmem)]
    supervisor = [(pink, anonymous), (pink, file), (pink, shmem)]
    vmm = [(green, anonymous), (green, file), (green, shmem), (green, cache)]
    assert seen == [*workload, *workload, *supervisor, *workload, *supervisor, (orange, shmem), *vmm]
    legends = [[text.get_text() for text in legend.get_texts()] for legend in _legends(memory)]
    assert legends == 3 * [
        ["workload", "guest", "vmm", "supervisor"],
        ["anonymous", "file", "shmem", "translation cache"],
    ]


def test_unsplit_memory_beside_split_memory_has_a_swatch_of_its_own_name(weighing: Result) -> None:
    def unsplit(run: Run) -> Run:
        kept = [s for s in run.samples if s.metric != "memory.pss"]
        return msgspec.structs.replace(run, samples=[*kept, Sample("memory.pss", "B", 2 * MIB, "workload")])

    mixed = changed(weighing, lambda run: unsplit(run) if run.target == "host" else run)
    told = looks.looks(summarize([mixed]).rows("memory.pss"))
    assert told.pieces["workload"].colour == told.pieces["workload · anonymous"].colour == looks.PALETTE[0]
    assert list(told.legend[1]) == [*looks.KINDS, "not split by kind"]
    assert len({look.hatch for look in told.legend[1].values()}) == 5


def test_more_parts_than_colours_are_told_apart_by_hatches(golden: Result) -> None:
    def many(run: Run) -> Run:
        return msgspec.structs.replace(
            run, samples=[Sample("disk.instance", "B", 4096, part=f"{n}") for n in range(20)]
        )

    told = looks.looks(summarize([changed(golden, many)]).rows("disk.instance"))
    assert len(told.pieces) == len(set(told.pieces.values())) == 20
    assert [len(names) for names in told.legend] == [6, 6, 6, 2]


# Isolation


def test_the_matrix_says_whose_everything_is(weighing: Result) -> None:
    (table,) = matrix.tables(summarize([weighing]))
    assert table.columns == ("", "host", "namespace", "docker", "libvirt/pc · QEMU TCG (no KVM: /dev/kvm is not there)")
    cells = {row[0].partition(":")[0]: row[1:] for row in table.rows}
    assert cells["Kernel"] == (*["host's, 6.18.44"] * 3, "own, 6.1.0-56-cloud-amd64")
    own = {"namespace": "cgroup ipc mnt net pid user uts", "docker": "ipc mnt net pid uts"}
    for kind in NAMESPACES:
        expected = ["own" if kind in own[target].split() else "host's" for target in ("namespace", "docker")]
        assert cells[f"{kind} namespace"] == ("host's", *expected, "own"), kind
    assert cells["Root inside is"] == (
        "the host's root", "uid 1770000 on the host", "the host's root", "root of its own kernel",
    )  # fmt: skip
    assert cells["Capabilities"] == ("all 41", "all 41", "14 of 41", "all 41")
    assert cells["Seccomp"] == ("none", "none", "filter", "none")
    assert cells["No new privileges"] == ("no", "yes", "no", "no")
    assert cells["CPUs"] == (*["2 seen, 1 asked: cfs quota"] * 3, "1 seen, 1 asked: 1 vCPU")
    assert cells["Memory"][2:] == (
        "24.0 GiB seen, 256 MiB asked: memory cgroup", "218 MiB seen, 256 MiB asked: guest RAM",
    )  # fmt: skip
    assert cells["Processes seen"] == ("85 to 91", "3", "3", "49")
    assert cells["Runs"] == ("21", "21", "21", "21")
    assert "net namespace: interfaces, addresses, ports, routes, firewall" in [row[0] for row in table.rows]
    assert table.notes == (f"docker: its capabilities are {', '.join(DOCKER)}.",)


def test_a_page_marks_what_is_own_and_what_is_the_hosts(weighing: Result) -> None:
    page = html.render(summarize([weighing]), [weighing])
    marked = [line for line in page.splitlines() if "<small>interfaces, addresses" in line]
    assert [re.findall(r'<td class="(\w+)"[^>]*>([^<]*)</td>', line) for line in marked] == [
        [("hosts", "host&#39;s"), ("own", "own"), ("own", "own"), ("own", "own")]
    ]
    assert page.index("</figure>") < page.index("Isolation, as found inside") < page.index("<h2>Campaign full</h2>")
    text = markdown.render(summarize([weighing]))
    assert text.index("| Workload |") < text.index("## Isolation, as found inside") < text.index("## Campaign full")


@pytest.mark.parametrize(
    ("held", "told"),
    [
        ((), "none"),
        (("chown", "kill"), "2 of 41: chown, kill"),
        (tuple(name for name in CAPABILITIES if name not in ("sys_boot", "bpf")), "all but sys_boot, bpf"),
        (CAPABILITIES, "all 41"),
        (CAPABILITIES[:20], "20 of 41"),
    ],
)
def test_capabilities_are_named_where_they_are_few(weighing: Result, held: tuple[str, ...], told: str) -> None:
    mask = f"{sum(1 << CAPABILITIES.index(name) for name in held):016x}"
    result = changed(
        weighing, lambda run: msgspec.structs.replace(run, facts={**run.facts, "capabilities": {"effective": mask}})
    )
    (table,) = matrix.tables(summarize([result]))
    assert [row[1:] for row in table.rows if row[0].startswith("Capabilities")] == [(told,) * 4]


def test_runs_of_one_target_that_differ_have_a_column_each(weighing: Result) -> None:
    def confined(run: Run) -> Run:
        other = run.target == "docker" and run.workload == "redis" and run.round > 2
        return msgspec.structs.replace(run, facts={**run.facts, "seccomp": 0}) if other else run

    (table,) = matrix.tables(summarize([changed(weighing, confined)]))
    assert table.columns[3:5] == ("docker", "docker")
    cells = {row[0].partition(":")[0]: row[1:] for row in table.rows}
    assert cells["Seccomp"][2:4] == ("filter", "none")
    assert cells["Runs"] == ("21", "21", "16 of hello, python, redis", "5 of redis", "21")
    assert (
        "docker: its runs differ in what they found. Each outcome has a column, with the runs that had it."
        in table.notes
    )
    assert len(table.marks) == len(table.rows) and {len(marks) for marks in table.marks} == {5}


def test_only_measured_runs_that_succeeded_tell_of_isolation(weighing: Result) -> None:
    result = changed(weighing, lambda run: fail(run) if run.round == 3 else run)
    insides = summarize([result]).campaigns[0].insides
    assert [inside.runs for inside in insides] == [18] * 4
    assert insides[0].processes == (85, 91) and insides[0].isolation.processes is None


def test_without_the_hosts_own_namespaces_nothing_is_called_own(weighing: Result, golden: Result) -> None:
    host = msgspec.structs.replace(weighing.header.host, informational={"boot id": ["no"], "namespaces": HOSTILE})
    for result in (golden, replace(weighing, header=msgspec.structs.replace(weighing.header, host=host))):
        (table,) = matrix.tables(summarize([result]))
        namespaces = [row[1:] for row in table.rows if " namespace:" in row[0]]
        assert namespaces == [(NONE,) * 4] * 8
        assert {mark for marks in table.marks for mark in marks} == {None}
    (table,) = matrix.tables(summarize([golden]))
    assert table.notes == (
        "Whose a kernel and its namespaces are cannot be told: not recorded of the host: boot id, namespaces.",
    )


def test_isolation_is_data_too(weighing: Result, tmp_path: Path) -> None:
    _, table, summary = formats.write([weighing], tmp_path, ["csv", "json"])
    told = json.loads(summary.read_text("utf-8"))["campaigns"][0]["insides"]
    assert [(i["target"], i["runs"], i["isolation"]["kernel"]) for i in told] == [
        ("host", 21, "host's"), ("namespace", 21, "host's"), ("docker", 21, "host's"), ("libvirt/pc", 21, "own"),
    ]  # fmt: skip
    assert told[1]["isolation"]["root"] == 1770000 and told[0]["processes"] == [85, 91]
    assert told[2]["isolation"]["capabilities"] == list(DOCKER)
    docker = list(csv.DictReader(table.open(encoding="utf-8", newline="")))[2]
    assert docker["isolation.capabilities"] == " ".join(DOCKER) and docker["isolation.root"] == "0"
    assert (docker["isolation.namespaces.net"], docker["isolation.namespaces.user"]) == ("own", "host's")
    assert (docker["limits.memory.mechanism"], docker["isolation.memory"]) == ("memory cgroup", str(24 * 1024 * MIB))


@pytest.mark.parametrize("memory", [10**400, -5, 2**63])
def test_a_count_that_cannot_be_one_is_none(weighing: Result, memory: int) -> None:
    result = changed(weighing, lambda run: msgspec.structs.replace(run, facts={**run.facts, "memory": memory}))
    (table,) = matrix.tables(summarize([result]))
    assert [row[1] for row in table.rows if row[0] == "Memory"] == [f"{NONE} seen, 256 MiB asked: memory cgroup"]


@pytest.mark.parametrize("width", [60, 80])
def test_a_terminal_shows_what_one_instance_is_separated_from(weighing: Result, width: int) -> None:
    docker = summarize([weighing]).campaigns[0].insides[2]
    limits = {**docker.limits, "memory": Applied(256 * MIB, None, reason="[red]nobody[/red] may \x1b[31m")}
    isolation = replace(docker.isolation, kernel_version="[bold]6.1[/bold] \x1b[31m")
    console = Console(file=io.StringIO(), width=width, color_system=None)
    terminal.show_isolation("docker[/]", isolation, limits, console)
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    assert max(map(len, text.splitlines())) <= width and "…" not in text and "\x1b" not in text
    flat = line(text)
    assert "docker[/]" in flat and "Kernel host's, [bold]6.1[/bold]" in flat
    assert f"14 of 41: {', '.join(DOCKER)} of root inside" in flat
    assert "net namespace own interfaces, addresses, ports" in flat and "user namespace host's" in flat
    assert "256 MiB asked: — ([red]nobody[/red] may" in flat


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
    assert measured(median_interval([0.0] * 6 + [0.0123]), unit("cpu.rest", "1")) == "0 CPUs [0.0000, 0.0123] n=7"
    assert times(Ratio(12.34, 11.96, 12.78, 7, 0.95)) == "12.3x [12.0, 12.8]"
    assert times(Ratio(2.0, None, None, 2, 0.95)) == "2.00x n=2"


# How it is written


@pytest.mark.long
def test_every_format_says_what_ran_the_guest(golden: Result, tmp_path: Path) -> None:
    written = {path.name: path for path in formats.write([golden], tmp_path, formats.FORMATS)}
    assert set(written) == {
        "index.html", "report.md", "startup.png", "memory.png", "disk.png", "values.csv", "isolation.csv",
        "summary.json", "github-action-benchmark.json", "bencher.json", "openmetrics.txt",
        *(f"{name}.{kind}" for name in ("startup", "memory", "disk") for kind in ("svg", "pdf")),
    }  # fmt: skip
    # Bencher's format has a place for names and numbers only, and a name must stay the same: it is without the reason.
    assert "libvirt/pc · QEMU TCG" in written["bencher.json"].read_text("utf-8")
    reasoned = ("github-action-benchmark.json", "openmetrics.txt")
    for name in ("index.html", "report.md", "values.csv", "isolation.csv", "summary.json", *reasoned):
        text = written[name].read_text("utf-8")
        assert "QEMU TCG (no KVM: /dev/kvm is not there" in text, name
        assert not re.search(r"libvirt/pc(?! ·)[^\n]*· KVM\b", text), name
    for picture in pictures.draw(summarize([golden])):
        drawn = " ".join(
            "".join(text.itertext()) for text in ElementTree.fromstring(picture.saved("svg")).iter() if text.text
        )
        assert "QEMU TCG (no KVM:" in line(drawn), picture.name
    assert TCG in shown(golden, width=200)


def test_the_page_is_one_file_that_asks_no_one(golden: Result) -> None:
    page = html.render(summarize([golden]), [golden])
    opened, ids, uses = _parse(page)
    assert not {"link", "img", "iframe", "object"} & {tag for tag, _ in opened}
    assert [attributes for tag, attributes in opened if tag == "script"] == [[]]
    assert not [value for _, attributes in opened for name, value in attributes if name in ("src", "onload")]
    assert "@import" not in page and not re.search(r"url\((?!#)", page.partition("<script>")[0])
    assert len(ids) == len(set(ids)), "an id is there twice"
    assert uses and {use for use in uses if not use.startswith("data:")} <= set(ids)
    assert "prefers-color-scheme: dark" in page


@pytest.mark.parametrize("result", [store.read(GOLDEN), full(2)], ids=["older", "full"])
def test_foreign_text_stays_text_in_a_page(result: Result) -> None:
    poisoned = html.render(summarize([hostile(result)]), [hostile(result)])
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in poisoned[poisoned.index("Isolation, as found inside") :][:3000]
    opened, _, _ = _parse(poisoned)
    calm, _, _ = _parse(html.render(summarize([result]), [result]))
    assert {tag for tag, _ in opened} <= {tag for tag, _ in calm}
    assert all(value is None or "evil" not in value for tag, a in opened for name, value in a if name == "href")


def test_foreign_text_stays_in_its_cell_in_markdown(golden: Result) -> None:
    text = markdown.render(summarize([hostile(golden)]))
    (kernel,) = re.findall(r"^\| Kernel \|.*", text, flags=re.M)
    assert kernel.count(r"\<script\>") == 4
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
    path, _ = formats.write([golden], tmp_path, ["csv"])
    rows = list(csv.DictReader(path.open(encoding="utf-8", newline="")))
    assert len(rows) == len(golden.frame())
    ready = {row["run"]: float(row["value"]) for row in rows if row["metric"] == "startup.total"}
    assert ready == {run.id: run.mark("ready") for run in golden.runs if run.ok}
    for cells in rows:
        assert (cells["value"] == "") == (cells["reason"] != "")
        assert cells["label"] == (f"libvirt/pc · {TCG}" if cells["target"] == "libvirt/pc" else cells["target"])
    assert {cells["value"] for cells in rows if cells["part"] == "kernel"} == {"8196096"}


def test_the_json_is_strict_and_holds_the_rows(golden: Result, tmp_path: Path) -> None:
    (path,) = formats.write([golden], tmp_path, ["json"])

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


@pytest.mark.long
def test_a_report_is_the_same_each_time(golden: Result, tmp_path: Path) -> None:
    first, second = (formats.write([golden], tmp_path / name, formats.FORMATS) for name in ("a", "b"))
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
    assert formats.write([empty], tmp_path, formats.FORMATS)
    assert "not here" in shown(empty)


@pytest.mark.parametrize(
    "place", [lambda tmp: tmp / "file", lambda tmp: tmp / "file" / "r", lambda _: Path("/proc/none")]
)
def test_a_folder_that_cannot_be_written_is_refused(
    golden: Result, tmp_path: Path, place: Callable[[Path], Path]
) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(BadInput, match="cannot write the report to") as refused:
        formats.write([golden], place(tmp_path), ["csv"])
    assert "\n" not in str(refused.value)


def test_a_format_that_is_not_there_is_refused_before_anything_is_written(golden: Result, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"no report format 'odt': choose among html, md, csv, json"):
        formats.write([golden], tmp_path / "r", ["html", "odt"])
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


def _legends(picture: pictures.Picture) -> list[Legend]:
    return [artist for axes in picture.figure.axes for artist in axes.get_children() if isinstance(artist, Legend)]


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
