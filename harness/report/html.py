"""index.html: what a person sees first, and everything that it rests on, in one file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from harness import store
from harness.metrics import METRICS
from harness.model import Run
from harness.report import attached, charts, findings, growth, matrix, page, particulars, tables
from harness.report.attached import Link
from harness.report.charts import Chart
from harness.report.language import ENGLISH, Language, language
from harness.report.summary import Campaign, Failed, Summary, counted
from harness.report.tables import About, Table
from harness.stats.estimate import CONFIDENCE
from harness.store import Result
from harness.wording import NONE, Labels, Words, count_cpus, line, listed, quantity

KINDS = ("pss", "rss", "uss")
MOST_LAUNCHES = 500
MOST_FAILURES = 100
MOST_LOGS = 10
_METHOD = (
    Words(
        "The same bytes: every target starts the same root file system, checked by its digest in each launch, with the "
        "same first program and the same limits."
    ),
    Words(
        "The same line: time runs from the request to the doorbell that the workload rings when it is ready, on the "
        "host's monotonic clock alone. What an engine postpones until the start is included."
    ),
    Words(
        "The same moment: targets take turns in every round, in random order, so that a machine that drifts drifts for "
        "all of them. The first round warms up and is not counted."
    ),
    Words(
        "Medians with a distribution-free {level:.0%} interval from order statistics; ratios with an interval from a "
        "bootstrap of whole rounds.",
        level=CONFIDENCE,
    ),
    Words(
        "Memory is summed over all processes that exist because of an instance, at rest; daemons that all instances "
        "share are counted apart. Disk is allocated blocks."
    ),
    Words(
        "QEMU TCG is software emulation. KVM is said only where KVM ran the guest, which is found out by booting one."
    ),
    Words(
        "Numbers of one campaign on one machine compare the targets on that machine, then. They are no verdict between "
        "two versions of an engine."
    ),
)


def write(summary: Summary, results: Sequence[Result], directory: Path, code: str = "en") -> list[Path]:
    path = directory / "index.html"
    links, beside = attached.links(results, directory)
    path.write_text(render(summary, results, language(code), links), encoding="utf-8")
    return [path, *beside]


def render(
    summary: Summary, results: Sequence[Result], language: Language = ENGLISH, links: Sequence[Link] = ()
) -> str:
    """The whole page."""
    first, sentence = _first(summary)
    title = sentence
    if lab := first.host.lab:
        told = "{lab}. These numbers compare its targets with each other; they are no other machine's."
        title = Words(told, lab=line(lab))
    everything = [(result, run) for result in results for run in counted(result)]
    return page.render(
        "report.html",
        language,
        title=language.say("Weighbridge report"),
        description=language(title),
        made=summary.campaigns[0].started,
        summary=summary,
        sentence=None if title is sentence else sentence,
        under=list(_under(summary)),
        sections=[(name, language.say(told)) for name, told in SECTIONS if everything or name not in OF_LAUNCHES],
        picks=list(_picks(summary, language)),
        overview=_overview(summary),
        legend=list(_legend(summary)),
        more=list(_more(first)),
        confidence=CONFIDENCE,
        startup=_beside(charts.strips(summary, "startup.total"), charts.waterfalls(summary)),
        memory={kind: _totals(summary, f"memory.{kind}") for kind in KINDS},
        disk={"instance": _totals(summary, "disk.instance"), "shared": _totals(summary, "disk.shared")},
        growths=growth.growths(summary),
        log=language.say("log scale"),
        linear=language.say("linear scale, from 0"),
        instances=growth.INSTANCES,
        across=growth.across(),
        bins=charts.BINS,
        most_points=charts.MOST_POINTS,
        matrices=list(_matrices(summary)),
        count=len(everything),
        launches=_launches(results, everything),
        details=[_details(campaign) for campaign in summary.campaigns],
        origin=particulars.origin,
        method=list(map(language, _METHOD)),
        parts=_parts,
        links=links,
    )


SECTIONS = (
    ("startup", "Start-up"),
    ("memory", "Memory"),
    ("disk", "Disk"),
    ("isolation", "Isolation"),
    ("launches", "Every launch"),
    ("campaign-1", "Configuration"),
    ("method", "Method"),
    ("data", "Data"),
)
OF_LAUNCHES = ("startup", "memory", "disk", "isolation", "launches")
"""Sections that have nothing to say where there was no launch."""


def _first(summary: Summary) -> tuple[Campaign, Words]:
    """The campaign that the page begins with, the first that found something, and its sentence."""
    for campaign in summary.campaigns:
        if told := findings.sentence(campaign, findings.first_workload(campaign), "startup.total"):
            return campaign, told
    return summary.campaigns[0], findings.nothing_found(summary.campaigns)


def _under(summary: Summary) -> Iterator[tuple[Words, int, Words | None]]:
    """What the first sentence rests on and what the other campaigns say, a line each with the campaign's number.

    The last of a campaign has how many warnings there are of it.
    """
    for number, campaign in enumerate(summary.campaigns, 1):
        if told := findings.footing(campaign, findings.first_workload(campaign), "startup.total"):
            yield _of_campaign(summary, campaign, told), number, None
        cpu = campaign.host.gating.get("cpu model")
        told = Words(
            "{launches} on {started}; {cpu}, {cpus}, Linux {kernel}.",
            launches=findings.launches(campaign.measured, campaign.failed),
            started=campaign.started[:10],
            cpu=particulars.told(cpu) if cpu else NONE,
            cpus=count_cpus(particulars.told(cores) if (cores := campaign.host.gating.get("cores", NONE)) != 1 else 1),
            kernel=particulars.told(campaign.host.gating.get("kernel", NONE)),
        )
        count = len(campaign.warnings)
        warned = Words("1 warning") if count == 1 else Words("{count} warnings", count=count)
        yield _of_campaign(summary, campaign, told), number, warned if count else None


def _of_campaign(summary: Summary, campaign: Campaign, told: Words) -> Words:
    """With the campaign's name where there are several to be told apart."""
    return Words("{id}: {told}", id=campaign.id, told=told) if len(summary.campaigns) > 1 else told


