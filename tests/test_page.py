"""The pages as people see them: in a browser, by keyboard, on a phone, on paper, without scripts, and under attack."""

from __future__ import annotations

import gzip
import json
import re
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from xml.etree import ElementTree

import msgspec
import pandas as pd
import pytest
from playwright.sync_api import Browser

from harness import comparison, gate, store
from harness.comparison import Compared
from harness.model import Run
from harness.report import charts, compared_page, findings, growth, html, site
from harness.report.formats import write
from harness.report.summary import Summary, summarize
from harness.store import Result
from harness.wording import quantity
from selfbench import load
from tests.browser import Seen, chromium, opened
from tests.conftest import EngineOrSkip
from tests.weighing import full

pytestmark = pytest.mark.browser

RESULTS = Path(__file__).parent.parent / "results"
SAMPLE = RESULTS / "sample.jsonl"
LONG = "\u202e<img src=x onerror=alert(1)>\"'`${x}</script><script>alert(2)</script>" + "长w" * 5000
PHONE = {"width": 360, "height": 740}


@pytest.fixture(scope="module")
def browser(engine_or_skip: EngineOrSkip) -> Iterator[Browser]:
    with engine_or_skip("browser"), chromium() as found:
        yield found


@pytest.fixture(scope="module")
def sample() -> Result:
    return store.read(SAMPLE)


@pytest.fixture(scope="module")
def summary(sample: Result) -> Summary:
    return summarize([sample])


