"""Whether results may be compared: which fields decide, and which are noted."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from harness.errors import BadInput, Incomparable
from harness.model import TargetRecord
from harness.store import Result
from harness.wording import Words, line

NOTED = ("hostname", "system", "memory", "python", "uid")
"""Of the machine's informational fields; the others (uptime, boot id) differ by nature."""
STANDS_IN = "fake"
"""The engine of the tests: its numbers are nobody's."""


def check(results: Sequence[Result], allowed: Collection[str] = ()) -> list[str]:
    """Raises Incomparable for gating fields that differ, by name; the ones that are allowed become notes.

    Returns notes: what differs otherwise, a sentence each. Raises BadInput for a stand-in's numbers.
    """
    for result in results:
        if any(record.engine == STANDS_IN for record in result.targets):
            raise BadInput(f"{result.path}: it measured a stand-in made for tests, there is nothing to compare")
    differing = dict(_differing([gating(result) for result in results]))
    refused = [name for name in differing if name not in allowed]
    if refused:
        told = "; ".join(f"{name}: {_either(differing[name])}" for name in refused)
        raise Incomparable(f"not comparable: {told}. Measure both with `weighbridge ab`, or see --allow-different")
    if unknown := [name for name in allowed if name not in differing]:
        told = f"what differs: {', '.join(differing)}" if differing else "nothing that decides differs"
        raise BadInput(f"--allow-different {unknown[0]}: it does not differ; {told}")
    noted = dict(_differing([_noted(result) for result in results]))
    everything = {**differing, **noted}
    return [Words("{name} differs: {values}", name=name, values=_either(each)) for name, each in everything.items()]


def gating(result: Result) -> dict[str, Any]:
    """Every field that must agree, by the name that --allow-different takes."""
    header = result.header
    fields = {"lab": None, **kind_of_host(result)}
    fields |= {"plan cpus": header.plan.limits.cpus, "plan memory": header.plan.limits.memory}
    fields["plan cold"] = header.plan.cold
    for record in result.targets:
        fields |= {f"{record.target} {name}": value for name, value in engine(record)}
    return fields


def kind_of_host(result: Result) -> dict[str, Any]:
    """The gating fields of the machine alone."""
    return dict(result.header.host.gating)


def engine(record: TargetRecord) -> Iterator[tuple[str, Any]]:
    """What stands behind a target and decides whether it is the same one."""
    for name in ("engine", "version", "whose", "accelerator"):
        yield name, getattr(record, name)
    yield from record.profile.items()


def _noted(result: Result) -> dict[str, Any]:
    host = result.header.host.informational
    noted: dict[str, Any] = {name: host[name] for name in NOTED if name in host}
    noted["weighbridge's commit"] = result.header.commit
    for bundle in result.bundles:
        noted[f"the bundle of {bundle.workload}"] = bundle.sha256[:12]
        noted |= {f"{package} in {bundle.workload}": version for package, version in bundle.packages.items()}
    return noted


def _differing(all_fields: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, list[Any]]]:
    """The fields of which two values are known."""
    for name in dict.fromkeys(name for fields in all_fields for name in fields):
        values = [fields[name] for fields in all_fields if name in fields]
        distinct = [value for at, value in enumerate(values) if value not in values[:at]]
        if len(distinct) > 1:
            yield name, distinct


def _either(values: Iterable[Any]) -> str:
    told = [line(str(value)) for value in values]
    return " or ".join(value if len(value) <= 60 else f"{value[:57]}..." for value in told)