def _more(campaign: Campaign) -> Iterator[Words]:
    """What was found besides, and which of it is missing."""
    workload = findings.first_workload(campaign)
    for metric in findings.METRICS[1:]:
        if told := findings.sentence(campaign, workload, metric):
            yield listed([told, *findings.missing(campaign, workload, metric)], "{some} {more}")


def _legend(summary: Summary) -> Iterator[Words]:
    """What is drawn at a glance."""
    shown = [campaign for campaign in summary.campaigns if campaign.measured]
    if not shown:
        return
    yield Words("Points: medians; thick lines: their {level:.0%} intervals.", level=CONFIDENCE)
    zeros = [(each, each.reference) for each in shown if each.reference]
    told = [
        (each, Words("The dashed line is the zero line, {zero}: {noun}.", zero=zero, noun=findings.NOUNS[zero]))
        for each, zero in zeros
    ]
    if len(told) == len(shown) and len({zero for _, zero in zeros}) == 1:
        yield told[0][1]
    else:
        yield from (_of_campaign(summary, *each) for each in told)


def _picks(summary: Summary, language: Language) -> Iterator[tuple[str, str, list[str]]]:
    rows = [row for campaign in summary.campaigns for row in campaign.rows]
    for key, told in (("target", "Targets"), ("workload", "Workloads"), ("metric", "Metrics")):
        if choices := list(dict.fromkeys(getattr(row, key) for row in rows)):
            yield key, language.say(told), choices


Beside = list[tuple[Chart, Chart]]


def _totals(summary: Summary, metric: str) -> Beside:
    """A workload's totals, and what they consist of."""
    return _beside(charts.strips(summary, metric), charts.stacks(summary, metric))


def _beside(left: Sequence[Chart], right: Sequence[Chart]) -> Beside:
    return list(zip(left, right, strict=True))


