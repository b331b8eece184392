"""How a campaign was made, as tables: where it is from, engines, limits, the machine, and what went wrong."""

from __future__ import annotations

import json
from statistics import median

from harness.model import Applied
from harness.report import tables
from harness.report.summary import Campaign, Configuration, Failed
from harness.report.tables import About, Table, about_of, or_none, where, who
from harness.wording import COLD, NONE, Words, lacks_kvm, line, quantity


def details(campaign: Campaign) -> list[Table]:
    """Every table of one campaign that has something to say, in the order of a report."""
    made = [
        tables.metrics(campaign),
        *tables.pieces(campaign),
        unavailable(campaign),
        limits(campaign),
        accelerations(campaign),
        configurations(campaign),
        bundles(campaign),
        host(campaign),
        readings(campaign),
    ]
    return [content for content in made if content.rows]


def origin(campaign: Campaign) -> list[tuple[str, str]]:
    """Where the numbers come from: name and value, in the order of a report."""
    commit: str = campaign.commit or Words("— (not recorded)")
    if campaign.dirty:
        commit = Words("{commit} with uncommitted changes", commit=commit)
    rounds = Words("{rounds} measured after one of warm-up, seed {seed}", rounds=campaign.rounds, seed=campaign.seed)
    if campaign.precision:
        rounds = Words(
            "at least {rounds} measured after one of warm-up, until every headline median is within {percent:.3g} %, "
            "seed {seed}",
            rounds=campaign.rounds,
            percent=100 * campaign.precision,
            seed=campaign.seed,
        )
    cold = []
    if campaign.cold:
        cold = [(Words("Starts"), Words("cold starts: {what} is dropped before each", what=COLD[campaign.cold]))]
    runs = Words("{ok} succeeded, {failed} failed", ok=campaign.measured, failed=campaign.failed)
    whole = Words("yes") if campaign.incomplete is None else Words("no: {why}", why=campaign.incomplete)
    return [
        (Words("Campaign"), campaign.id),
        (Words("Started"), campaign.started),
        (Words("Command"), " ".join(campaign.command)),
        (Words("Commit"), commit),
        (Words("Rounds"), rounds),
        *cold,
        (Words("Measured runs"), runs),
        (Words("Complete"), whole),
        (Words("Read from"), campaign.source),
    ]


def configurations(campaign: Campaign) -> Table:
    rows = [
        (c.label, f"{c.engine} {c.version}", c.whose, "; ".join(f"{k}: {told(v)}" for k, v in c.profile.items()))
        for c in campaign.configurations
    ]
    columns = (Words("Target"), Words("Engine"), Words("Whose"), Words("Profile"))
    about = tuple(About(line(c.target)) for c in campaign.configurations)
    return Table(Words("Configurations"), columns, tuple(rows), about=about)


def accelerations(campaign: Campaign) -> Table:
    """The proof of the word KVM: QEMU was asked in every run, and the host's KVM has counted."""
    rows = []
    for a in campaign.accelerations:
        said = Words("KVM is enabled") if a.enabled else Words("KVM is not enabled")
        middle = f"{median(a.exits):,.0f}" if a.exits else NONE
        rows.append((*who(campaign, a), said, str(a.runs), middle, a.reason or ""))
    columns = (
        *where(campaign),
        Words("QEMU says"),
        Words("Runs"),
        Words("Exits from the guest, median"),
        Words("Note"),
    )
    about = tuple(map(about_of, campaign.accelerations))
    return Table(Words("What ran the guests"), columns, tuple(rows), about=about)


def limits(campaign: Campaign) -> Table:
    """What was asked of each engine, how it did it and what the inside saw: three things that may differ."""
    rows = []
    for limit in campaign.limits:
        asked, seen = (amount(limit.name, value) for value in (limit.applied.asked, limit.applied.seen))
        rows.append((*who(campaign, limit), limit.name, asked, applied_by(limit.applied), seen, str(limit.runs)))
    columns = (
        *where(campaign), Words("Limit"), Words("Asked"), Words("Applied by"), Words("Seen inside"), Words("Runs")
    )  # fmt: skip
    return Table(Words("Limits"), columns, tuple(rows), about=tuple(map(about_of, campaign.limits)))


