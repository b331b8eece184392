"""The isolation matrix: what each target separates its instances from, in words, by what was read from inside."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from harness.meters.isolation import CAPABILITIES, ISOLATES, Isolation, Whose
from harness.model import Applied
from harness.report.inside import Inside
from harness.report.summary import Campaign, Summary
from harness.report.tables import Table, amount, applied_by
from harness.wording import NONE

FEW = 5
"""So many capabilities, held or lacking, are named in a cell."""


@dataclass(frozen=True)
class Line:
    """One property: its name, what it is about, what was found, and whose that is where it is one's or the other's."""

    name: str
    about: str
    found: str
    whose: Whose | None = None

    def title(self) -> str:
        return f"{self.name}: {self.about}" if self.about else self.name


def lines(
    isolation: Isolation,
    limits: Mapping[str, Applied],
    processes: tuple[int, int] | None = None,
    few: int = FEW,
) -> list[Line]:
    """What an instance is separated from. processes: the fewest and the most seen, where several were asked.

    few: so many capabilities, held or lacking, are named.
    """
    kernel = ", ".join(told for told in (isolation.kernel, isolation.kernel_version) if told)
    privileges = {None: NONE, True: "yes", False: "no"}[isolation.no_new_privileges]
    fewest, most = processes or (isolation.processes, isolation.processes)
    seen = NONE if fewest is None else f"{fewest}" if fewest == most else f"{fewest} to {most}"
    return [
        Line("Kernel", "", kernel or NONE, isolation.kernel),
        *(
            Line(f"{kind} namespace", ISOLATES[kind], whose or NONE, whose)
            for kind, whose in isolation.namespaces.items()
        ),
        _root(isolation),
        Line("Capabilities", "of root inside, within its user namespace", _capabilities(isolation.capabilities, few)),
        Line("Seccomp", "a filter of system calls", isolation.seccomp or NONE),
        Line("No new privileges", "none by setuid or file capabilities", privileges),
        Line("CPUs", "", _limited("cpus", isolation.cpus, limits)),
        Line("Memory", "", _limited("memory", isolation.memory, limits)),
        Line("Processes seen", "", seen),
    ]


def tables(summary: Summary) -> list[Table]:
    """A matrix for each campaign that has a run to tell of: a column a target, or several where its launches differ."""
    several = len(summary.campaigns) > 1
    return [_table(campaign, several) for campaign in summary.campaigns if campaign.insides]


def _table(campaign: Campaign, several: bool) -> Table:
    columns = [lines(inside.isolation, inside.limits, inside.processes) for inside in campaign.insides]
    rows = list(zip(*columns, strict=True))
    runs = [
        f"{i.runs} of {', '.join(i.workloads)}" if i in _differing(campaign) else f"{i.runs}" for i in campaign.insides
    ]
    return Table(
        f"Isolation, as found inside: campaign {campaign.id}" if several else "Isolation, as found inside",
        ("", *(inside.label for inside in campaign.insides)),
        (*((row[0].title(), *(line.found for line in row)) for row in rows), ("Runs", *runs)),
        tuple(_notes(campaign)),
        (*(tuple(line.whose for line in row) for row in rows), (None,) * len(columns)),
    )


def _notes(campaign: Campaign) -> Iterator[str]:
    unknown = [name for name in ("boot id", "namespaces") if not campaign.host.informational.get(name)]
    if unknown:
        missing = f"the host's {' and '.join(unknown)} {'was' if unknown == ['boot id'] else 'were'} not recorded"
        yield f"Whose a kernel and its namespaces are cannot be told: {missing}."
    for label in dict.fromkeys(inside.label for inside in _differing(campaign)):
        yield f"{label}: its runs differ in what they found. Each outcome has a column, with the runs that had it."
    for label, held in dict.fromkeys((i.label, i.isolation.capabilities) for i in campaign.insides):
        if held and not _named(held, FEW):
            yield f"{label}: its capabilities are {', '.join(held)}."


def _differing(campaign: Campaign) -> list[Inside]:
    targets = [inside.target for inside in campaign.insides]
    return [inside for inside in campaign.insides if targets.count(inside.target) > 1]


def _root(isolation: Isolation) -> Line:
    name = "Root inside is"
    if isolation.kernel == "own":
        return Line(name, "", "root of its own kernel", "own")
    if isolation.root == 0:
        return Line(name, "", "the host's root", "host's")
    return Line(name, "", NONE if isolation.root is None else f"uid {isolation.root} on the host")


def _capabilities(held: Sequence[str] | None, few: int) -> str:
    if not held:
        return NONE if held is None else "none"
    return _named(held, few) or f"{len(held)} of {len(CAPABILITIES)}"


def _named(held: Sequence[str], few: int) -> str | None:
    """Capabilities by name, be it of those that are lacking; None where both are too many."""
    lacking = [name for name in CAPABILITIES if name not in held]
    if not lacking:
        return f"all {len(held)}"
    if len(lacking) <= few:
        return f"all but {', '.join(lacking)}"
    return f"{len(held)} of {len(CAPABILITIES)}: {', '.join(held)}" if len(held) <= few else None


def _limited(name: str, seen: int | None, limits: Mapping[str, Applied]) -> str:
    """What is seen inside and, where a limit was asked for, of how much and by which mechanism."""
    told = f"{amount(name, seen)} seen"
    if name not in limits:
        return told
    return f"{told}, {amount(name, limits[name].asked)} asked: {applied_by(limits[name])}"
