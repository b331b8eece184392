"""What a report says first: as much as its launches tell, of what there is, and why it says nothing of the rest."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from rich.console import Console

from harness import store
from harness.model import Failure, Run
from harness.report import charts, findings, growth, html, terminal
from harness.report.summary import summarize
from harness.store import Result
from harness.wording import factor, times
from tests.weighing import full

RESULTS = Path(__file__).parent.parent / "results"


def with_runs(result: Result, change: Callable[[Run], Run | None]) -> Result:
    return replace(result, runs=[run for run in map(change, result.runs) if run is not None])


def fail(run: Run) -> Run:
    error = Failure("start", "EngineError", "no")
    return msgspec.structs.replace(run, ok=False, error=error, marks=run.marks[:1], samples=[])


def failing(wanted: Callable[[Run], bool], rounds: int = 7) -> Result:
    return with_runs(full(rounds), lambda run: fail(run) if wanted(run) else run)


def of(result: Result, targets: Iterable[str]) -> Result:
    kept = {*targets}
    named = [target for target in result.targets if target.target in kept]
    images = [image for image in result.images if image.target in kept]
    return replace(result, runs=[run for run in result.runs if run.target in kept], targets=named, images=images)


def slowed(run: Run, by: float) -> Run:
    return msgspec.structs.replace(run, marks=[(mark, by * at) for mark, at in run.marks])


def named(result: Result, campaign: str) -> Result:
    return replace(result, header=msgspec.structs.replace(result.header, campaign=campaign))


def told(*results: Result) -> tuple[str, str]:
    """The first sentence of a page, and what stands under it, without markup."""
    page = html.render(summarize(results), results)
    first = re.search(r"<h1>(.*?)</h1>(.*?)<nav", page, re.DOTALL)
    assert first
    return first[1], " ".join(re.sub(r"<.*?>", " ", first[2]).split())


def overview(*results: Result) -> str:
    page = html.render(summarize(results), results)
    return page.partition('<section id="overview"')[2].partition("</section>")[0]


def sentence(result: Result, metric: str = "startup.total") -> str:
    campaign = summarize([result]).campaigns[0]
    return findings.sentence(campaign, findings.first_workload(campaign), metric) or ""


# How much is said


@pytest.mark.parametrize(("ratio", "shown"), [(1364.2, "1364"), (17.0, "17.0"), (2.8049, "2.80"), (0.97, "0.970")])
def test_a_factor_has_the_digits_of_the_ratio_below_it(ratio: float, shown: str) -> None:
    assert factor(ratio) == shown


def test_a_sentence_has_the_factors_of_its_footing() -> None:
    thousands = of(
        with_runs(full(), lambda run: slowed(run, 1 + 3 * (run.target == "libvirt/pc"))), ["host", "libvirt/pc"]
    )
    for result in (thousands, full()):
        ratios = [each.ratio for each in summarize([result]).campaigns[0].findings]
        shown = {times(ratio).partition("x")[0] for ratio in ratios if ratio}
        assert set(re.findall(r"takes ([\d.e+]+) times as long", sentence(result))) <= shown
    assert "takes 2200 times as long" in sentence(thousands)


def test_of_one_round_no_more_is_said_than_that() -> None:
    assert "sandbox (1 round only), and the VM" in sentence(full(1))
    assert "(2 rounds only)" in sentence(full(2), "memory.pss")
    assert "only" not in sentence(full(3))
    assert "over 1 round with" in told(full(1))[1]


def test_a_pair_without_a_shared_round_is_missing_and_that_is_said() -> None:
    late = {"docker": range(1, 4), "libvirt/pc": range(4, 8)}
    result = failing(lambda run: run.round in late.get(run.target, ()))
    first, under = told(result)
    assert "Docker container takes" in first and "VM" not in first
    assert "No ratio of libvirt/pc to docker: they share no round." in under
    assert "they share no round" in overview(result)


def test_what_is_more_in_the_rounds_that_both_have_is_said_to_be_more() -> None:
    """In all rounds docker is faster: it failed in those in which everything was slow."""
    result = with_runs(
        of(full(), ["namespace", "docker"]),
        lambda run: (
            fail(run)
            if run.target == "namespace" and run.round > 3
            else slowed(run, 100 if run.target == "namespace" else 10 if run.round <= 3 else 0.1)
        ),
    )
    assert "a Docker container takes" in sentence(result)
    faster = with_runs(
        of(full(), ["namespace", "docker"]),
        lambda run: (
            fail(run)
            if run.target == "namespace" and run.round > 3
            else slowed(run, 200 if run.target == "namespace" else 1 if run.round <= 3 else 1000)
        ),
    )
    assert "a bare namespace sandbox takes 11.4 times as long to start as a Docker container" in sentence(faster)


# What it is said of


def test_a_workload_that_never_started_is_not_what_a_report_begins_with() -> None:
    result = failing(lambda run: run.workload == "hello")
    first, under = told(result)
    assert "takes" in first and "with the workload python" in under
    assert "56 successful and 28 failed launches" in under
    (content, _), *_ = html._matrices(summarize([result]))
    assert content.rows[0][0].endswith("with python") and "—" not in content.rows[0]
    shown = io.StringIO()
    terminal.show(summarize([result]), Console(file=shown, width=200))
    assert "On this machine a Docker container" in shown.getvalue()


def test_a_file_of_two_sides_does_not_hide_what_another_found() -> None:
    sides, alone = store.read(RESULTS / "comparison.jsonl.gz"), full()
    assert told(sides, alone)[0] == told(alone)[0]


def test_campaigns_are_named_where_there_are_several() -> None:
    one, other = full(), named(of(full(), ["namespace", "docker"]), "second")
    _, under = told(one, other)
    assert "full: Ratios of medians" in under and "second: Ratios of medians" in under
    assert "second: 42 launches on" in under
    assert "full: " not in told(one)[1]


# Where nothing was found


def test_where_all_failed_that_is_what_is_said_and_no_axis_drawn() -> None:
    result = failing(lambda run: True)
    first, under = told(result)
    assert first == "No launch succeeded: 84 failed."
    assert "0 successful and 84 failed launches on" in under
    strips = charts.strips(summarize([result]), "startup.total")
    assert strips and not any(chart.axis or chart.scale for chart in strips)
    assert 'class="axis"' not in overview(result) and "Points:" not in overview(result)
    assert all(chart.axis for chart in charts.strips(summarize([full()]), "startup.total"))


def test_a_file_of_two_sides_says_so_and_has_nothing_to_choose() -> None:
    sides = store.read(RESULTS / "comparison.jsonl.gz")
    first, under = told(sides)
    assert first.startswith("No launch is shown: 180 runs of two sides left out: `weighbridge compare` shows both")
    page = html.render(summarize([sides]), [sides])
    assert '<a href="#campaign-1">1 warning</a>' in page and "1 warning" in under
    assert 'id="pick"' not in page and 'id="startup"' not in page and 'href="#startup"' not in page
    assert '<a href="#campaign-1">' not in html.render(summarize([full(10)]), [full(10)]).partition("<nav")[0]


def test_one_target_alone_is_compared_with_nothing() -> None:
    assert told(of(full(), ["docker"]))[0] == "21 launches, and no two targets to compare."


# What stands below the charts


def test_the_zero_line_is_what_it_is_and_told_only_where_it_is_there() -> None:
    assert "The dashed line is the zero line, host: a plain process." in overview(full())
    assert "dashed" not in overview(of(full(), ["namespace", "docker"]))
    chroot = of(full(), ["host", "docker"])
    inside = replace(
        chroot,
        targets=[msgspec.structs.replace(t, target=t.target.replace("host", "userns-chroot")) for t in chroot.targets],
        runs=[msgspec.structs.replace(r, target=r.target.replace("host", "userns-chroot")) for r in chroot.runs],
    )
    zero = "The dashed line is the zero line, userns-chroot: a plain process in a user namespace."
    assert zero in overview(inside)
    both = overview(full(), named(inside, "second"))
    assert f"second: {zero}" in both and "full: The dashed line is the zero line, host" in both
    assert overview(full(), named(full(), "second")).count("dashed") == 1


def test_all_launches_are_counted_also_where_not_all_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(html, "MOST_LAUNCHES", 5)
    page = html.render(summarize([full()]), [full()])
    assert "84 launches, with the headlines of each" in page and "The first 5 of 84 launches" in page


def test_disk_that_nobody_weighed_is_said_to_be_lacking() -> None:
    result = replace(full(), images=[])
    (first, *_) = growth.growths(summarize([result]))
    assert not first.curves and [target for target, _ in first.lacking] == ["host", "namespace", "docker", "libvirt/pc"]
    page = html.render(summarize([result]), [result])
    assert "docker: — the image was not weighed" in page and '<svg class="curves"' not in page
