"""The isolation matrix: what each target separates its instances from, in words, by what was read from inside."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from harness.meters.isolation import CAPABILITIES, ISOLATES, Isolation, Whose
from harness.model import Applied
from harness.report.inside import Inside
from harness.report.particulars import amount, applied_by
from harness.report.summary import Campaign, Summary
from harness.report.tables import Table
from harness.wording import NONE, Words

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
        return Words("{name}: {about}", name=self.name, about=self.about) if self.about else self.name


def lines(
    isolation: Isolation,
    limits: Mapping[str, Applied],
    processes: tuple[int, int] | None = None,
    few: int = FEW,
) -> list[Line]:
    """What an instance is separated from. processes: the fewest and the most seen, where several were asked.

    few: so many capabilities, held or lacking, are named.
    """
    kernel: str = isolation.kernel_version or NONE
    if isolation.kernel:
        kernel = Words(isolation.kernel)
        if isolation.kernel_version:
            kernel = Words("{whose}, {version}", whose=kernel, version=isolation.kernel_version)
    privileges = {None: NONE, True: Words("yes"), False: Words("no")}[isolation.no_new_privileges]
    fewest, most = processes or (isolation.processes, isolation.processes)
    seen = NONE if fewest is None else f"{fewest}"
    if fewest != most:
        seen = Words("{fewest} to {most}", fewest=fewest, most=most)
    return [
        Line(Words("Kernel"), "", kernel, isolation.kernel),
        *(
            Line(Words("{kind} namespace", kind=kind), Words(ISOLATES[kind]), Words(whose) if whose else NONE, whose)
            for kind, whose in isolation.namespaces.items()
        ),
        _root(isolation),
        Line(
            Words("Capabilities"),
            Words("of root inside, within its user namespace"),
            _capabilities(isolation.capabilities, few),
        ),
        Line(
            Words("Seccomp"), Words("a filter of system calls"), Words(isolation.seccomp) if isolation.seccomp else NONE
        ),
        Line(Words("No new privileges"), Words("none by setuid or file capabilities"), privileges),
        Line(Words("CPUs"), "", _limited("cpus", isolation.cpus, limits)),
        Line(Words("Memory"), "", _limited("memory", isolation.memory, limits)),
        Line(Words("Processes seen"), "", seen),
    ]


def tables(summary: Summary) -> list[Table]:
    """A matrix for each campaign that has a run to tell of: a column a target, or several where its launches differ."""
    several = len(summary.campaigns) > 1
    return [_table(campaign, several) for campaign in summary.campaigns if campaign.insides]


def _table(campaign: Campaign, several: bool) -> Table:
    columns = [lines(inside.isolation, inside.limits, inside.processes) for inside in campaign.insides]
    rows = list(zip(*columns, strict=True))
    runs = [
        Words("{count} of {workloads}", count=i.runs, workloads=", ".join(i.workloads))
        if i in _differing(campaign)
        else f"{i.runs}"
        for i in campaign.insides
    ]
    title = Words("Isolation, as found inside")
    return Table(
        Words("{title}: campaign {id}", title=title, id=campaign.id) if several else title,
        ("", *(inside.label for inside in campaign.insides)),
        (*((row[0].title(), *(line.found for line in row)) for row in rows), (Words("Runs"), *runs)),
        tuple(_notes(campaign)),
        (*(tuple(line.whose for line in row) for row in rows), (None,) * len(columns)),
    )


def _notes(campaign: Campaign) -> Iterator[str]:
    unknown = [name for name in ("boot id", "namespaces") if not campaign.host.informational.get(name)]
    if unknown:
        yield Words(
            "Whose a kernel and its namespaces are cannot be told: not recorded of the host: {fields}.",
            fields=", ".join(unknown),
        )
    for label in dict.fromkeys(inside.label for inside in _differing(campaign)):
        yield Words(
            "{label}: its runs differ in what they found. Each outcome has a column, with the runs that had it.",
            label=label,
        )
    for label, held in dict.fromkeys((i.label, i.isolation.capabilities) for i in campaign.insides):
        if held and not _named(held, FEW):
            yield Words("{label}: its capabilities are {names}.", label=label, names=", ".join(held))


def _differing(campaign: Campaign) -> list[Inside]:
    targets = [inside.target for inside in campaign.insides]
    return [inside for inside in campaign.insides if targets.count(inside.target) > 1]


def _root(isolation: Isolation) -> Line:
    name = Words("Root inside is")
    if isolation.kernel == "own":
        return Line(name, "", Words("root of its own kernel"), "own")
    if isolation.root == 0:
        return Line(name, "", Words("the host's root"), "host's")
    if isolation.root is None:
        return Line(name, "", NONE)
    return Line(name, "", Words("uid {uid} on the host", uid=isolation.root))


def _capabilities(held: Sequence[str] | None, few: int) -> str:
    if not held:
        return NONE if held is None else Words("none")
    return _named(held, few) or Words("{held} of {all}", held=len(held), all=len(CAPABILITIES))


def _named(held: Sequence[str], few: int) -> str | None:
    """Capabilities by name, be it of those that are lacking; None where both are too many."""
    lacking = [name for name in CAPABILITIES if name not in held]
    if not lacking:
        return Words("all {count}", count=len(held))
    if len(lacking) <= few:
        return Words("all but {names}", names=", ".join(lacking))
    if len(held) > few:
        return None
    return Words("{held} of {all}: {names}", held=len(held), all=len(CAPABILITIES), names=", ".join(held))


def _limited(name: str, seen: int | None, limits: Mapping[str, Applied]) -> str:
    """What is seen inside and, where a limit was asked for, of how much and by which mechanism."""
    if name not in limits:
        return Words("{amount} seen", amount=amount(name, seen))
    return Words(
        "{amount} seen, {asked} asked: {how}",
        amount=amount(name, seen),
        asked=amount(name, limits[name].asked),
        how=applied_by(limits[name]),
    )