def host(campaign: Campaign) -> Table:
    fields = [(name, told(field), Words("decides")) for name, field in campaign.host.gating.items()]
    fields += [(name, told(field), Words("is noted")) for name, field in campaign.host.informational.items()]
    return Table(Words("Host"), (Words("Field"), Words("Value"), Words("In a comparison it")), tuple(fields))


def readings(campaign: Campaign) -> Table:
    rows = []
    for r in campaign.readings:
        what: str = r.metric
        if r.group is not None:
            what = Words("{metric} of the {group}s of {part}", metric=r.metric, group=r.group, part=r.part)
        rows.append((Words(r.at), what, or_none(r.median, r.unit), str(r.n), r.reason or ""))
    columns = (Words("When"), Words("Metric"), Words("Median"), "n", Words("Note"))
    return Table(Words("The machine meanwhile"), columns, tuple(rows))


def bundles(campaign: Campaign) -> Table:
    rows = [
        (b.workload, b.sha256, quantity(b.bytes, "B"), ", ".join(f"{k} {v}" for k, v in b.packages.items()))
        for b in campaign.bundles
    ]
    columns = (Words("Workload"), "SHA-256", Words("Size"), Words("Packages"))
    about = tuple(About(workload=b.workload) for b in campaign.bundles)
    return Table(Words("Bundles: the same bytes for every target"), columns, tuple(rows), about=about)


def unavailable(campaign: Campaign) -> Table:
    """The targets that could not run, and those that could run better: each with its reason and remedy."""
    rows = [(absent.target, absent.reason, absent.hint) for absent in campaign.unavailable]
    improved = [target for target in campaign.configurations if target.remedy]
    rows += [(*_improvement(target), target.remedy or "") for target in improved]
    about = (*(About(absent.target) for absent in campaign.unavailable), *(About(line(c.target)) for c in improved))
    columns = (Words("Target"), Words("Reason"), Words("Hint"))
    return Table(Words("What could not run here"), columns, tuple(rows), about=about)


def _improvement(target: Configuration) -> tuple[str, str]:
    """The name of the improvement of a target that ran, and the reason why it lacks it."""
    if lacks_kvm(target.machine):
        name, reason = Words("{target} under KVM", target=line(target.target)), Words("the reason was not recorded")
    else:
        name, reason = Words("{target}, improved", target=line(target.target)), Words("it ran, and can be improved")
    return name, target.reason or reason


def failures(campaign: Campaign) -> Table:
    rows = [(f.run, f.label, f.workload, _round(f), f.failed_in, f.type, f.message) for f in campaign.failures]
    columns = ("Run", "Target", "Workload", "Round", "Failed in", "Error", "Message")
    about = tuple(map(about_of, campaign.failures))
    return Table(Words("Failed runs"), tuple(map(Words, columns)), tuple(rows), about=about)


def _round(failed: Failed) -> str:
    return Words("{round} ({phase})", round=failed.round, phase=Words(failed.phase))


def told(field: object) -> str:
    """A field of a host or a profile: text as it is, anything else as JSON."""
    return line(field if isinstance(field, str) else json.dumps(field, ensure_ascii=False))


def amount(name: str, value: float | None) -> str:
    """So much of what a limit of that name limits."""
    if value is None:
        return NONE
    return quantity(value, "B") if name == "memory" else f"{value:g}"


def applied_by(applied: Applied) -> str:
    """How a limit was applied, or why it was not."""
    if applied.mechanism is None:
        return Words("— ({reason})", reason=line(applied.reason) if applied.reason else Words("nobody said why"))
    return line(applied.mechanism if applied.reason is None else f"{applied.mechanism} ({applied.reason})")
