"""What a campaign found, in a sentence: by how much one engine takes longer, or more, than the others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

from harness.doubts import Launches
from harness.model import TargetRecord
from harness.stats.estimate import Ratio, ratio_interval
from harness.wording import Words, count_launches, factor, line, listed, ran, times

if TYPE_CHECKING:
    from harness.report.summary import Campaign

METRICS = ("startup.total", "memory.pss", "disk.instance")
NOUNS = {
    "host": Words("a plain process"),
    "userns-chroot": Words("a plain process in a user namespace"),
    "namespace": Words("a bare namespace sandbox"),
    "docker": Words("a Docker container"),
}
_MORE = {
    "startup.total": Words("{a} takes {factor} times as long to start as {b}"),
    "memory.pss": Words("{a} takes {factor} times the memory of {b}"),
    "disk.instance": Words("one more instance of {a} takes {factor} times the disk of {b}"),
}
_ALIKE = {
    "startup.total": Words("{a} and {b} take as long to start, as far as these data tell"),
    "memory.pss": Words("{a} and {b} take as much memory, as far as these data tell"),
    "disk.instance": Words("one more instance of {a} and of {b} take as much disk, as far as these data tell"),
}
_CENTRE = "docker"
"""Of the targets that are neither the least nor the most, the one that a sentence is about if it is there."""


@dataclass(frozen=True)
class Finding:
    """`more` takes `ratio` times what `less` does; both are targets. Where the interval holds 1, a sentence says so.

    `ratio` is None, with a reason, where these two have none.
    """

    workload: str
    metric: str
    more: str
    less: str
    ratio: Ratio | None
    reason: str | None


def of(targets: Sequence[TargetRecord], reference: str | None, launches: Sequence[Launches]) -> Iterator[Finding]:
    """The least against the middle one, and that against the most, of each workload and each of METRICS.

    The reference is the zero line, and is in a finding only where there is but one other target.
    """
    found: dict[tuple[str, str], dict[str, Mapping[int, float]]] = {}
    for target, workload, metric, by_round in launches:
        if metric in METRICS and by_round:
            found.setdefault((workload, metric), {})[target] = by_round
    keys = [target.target for target in targets]
    for (workload, metric), cells in found.items():
        among = [key for key in keys if key in cells and key != reference]
        if len(among) == 1 and reference in cells:
            among.append(reference)
        among.sort(key=lambda key: median(cells[key].values()))
        for less, more in _pairs(among):
            yield _finding(workload, metric, (more, cells[more]), (less, cells[less]))


def _finding(
    workload: str, metric: str, more: tuple[str, Mapping[int, float]], less: tuple[str, Mapping[int, float]]
) -> Finding:
    """Over the rounds that both have, in which the order of the two may be another one than in all rounds."""
    ratio = ratio_interval(more[1], less[1])
    if ratio is not None and ratio.ratio < 1 and (turned := ratio_interval(less[1], more[1])) is not None:
        more, less, ratio = less, more, turned
    reason = None
    if ratio is None:
        shared = more[1].keys() & less[1].keys()
        reason = Words("{reference} has 0", reference=line(less[0])) if shared else Words("they share no round")
    return Finding(line(workload), metric, line(more[0]), line(less[0]), ratio, reason)


def first_workload(campaign: Campaign) -> str:
    """The workload that a report begins with: the first of which something was found, or measured, or any."""
    found = [each.workload for each in campaign.findings if each.metric == METRICS[0] and each.ratio]
    measured = [row.workload for row in campaign.rows if row.estimate]
    return [*found, *measured, *(row.workload for row in campaign.rows), ""][0]


def sentence(campaign: Campaign, workload: str, metric: str) -> Words | None:
    """What was found of a metric under a workload; None where there are no two targets that have it."""
    nouns = nouns_of(campaign)
    mine = [each for each in campaign.findings if (each.workload, each.metric) == (workload, metric)]
    told = [_words(each, each.ratio, nouns) for each in mine if each.ratio]
    if not told:
        return None
    here = Words("On this machine")
    if lab := campaign.host.lab:
        here = Words("{here} ({lab})", here=here, lab=line(lab))
    if len(told) == 1:
        return Words("{here} {first}.", here=here, first=told[0])
    return Words("{here} {first}, and {second}.", here=here, first=told[0], second=told[1])


def nothing_found(campaigns: Sequence[Campaign]) -> Words:
    """What a report says first where there is no sentence of a finding."""
    measured, failed = sum(each.measured for each in campaigns), sum(each.failed for each in campaigns)
    if measured:
        return Words("{launches}, and no two targets to compare.", launches=launches(measured, failed))
    if failed:
        return Words("No launch succeeded: {failed} failed.", failed=failed)
    left_out = next((doubt.told for each in campaigns for doubt in each.warnings if doubt.kind == "left-out"), None)
    return Words("No launch is shown: {why}.", why=left_out) if left_out else Words("No launch was measured.")


def launches(measured: int, failed: int) -> Words:
    """How many there were."""
    if failed:
        return Words("{ok} successful and {failed} failed launches", ok=measured, failed=failed)
    return count_launches(measured)


def footing(campaign: Campaign, workload: str, metric: str) -> Words | None:
    """What the sentence rests on: the ratios with their intervals, over how many rounds, and why one is missing."""
    mine = [each for each in campaign.findings if (each.workload, each.metric) == (workload, metric)]
    ratios = [each.ratio for each in mine if each.ratio]
    told = missing(campaign, workload, metric)
    if ratios:
        fewest, most = (choose(ratio.n for ratio in ratios) for choose in (min, max))
        over = Words("{fewest} to {most} rounds", fewest=fewest, most=most) if fewest != most else _rounds(most)
        resting = Words(
            "Ratios of medians over {rounds} with the workload {workload}: {ratios}.",
            rounds=over,
            workload=workload,
            ratios=", ".join(map(times, ratios)),
        )
        told.insert(0, resting)
    return listed(told, "{some} {more}") if told else None


def missing(campaign: Campaign, workload: str, metric: str) -> list[Words]:
    """Which ratios a sentence would be about as well, and why they are not."""
    return [
        Words("No ratio of {more} to {less}: {reason}.", more=each.more, less=each.less, reason=each.reason)
        for each in campaign.findings
        if (each.workload, each.metric) == (workload, metric) and each.reason
    ]


def _rounds(count: int) -> Words:
    return Words("1 round") if count == 1 else Words("{count} rounds", count=count)


def _pairs(ordered: Sequence[str]) -> list[tuple[str, str]]:
    if len(ordered) < 2:
        return []
    inner = ordered[1:-1]
    if not inner:
        return [(ordered[0], ordered[1])]
    centre = next((key for key in inner if key.partition("/")[0] == _CENTRE), inner[len(inner) // 2])
    return [(ordered[0], centre), (centre, ordered[-1])]


def _words(finding: Finding, ratio: Ratio, nouns: Mapping[str, str]) -> Words:
    a, b = nouns[finding.more], nouns[finding.less]
    if ratio.low is not None and ratio.high is not None and ratio.low <= 1 <= ratio.high:
        return Words(_ALIKE[finding.metric], a=a, b=b)
    told = Words(_MORE[finding.metric], a=a, b=b, factor=factor(ratio.ratio))
    # Without an interval a number is what was seen, and no more.
    return Words("{told} ({rounds} only)", told=told, rounds=_rounds(ratio.n)) if ratio.low is None else told


def nouns_of(campaign: Campaign) -> dict[str, str]:
    """What a sentence calls each target: in plain words where there is but one of its kind, else by its key."""
    kinds = [configuration.target.partition("/")[0] for configuration in campaign.configurations]
    nouns: dict[str, str] = {}
    for kind, configuration in zip(kinds, campaign.configurations, strict=True):
        key = line(configuration.target)
        if configuration.machine is not None:
            noun: str = Words("the VM") if kinds.count(kind) == 1 and kind == "libvirt" else key
            nouns[key] = Words("{noun} ({ran})", noun=noun, ran=configuration.machine)
        else:
            nouns[key] = NOUNS.get(kind, key) if kinds.count(kind) == 1 else key
    return nouns


def machine(target: TargetRecord) -> str | None:
    """What ran the guest, in a sentence; None for what is no machine."""
    return Words("QEMU TCG, no KVM") if target.accelerator == "tcg" else ran(target)