@pytest.fixture(scope="module")
def page(sample: Result, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    write([sample], folder, ["html", "json"])
    return folder / "index.html"


@pytest.fixture(scope="module")
def pages(page: Path, sample: Result, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One of each kind."""
    folder = tmp_path_factory.mktemp("pages")
    write([sample], folder / "zh", ["html"], "zh")
    compared = comparison.interleaved(store.read(RESULTS / "comparison.jsonl.gz"), gate.default())
    (folder / "compared.html").write_text(compared_page.render(compared), "utf-8")
    index, _ = site.write(folder)
    wide = tmp_path_factory.mktemp("wide") / "wide.html"
    wide.write_text(compared_page.render(compared_widely()), "utf-8")
    return {
        "report": page,
        "zh": folder / "zh/index.html",
        "compared": folder / "compared.html",
        "wide": wide,
        "site": index,
    }


def compared_widely() -> Compared:
    """The recorded comparison, of which the head takes four times as long."""
    result = store.read(RESULTS / "comparison.jsonl.gz")

    def slowed(run: Run) -> Run:
        return msgspec.structs.replace(
            run, marks=[(mark, at * (4 if run.side == "head" else 1)) for mark, at in run.marks]
        )

    return comparison.interleaved(replace(result, runs=[*map(slowed, result.runs)]), gate.default())


def saved(result: Result, path: Path) -> Result:
    """The result as a file, so that its data can be beside its report."""
    with store.Writer(path) as writer:
        for record in (result.header, *result.bundles, *result.targets, *result.images, *result.runs, result.footer):
            if record is not None:
                writer.append(record)
    return replace(result, path=path)


def poisoned(result: Result) -> Result:
    """Every name, and every text, as somebody would write it who wants to break the page."""

    def name(run: Run) -> Run:
        return msgspec.structs.replace(run, workload=LONG, id=LONG)

    bundles = [msgspec.structs.replace(bundle, workload=LONG) for bundle in result.bundles[:1]]
    images = [msgspec.structs.replace(image, workload=LONG) for image in result.images[:4]]
    targets = [
        msgspec.structs.replace(target, accelerator_reason=target.accelerator_reason and LONG)
        for target in result.targets
    ]
    header = msgspec.structs.replace(result.header, campaign=LONG, command=[LONG])
    runs = [name(run) for run in result.runs if run.workload == "hello"]
    return replace(result, header=header, bundles=bundles, images=images, targets=targets, runs=runs, warnings=[LONG])


def states(seen: Seen) -> str:
    return str(seen.page.evaluate("location.hash.slice(1)"))


# What is there


def test_every_launch_is_a_mark_and_every_target_a_line(browser: Browser, page: Path, sample: Result) -> None:
    measured = [run for run in sample.runs if run.phase == "measured" and run.ok]
    with opened(browser, page) as seen:
        assert seen.count("#startup circle.point") == len(measured)
        assert seen.count("#overview circle.median") == 3 * 3 * len(sample.targets)
        assert seen.count("#disk path.curve") == 3 * len(sample.targets)
        assert seen.count("#every-launch tbody tr") == len(measured)
        phases = {name for run in measured for name, _ in store.startup(run)} - {"startup.total", "shutdown.total"}
        told = set(seen.texts("#startup .pieces li"))
        assert {phase.removeprefix("startup.") for phase in phases} == {text.split()[0] for text in told}


def test_the_first_screen_says_what_was_found(browser: Browser, page: Path, summary: Summary) -> None:
    sentence = findings.sentence(summary.campaigns[0], "hello", "startup.total") or "nothing"
    with opened(browser, page, viewport={"width": 1280, "height": 900}) as seen:
        assert seen.texts("h1") == [sentence]
        assert re.search(
            r"Docker container takes [\d.]+ times .* namespace sandbox.* VM \(QEMU TCG, no KVM\)", sentence
        )
        bottoms = (
            seen.page.locator("#overview .three")
            .first.locator("figure")
            .evaluate_all("figures => figures.map(figure => figure.getBoundingClientRect().bottom)")
        )
        assert len(bottoms) == 3 and max(bottoms) <= 900
        scales = seen.page.locator("#overview .three").first.locator(".scale").all_text_contents()
        assert all("scale" in scale for scale in scales)
        assert seen.count("#overview .three:first-child line.zero") == 3 * 4


def test_numbers_are_those_of_the_summary(browser: Browser, page: Path) -> None:
    (campaign,) = json.loads(page.with_name("summary.json").read_text())["campaigns"]
    with opened(browser, page) as seen:
        for metric, place in (("startup.total", "#startup"), ("memory.pss", "#memory"), ("disk.shared", "#disk")):
            for row in (row for row in campaign["rows"] if row["metric"] == metric):
                figure = seen.page.locator(f'{place} figure[data-workload="{row["workload"]}"][data-metric="{metric}"]')
                line = figure.first.locator(f'li[data-target="{row["target"]}"]')
                assert line.locator(".value b").text_content() == quantity(row["estimate"]["median"], row["unit"])
                assert f"n={row['estimate']['n']}" in (line.locator(".value").text_content() or "")
        ratios = seen.texts(".footing")[0]
        for finding in campaign["findings"]:
            if (finding["workload"], finding["metric"]) == ("hello", "startup.total"):
                assert f"{finding['ratio']['ratio']:.3g}" in ratios


def test_computed_disk_is_what_is_shared_and_what_each_adds(summary: Summary) -> None:
    for each in growth.growths(summary):
        for curve in each.curves:
            medians = {
                row.metric: row.estimate.median
                for row in summary.campaigns[0].rows
                if (row.workload, row.target) == (each.workload, curve.target) and row.estimate
            }
            wanted = [medians["disk.shared"] + n * medians["disk.instance"] for n in growth.INSTANCES]
            assert curve.amounts == tuple(quantity(amount, "B") for amount in wanted)


def test_the_data_are_in_the_page(browser: Browser, page: Path, sample: Result, tmp_path: Path) -> None:
    with opened(browser, page, accept_downloads=True) as seen:
        links = seen.page.locator("#data a")
        with seen.page.expect_download() as first:
            links.nth(0).click()
        assert gzip.decompress(first.value.path().read_bytes()) == SAMPLE.read_bytes()
        with seen.page.expect_download() as second:
            links.nth(1).click()
        second.value.save_as(tmp_path / "values.csv.gz")
    values = pd.read_csv(tmp_path / "values.csv.gz")
    starts = values[(values.metric == "startup.total") & (values.phase == "measured")]
    assert len(starts) == sum(run.ok and run.phase == "measured" for run in sample.runs)


# What can be done with it


def test_a_table_is_sorted_by_amounts_and_by_keyboard(browser: Browser, page: Path) -> None:
    with opened(browser, page) as seen:
        seen.page.locator("#launches summary").focus()
        seen.page.keyboard.press("Enter")
        seen.page.locator("#every-launch thead button").nth(3).focus()
        seen.page.keyboard.press("Enter")
        times = seen.texts("#every-launch tbody td:nth-child(4)")
        seconds = [float(number) * {"ms": 1e-3, "s": 1.0}[unit] for number, unit in (text.split() for text in times)]
        assert seconds == sorted(seconds) and len(set(seconds)) > 50
        assert seen.page.locator("#every-launch th").nth(3).get_attribute("aria-sort") == "ascending"
        seen.page.keyboard.press("Enter")
        assert seen.texts("#every-launch tbody td:nth-child(4)") != times
        assert "sort=every-launch+3+descending" in states(seen)


def test_a_table_is_searched(browser: Browser, page: Path) -> None:
    with opened(browser, page) as seen:
        seen.page.locator("#launches summary").click()
        seen.page.locator("#every-launch input").fill("REDIS")
        rows = seen.page.locator("#every-launch tbody tr:visible")
        assert rows.count() == 28 and all("redis" in text for text in rows.all_text_contents())
        assert "find=every-launch+REDIS" in states(seen)


def test_what_is_not_chosen_is_gone_everywhere_and_a_link_keeps_that(browser: Browser, page: Path) -> None:
    with opened(browser, page) as seen:
        before = seen.visible("li.line")
        seen.page.get_by_label("docker", exact=True).uncheck()
        seen.page.get_by_label("redis", exact=True).uncheck()
        assert seen.visible('[data-target="docker"]') == seen.visible('figure[data-workload="redis"]') == 0
        assert 0 < seen.visible("li.line") < before
        after, fragment = seen.visible("li.line"), states(seen)
    with opened(browser, page, f"#{fragment}") as again:
        assert again.visible("li.line") == after
        assert not again.page.get_by_label("docker", exact=True).is_checked()
    with opened(browser, page, "#metric=startup.total") as one:
        assert one.visible("#startup figure") == 6 and one.visible("#disk figure") == 0


def test_memory_is_of_one_kind_at_a_time(browser: Browser, page: Path) -> None:
    with opened(browser, page) as seen:
        assert (seen.visible(".kind-pss"), seen.visible(".kind-rss"), seen.visible(".kind-uss")) == (1, 0, 0)
        seen.page.get_by_label("RSS", exact=True).check()
        assert (seen.visible(".kind-pss"), seen.visible(".kind-rss")) == (0, 1)
        assert "memory=rss" in states(seen)
    with opened(browser, page, "#memory=uss") as again:
        assert (again.visible(".kind-pss"), again.visible(".kind-uss")) == (0, 1)


def test_a_page_that_is_come_back_to_shows_what_its_boxes_say(browser: Browser, page: Path) -> None:
    with opened(browser, page) as seen:
        box = seen.page.get_by_label("docker", exact=True)
        box.uncheck()
        seen.page.locator("nav a").nth(1).click()
        seen.page.goto("about:blank")
        seen.page.go_back()
        assert not box.is_checked() and seen.visible('[data-target="docker"]') == 0
        seen.misdeeds.clear()  # a blank page is one more request


def test_links_within_a_page_keep_what_is_chosen_and_lead_to_their_section(browser: Browser, page: Path) -> None:
    def top(seen: Seen) -> float:
        return float(seen.page.locator("#memory").evaluate("section => section.getBoundingClientRect().top"))

    with opened(browser, page) as seen:
        seen.page.locator("nav a").nth(1).click()
        assert states(seen) == "memory" and top(seen) < 100
        seen.page.get_by_label("docker", exact=True).uncheck()
        fragment = states(seen)
        assert "at=memory" in fragment and "target=host" in fragment
        seen.page.locator("nav a").nth(2).click()
        assert seen.visible('[data-target="docker"]') == 0 and "target=host" in states(seen)
        assert seen.page.evaluate("document.activeElement.id") == "disk"
        seen.page.go_back()
        assert states(seen) == fragment and seen.visible('[data-target="docker"]') == 0
    with opened(browser, page, f"#{fragment}") as again:
        assert again.visible('[data-target="docker"]') == 0 and top(again) < 100


def test_a_fragment_of_nothing_shows_everything(browser: Browser, page: Path) -> None:
    with opened(browser, page) as seen:
        everything = seen.visible("li.line")
        seen.page.evaluate("location.hash = '#target=host&sort=every-launch+3+descending'")
        seen.page.wait_for_function("document.querySelector('th[aria-sort]')")
        assert seen.visible("li.line") < everything
        seen.page.evaluate("location.hash = ''")
        seen.page.wait_for_function("!document.querySelector('th[aria-sort]')")
        assert seen.visible("li.line") == everything


@pytest.mark.parametrize("fragment", ["target=nonsense", "target=%ZZ&memory=zzz", "%ZZ", "=", "sort=every-launch+99+x"])
def test_what_a_fragment_does_not_know_is_left_out(browser: Browser, page: Path, fragment: str) -> None:
    with opened(browser, page) as seen:
        everything = seen.visible("li.line")
    with opened(browser, page, f"#{fragment}") as seen:
        assert seen.visible("li.line") == everything
        assert (seen.visible(".kind-pss"), seen.visible(".kind-rss"), seen.visible(".kind-uss")) == (1, 0, 0)
    with opened(browser, page, "#target=nonsense&target=host") as seen:
        assert seen.visible('[data-target="host"]') and not seen.visible('[data-target="docker"]')
    with opened(browser, page, "#target=") as seen:
        assert seen.visible("li.line") == 0


def test_a_kind_of_memory_that_is_chosen_is_shown(browser: Browser, page: Path) -> None:
    with opened(browser, page, "#metric=memory.rss") as seen:
        assert seen.visible("#memory .kind-rss figure") == 6
        assert seen.page.get_by_label("PSS", exact=True).is_disabled()


def test_what_is_sought_or_sorted_is_unfolded(browser: Browser, page: Path) -> None:
    for fragment in ("find=every-launch+redis", "sort=every-launch+3+descending"):
        with opened(browser, page, f"#{fragment}") as seen:
            assert seen.visible("#every-launch tbody tr") > 20
    with opened(browser, page) as seen:
        assert seen.visible("#every-launch tbody tr") == 0


def test_cells_are_sought_as_they_are_seen(browser: Browser, page: Path) -> None:
    with opened(browser, page, "#find=every-launch+host++hello") as seen:
        assert seen.visible("#every-launch tbody tr") == 7
    with opened(browser, page, "#find=every-launch+hosthello") as seen:
        assert seen.visible("#every-launch tbody tr") == 0


def test_ratios_are_sorted_by_amount_in_chinese_too(browser: Browser, pages: dict[str, Path]) -> None:
    with opened(browser, pages["zh"], "#sort=table-1-1+4+ascending") as seen:
        assert seen.texts("#table-1-1 thead th")[4] == "比值"
        shown = [text for text in seen.texts("#table-1-1 tbody td:nth-child(5)") if text != "—"]
    amounts = [float(re.match(r"[\d.]+", text)[0]) for text in shown]  # type: ignore[index]
    assert amounts == sorted(amounts) and any("\uff08" in text for text in shown) and max(amounts) > 100


@pytest.mark.parametrize("chart", ["startup-1", "phases-2", "pss-parts-1", "growth-1", "glance-1-3"])
def test_every_chart_can_be_saved(browser: Browser, page: Path, chart: str) -> None:
    with opened(browser, page, accept_downloads=True) as seen:
        figure = seen.page.locator(f"#{chart}")
        with seen.page.expect_download() as vector:
            figure.get_by_text("SVG", exact=True).click()
        with seen.page.expect_download() as bitmap:
            figure.get_by_text("PNG", exact=True).click()
        drawn = ElementTree.parse(vector.value.path()).getroot()
        texts = " ".join("".join(text.itertext()) for text in drawn.iter("{http://www.w3.org/2000/svg}text"))
        assert "docker" in texts and (figure.locator("figcaption b").text_content() or "?") in texts
        assert not re.search(r"var\(--", ElementTree.tostring(drawn, "unicode"))
        assert bitmap.value.path().read_bytes().startswith(b"\x89PNG")
        assert (vector.value.suggested_filename, bitmap.value.suggested_filename) == (f"{chart}.svg", f"{chart}.png")


LIMITS = """() => [...document.querySelectorAll('text')].filter(text => text.getClientRects().length).map(text => {
  const { left, right, top, bottom } = text.getBoundingClientRect();
  return [text.textContent, left, right, top, bottom];
})"""


@pytest.mark.parametrize(
    ("kind", "chart"),
    [
        ("report", "startup-1"),
        ("report", "pss-parts-1"),
        ("report", "growth-1"),
        ("zh", "growth-1"),
        ("wide", "changes-1"),
    ],
)
def test_a_saved_chart_cuts_nothing_off(
    browser: Browser, pages: dict[str, Path], kind: str, chart: str, tmp_path: Path
) -> None:
    """Every text of the chart is in it, within its edges, and none is over another."""
    with opened(browser, pages[kind], accept_downloads=True) as seen:
        figure = seen.page.locator(f"#{chart}")
        with seen.page.expect_download() as vector:
            figure.get_by_text("SVG", exact=True).click()
        vector.value.save_as(tmp_path / "chart.svg")
        wanted = figure.locator(".scale, .name, .value, .ran, .pieces li, thead th:not(:first-child), td, text")
        told = [re.sub(r"\s", "", text) for text in wanted.all_text_contents()]
    with opened(browser, tmp_path / "chart.svg", viewport={"width": 900, "height": 2000}) as drawn:
        texts = drawn.page.evaluate(LIMITS)
    everything = re.sub(r"\s", "", "".join(text for text, *_ in texts))
    assert told and not [text for text in told if text not in everything]
    assert all(left >= 0 and right <= 900 for _, left, right, *_ in texts), texts
    over = [
        (one[0], other[0])
        for one, other in combinations(texts, 2)
        if one[1] < other[2] - 1 and other[1] < one[2] - 1 and one[3] < other[4] - 4 and other[3] < one[4] - 4
    ]
    assert not over


def test_saved_curves_are_as_thin_as_those_of_the_page(browser: Browser, page: Path) -> None:
    with opened(browser, page, accept_downloads=True) as seen:
        with seen.page.expect_download() as vector:
            seen.page.locator("#growth-1").get_by_text("SVG", exact=True).click()
        drawn = ElementTree.parse(vector.value.path()).getroot()
    curves = [path for path in drawn.iter("{http://www.w3.org/2000/svg}path") if "curve" in path.get("class", "")]
    assert len(curves) == 4 and {path.get("vector-effect") for path in curves} == {"non-scaling-stroke"}


def test_curves_have_their_scales_beside_them(browser: Browser, page: Path) -> None:
    with opened(browser, page) as seen:
        texts = seen.texts("#growth-1 svg.curves text")
        assert texts == ["1 MiB", "10 MiB", "100 MiB", "1 GiB", "N = 1", "N = 10", "N = 100", "N = 1000"]


def test_a_saved_chart_shows_what_was_chosen(browser: Browser, page: Path) -> None:
    with opened(browser, page, "#target=host&target=docker", accept_downloads=True) as seen:
        with seen.page.expect_download() as vector:
            seen.page.locator("#startup-1").get_by_text("SVG", exact=True).click()
        drawn = vector.value.path().read_text("utf-8")
    assert "docker" in drawn and "namespace" not in drawn.replace('xmlns="', "")


# How it can be read


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("kind", ["report", "zh", "compared", "site"])
def test_nobody_is_shut_out(browser: Browser, pages: dict[str, Path], kind: str, scheme: str) -> None:
    with opened(browser, pages[kind], color_scheme=scheme) as seen:
        for details in seen.page.locator("details").all():
            details.evaluate("each => each.open = true")
        assert seen.barriers() == []


def test_dark_mode_is_dark(browser: Browser, page: Path) -> None:
    def background(scheme: str) -> str:
        with opened(browser, page, color_scheme=scheme) as seen:
            return str(seen.page.evaluate("getComputedStyle(document.body).backgroundColor"))

    assert (background("light"), background("dark")) == ("rgb(255, 255, 255)", "rgb(13, 17, 23)")


@pytest.mark.parametrize("kind", ["report", "zh", "compared", "site"])
def test_a_phone_has_to_scroll_in_one_direction_only(browser: Browser, pages: dict[str, Path], kind: str) -> None:
    with opened(browser, pages[kind], viewport=PHONE) as seen:
        assert seen.page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]


def test_paper_has_no_buttons_and_cuts_nothing_off(browser: Browser, page: Path) -> None:
    with opened(browser, page) as seen:
        seen.page.emulate_media(media="print")
        assert seen.visible("nav") == seen.visible("form") == seen.visible("button[data-save]") == 0
        assert seen.visible("#startup circle.point") == 84
        tables = seen.count("table")
        assert seen.visible("table") == tables > 10
        head = seen.page.locator(".matrix thead").first
        assert head.evaluate("head => getComputedStyle(head).breakAfter") == "avoid"
        assert seen.page.locator(".switch").inner_text().split() == ["Which", "memory", "PSS"]
        assert seen.page.pdf(format="A4").startswith(b"%PDF")


def test_without_scripts_everything_is_there_but_what_needs_them(browser: Browser, page: Path) -> None:
    with opened(browser, page, java_script_enabled=False) as seen:
        assert seen.visible("form") == seen.visible("button") == seen.visible("input[type=search]") == 0
        assert seen.visible("#startup circle.point") == 84 and seen.visible("#isolation td.own") > 5
        seen.page.get_by_label("RSS", exact=True).check()
        assert (seen.visible(".kind-pss"), seen.visible(".kind-rss")) == (0, 1)


def test_chinese_is_chinese(browser: Browser, pages: dict[str, Path]) -> None:
    with opened(browser, pages["zh"]) as seen:
        assert seen.page.evaluate("document.documentElement.lang") == "zh-Hans"
        assert re.search(r"[\u4e00-\u9fff]{4}", seen.texts("h1")[0])
        heads = seen.texts("h2")
        assert all(re.search(r"[\u4e00-\u9fff]", head) for head in heads), heads


def test_a_comparison_has_its_verdicts_first(browser: Browser, pages: dict[str, Path]) -> None:
    with opened(browser, pages["compared"]) as seen:
        assert seen.texts("h1")[0].startswith("Regressed: ")
        assert "regressed" in seen.texts("h2")[0] and seen.count("circle.median.regressed") == 5
        assert seen.count("li.line") == seen.count("#comparisons tbody tr") == 12


def test_a_change_beyond_the_axis_is_an_arrow_and_no_point_at_its_end(browser: Browser, pages: dict[str, Path]) -> None:
    with opened(browser, pages["wide"]) as seen:
        assert seen.count("#changes-1 path.beyond") == 3 and seen.count("#changes-1 circle.median") == 3
        assert "arrows: beyond the end of the scale" in seen.texts("#changes-1 .scale")[0]
        assert seen.texts("#changes-1 svg.axis text") == ["-100 %", "-50 %", "0 %", "+50 %", "+100 %"]
    with opened(browser, pages["compared"]) as seen:
        assert seen.count("path.beyond") == 0 and "arrows" not in seen.texts(".scale")[0]


def test_an_index_leads_to_each_report(browser: Browser, pages: dict[str, Path]) -> None:
    index, count = site.write(pages["site"].parent)
    assert count == 2
    with opened(browser, index) as seen:
        places = [link.get_attribute("href") for link in seen.page.locator("main a").all()]
        assert sorted(places, key=str) == ["compared.html", "zh/index.html"]
        assert all((index.parent / str(place)).exists() for place in places)


# What it withstands


@pytest.mark.parametrize("code", ["en", "zh"])
def test_hostile_names_change_nothing_but_text(browser: Browser, tmp_path: Path, code: str) -> None:
    calm, wild = tmp_path / "calm", tmp_path / "wild"
    one = full(3)
    hello = replace(one, runs=[run for run in one.runs if run.workload == "hello"])
    write([saved(hello, tmp_path / "calm.jsonl")], calm, ["html"], code)
    write([saved(poisoned(one), tmp_path / "wild.jsonl")], wild, ["html"], code)
    with opened(browser, calm / "index.html") as seen:
        tags = seen.page.evaluate("[...new Set([...document.querySelectorAll('*')].map(each => each.tagName))].sort()")
    with opened(browser, wild / "index.html", viewport=PHONE) as seen:
        assert set(seen.page.evaluate("[...document.querySelectorAll('*')].map(each => each.tagName)")) <= set(tags)
        assert "<img src=x onerror=alert(1)>" in seen.texts("#startup .workload")[0]
        assert seen.page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
        seen.page.get_by_label("docker", exact=True).uncheck()
        with seen.page.expect_download() as vector:
            seen.page.locator("#startup-1").get_by_text("SVG", exact=True).click()
        assert ElementTree.parse(vector.value.path()).getroot() is not None


def test_a_page_may_run_its_own_script_alone(browser: Browser, page: Path, tmp_path: Path) -> None:
    text = page.read_text("utf-8")
    attacked = tmp_path / "index.html"
    attacked.write_text(text.replace("<main", "<script>document.title = 'mine'</script><main", 1), "utf-8")
    context = browser.new_context()
    found = context.new_page()
    found.goto(attacked.as_uri())
    assert found.title() == "Weighbridge report"
    context.close()


def test_a_usual_report_is_small(tmp_path: Path) -> None:
    result = saved(full(30), tmp_path / "usual.jsonl")
    assert len({(run.target, run.workload) for run in result.runs}) == 12
    (path,) = write([result], tmp_path / "report", ["html"])
    assert path.stat().st_size <= 1_500_000


def test_very_many_launches_are_still_a_page(browser: Browser, tmp_path: Path) -> None:
    many = tmp_path / "many.jsonl"
    load.write(many)
    began = time.perf_counter()
    frame = pd.read_json(many, lines=True)
    pandas_took = time.perf_counter() - began
    assert len(frame) > load.RUNS
    del frame
    result = store.read(many)
    began = time.perf_counter()
    path, beside = html.write(summarize([result]), [result], tmp_path)
    took = time.perf_counter() - began
    assert took <= pandas_took + 5
    assert path.stat().st_size <= 5_000_000
    assert beside.name == "data-1.jsonl.gz"
    empty = tmp_path / "empty.html"
    empty.write_text("<!doctype html><title>empty</title>", "utf-8")

    def until_interactive(page: Path) -> float:
        began = time.perf_counter()
        with opened(browser, page) as seen:
            seen.page.evaluate("new Promise(done => requestAnimationFrame(done))")
            return time.perf_counter() - began

    until_interactive(empty)
    assert until_interactive(path) <= 3 * until_interactive(empty) + 2
    with opened(browser, path) as seen:
        assert "not all launches are drawn" in seen.texts("#startup .scale")[0]
        assert seen.count("#startup-1 li:first-child circle.point") == charts.MOST_POINTS
        assert "the data have all of them" in seen.texts("#launches .notes")[0]
