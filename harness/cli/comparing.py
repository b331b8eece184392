"""The commands that compare."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from harness.cli.options import NOTHING_RAN, REGRESSED, SOME_FAILED, gating
from harness.errors import BadInput

if TYPE_CHECKING:
    from harness.comparison import Compared


@click.command()
@click.argument("base", type=click.Path(path_type=Path))
@click.argument("head", required=False, type=click.Path(path_type=Path))
@click.option("--plan", "plan_file", type=click.Path(path_type=Path), help="A plan whose [gate] has thresholds.")
@click.option("--allow-different", multiple=True, metavar="NAME", help="A field that may differ, as kernel.")
@gating
def compare(
    base: Path,
    head: Path | None,
    plan_file: Path | None,
    allow_different: tuple[str, ...],
    gate_kind: str | None,
    fail: str | None,
    formatted: str,
    into: Path | None,
    lang: str,
) -> int:
    """Compare campaigns: HEAD against BASE, each a result file or a folder of them, as results/baseline.

    Without HEAD, the two sides of what `weighbridge ab` wrote. Of campaigns that were not interleaved, a verdict needs
    five of the base.
    """
    from harness import baseline, comparison, gate

    metrics = gate.chosen(fail, plan_file)
    if head is None:
        (result, *others), _ = baseline.load(base)
        if others:
            raise BadInput(f"{base} is a folder of campaigns: give a HEAD to hold against them")
        compared = comparison.interleaved(result, metrics)
    else:
        theirs, _ = baseline.load(head)
        ours, notes = baseline.load(base, theirs[0], allow_different)
        compared = comparison.campaigns(ours, theirs, metrics, allow_different, notes)
    show(compared, formatted, into, lang)
    return gate_code(compared, gate_kind, fail)


@click.group("baseline")
def baseline_group() -> None:
    """Campaigns that are kept, to hold later ones against."""


@baseline_group.command("add")
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--into", "folder", type=click.Path(path_type=Path), help="The baseline. [results/baseline]")
@click.option("--newest", type=click.IntRange(min=1), help="How many campaigns of a kind of host to keep. [20]")
def baseline_add(files: tuple[Path, ...], folder: Path | None, newest: int | None) -> int:
    """Keep campaigns in the baseline of their kind of host, and only the newest of these."""
    from harness import baseline

    added, removed = baseline.add(files, folder or baseline.BASELINE, newest or baseline.NEWEST)
    for told, paths in (("added", added), ("removed, there are newer ones", removed)):
        for path in paths:
            print(f"{path}: {told}")
    return 0


def show(compared: Compared, formatted: str, into: Path | None, lang: str) -> None:
    from harness.report import compared_page
    from harness.report.compared import FORMATS
    from harness.report.language import language

    told = compared_page.render(compared, language(lang)) if formatted == "html" else FORMATS[formatted](compared)
    if into is None:
        print(told, end="")
    else:
        into.write_text(told, encoding="utf-8")


def gate_code(compared: Compared, kind: str | None, fail: str | None) -> int:
    """What a gate says of it; without one, nothing does."""
    if kind is None and fail is None:
        return 0
    if compared.of("regressed"):
        return REGRESSED
    if compared.head_failed:
        return SOME_FAILED
    return NOTHING_RAN if kind == "strict" and (compared.of("undecided") or compared.missing) else 0
