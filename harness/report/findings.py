"""What a campaign found, in a sentence: by how much one engine takes longer, or more, than the others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

from harness.doubts import Launches
from harness.model import TargetRecord
from harness.stats.estimate import Ratio, ratio_interval
from harness.wording import Words, line, ran, times

if TYPE_CHECKING:
    from harness.report.summary import Campaign

METRICS = ("startup.total", "memory.pss", "disk.instance")
_NOUNS = {
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
    """`more` takes `ratio` times what `less` does; both are targets. Where the interval holds 1, a sentence says so."""

    workload: str
    metric: str
    more: str
    less: str
    ratio: Ratio


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
            ratio = ratio_interval(cells[more], cells[less])
            if ratio is not None:
                yield Finding(line(workload), metric, line(more), line(less), ratio)


def sentence(campaign: Campaign, workload: str, metric: str) -> Words | None:
    """What was found of a metric under a workload; None where there are no two targets that have it."""
    nouns = nouns_of(campaign)
    told = [_words(each, nouns) for each in campaign.findings if (each.workload, each.metric) == (workload, metric)]
    if not told:
        return None
    if len(told) == 1:
        return Words("On this machine {first}.", first=told[0])
    return Words("On this machine {first}, and {second}.", first=told[0], second=told[1])


def footing(campaign: Campaign, workload: str, metric: str) -> Words | None:
    """What the sentence rests on: the ratios with their intervals, and of how many launches they are."""
    mine = [each for each in campaign.findings if (each.workload, each.metric) == (workload, metric)]
    if not mine:
        return None
    ratios = ", ".join(times(each.ratio) for each in mine)
    fewest, most = (choose(each.ratio.n for each in mine) for choose in (min, max))
    n: object = fewest if fewest == most else Words("{fewest} to {most}", fewest=fewest, most=most)
    return Words(
        "Ratios of medians over {n} rounds with the workload {workload}: {ratios}.",
        n=n,
        workload=workload,
        ratios=ratios,
    )


def _pairs(ordered: Sequence[str]) -> list[tuple[str, str]]:
    if len(ordered) < 2:
        return []
    inner = ordered[1:-1]
    if not inner:
        return [(ordered[0], ordered[1])]
    centre = next((key for key in inner if key.partition("/")[0] == _CENTRE), inner[len(inner) // 2])
    return [(ordered[0], centre), (centre, ordered[-1])]


def _words(finding: Finding, nouns: Mapping[str, str]) -> Words:
    a, b, ratio = nouns[finding.more], nouns[finding.less], finding.ratio
    if ratio.low is not None and ratio.high is not None and ratio.low <= 1 <= ratio.high:
        return Words(_ALIKE[finding.metric], a=a, b=b)
    return Words(_MORE[finding.metric], a=a, b=b, factor=f"{ratio.ratio:.3g}")


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
            nouns[key] = _NOUNS.get(kind, key) if kinds.count(kind) == 1 else key
    return nouns


def machine(target: TargetRecord) -> str | None:
    """What ran the guest, in a sentence; None for what is no machine."""
    return Words("QEMU TCG, no KVM") if target.accelerator == "tcg" else ran(target)