def _overview(summary: Summary) -> list[list[Chart]]:
    """A workload's three pictures side by side, in which each target is told in plain words besides."""
    nouns = {key: noun for campaign in summary.campaigns for key, noun in findings.nouns_of(campaign).items()}

    def explained(chart: Chart) -> Chart:
        return replace(chart, lines=tuple(replace(each, ran=each.ran or noun_of(each)) for each in chart.lines))

    def noun_of(line: charts.Line) -> str:
        noun = nouns.get(line.target, "")
        return "" if noun == line.target else noun

    three = (charts.strips(summary, metric, points=False) for metric in findings.METRICS)
    return [list(map(explained, side_by_side)) for side_by_side in zip(*three, strict=True)]


def _matrices(summary: Summary) -> Iterator[tuple[Table, list[str]]]:
    """The isolation matrices with what it costs above, and the target of each column."""
    with_runs = [campaign for campaign in summary.campaigns if campaign.insides]
    for campaign, content in zip(with_runs, matrix.tables(summary), strict=True):
        targets = [inside.target for inside in campaign.insides]
        workload = findings.first_workload(campaign)
        costs = []
        for metric in findings.METRICS:
            rows = [row for row in campaign.rows if (row.workload, row.metric) == (workload, metric)]
            mine = {
                row.target: tables.format_value_or_stand_in(row, tables.index_by_metric(campaign, row)) for row in rows
            }
            told = Words(
                "{name}: {about}", name=Words(METRICS[metric].title), about=Words("with {workload}", workload=workload)
            )
            costs.append((told, *(mine.get(target, NONE) for target in targets)))
        nothing = tuple(None for _ in targets)
        yield (
            replace(content, rows=(*costs, *content.rows), marks=(*(nothing for _ in costs), *content.marks)),
            targets,
        )


def _parts(title: str) -> list[object]:
    """The name of a property, and what it is about if that is told."""
    known = title.values if isinstance(title, Words) else {}
    return [known["name"], known["about"]] if "about" in known else [title]


def _launches(results: Sequence[Result], everything: Sequence[tuple[Result, Run]]) -> Table:
    """Every measured launch with its headlines, in the order in which they were."""
    several = len(results) > 1
    labels = {id(result): Labels(result.targets, result.header.host.lab) for result in results}
    rows, about = [], []
    for result, run in everything[:MOST_LAUNCHES]:
        told = [
            NONE if (value := store.amount(run, metric)) is None else quantity(value, METRICS[metric].unit)
            for metric in findings.METRICS
        ]
        outcome = Words("ok") if run.error is None else line(f"{run.error.type}: {run.error.message}")
        where = [line(result.header.campaign)] if several else []
        rows.append((*where, labels[id(result)][run.target], line(run.workload), str(run.round), *told, outcome))
        about.append(About(line(run.target), line(run.workload)))
    columns = ("Target", "Workload", "Round", "Start-up", "Memory, PSS", "Disk, one more", "Outcome")
    notes: tuple[str, ...] = ()
    if len(everything) > MOST_LAUNCHES:
        notes = (
            Words(
                "The first {shown} of {all} launches; the data have all of them.",
                shown=MOST_LAUNCHES,
                all=len(everything),
            ),
        )
    heads = ("Campaign", *columns) if several else columns
    return Table(Words("Every launch"), tuple(map(Words, heads)), tuple(rows), notes, about=tuple(about))


def _details(campaign: Campaign) -> tuple[Campaign, list[Table], list[Failed]]:
    """A campaign's tables, what went wrong first, and the failures of which the log is shown."""
    content = particulars.details(campaign)
    if campaign.failures:
        failed = particulars.failures(campaign)
        if len(failed.rows) > MOST_FAILURES:
            note = Words("The first {shown} of {all} failed runs.", shown=MOST_FAILURES, all=len(failed.rows))
            failed = replace(
                failed, rows=failed.rows[:MOST_FAILURES], about=failed.about[:MOST_FAILURES], notes=(note,)
            )
        content.insert(0, failed)
    return campaign, content, [failure for failure in campaign.failures if failure.log][:MOST_LOGS]
