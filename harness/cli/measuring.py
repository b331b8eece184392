"""The commands that measure."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click
import msgspec

from harness import gate, ledger, plan, progress
from harness.campaign import Campaign, Outcome
from harness.cli.comparing import gate_code, show
from harness.cli.options import NOTHING_RAN, SOME_FAILED, gating, measuring
from harness.cli.telling import report_of, say, tell_left_behind
from harness.errors import BadInput
from harness.ledger import LeftBehind
from harness.model import Plan


@click.command()
@measuring
@click.option("--report", "report_to", type=click.Path(path_type=Path), help="Write a report into this folder too.")
def run(plan_file: Path | None, output: Path | None, shown: str, report_to: Path | None, **flags: Any) -> int:
    """Measure: all targets in turn, round by round, into one result file."""
    chosen = plan.make(plan_file, flags)
    if chosen.sides:
        raise BadInput(f"{plan_file} has two sides, which `weighbridge ab` measures")
    campaign, code = _measure(chosen, output, shown)
    if campaign.outcome.cells == 0:
        return NOTHING_RAN
    report_of([campaign.output], report_to, None)
    return code


@click.command()
@measuring
@click.option("--base", multiple=True, metavar="KEY=VALUE", help="What one side changes in the plan, as kernel=PATH.")
@click.option("--head", multiple=True, metavar="KEY=VALUE", help="What the other one does.")
@click.option("--confirm", is_flag=True, help="Measure anew what regressed: only what does so again has.")
@gating
def ab(
    plan_file: Path | None,
    output: Path | None,
    shown: str,
    base: tuple[str, ...],
    head: tuple[str, ...],
    confirm: bool,
    gate_kind: str | None,
    fail: str | None,
    formatted: str,
    into: Path | None,
    lang: str,
    **flags: Any,
) -> int:
    """Compare two sides, measured in turn in one campaign: they differ in nothing but what is said of either.

    Two engines (docker_host, libvirt_uri), two QEMUs (emulator), two guest kernels (kernel, modules), two profiles
    (targets, cpus, memory) or two checkouts of a workload (workloads).
    """
    chosen = plan.make(plan_file, {**flags, "base": plan.side(base), "head": plan.side(head)})
    metrics = gate.chosen(fail, plan_file)
    campaign, code = _measure(chosen, output, shown)
    if campaign.outcome.cells == 0:
        return NOTHING_RAN
    from harness import comparison, store  # here: NumPy and SciPy have no business in a process that measures

    compared = comparison.interleaved(store.read(campaign.output), metrics)
    if confirm and compared.of("regressed") and not campaign.outcome.interrupted:
        again, code_again = _measure(msgspec.structs.replace(chosen, seed=chosen.seed + 1), _second(output), shown)
        code = max(code, code_again)
        if again.outcome.cells:
            compared = comparison.confirmed(compared, comparison.interleaved(store.read(again.output), metrics))
    show(compared, formatted, into, lang)
    return campaign.outcome.interrupted or gate_code(compared, gate_kind, fail) or code


def _measure(chosen: Plan, output: Path | None, shown: str) -> tuple[Campaign, int]:
    """A campaign from its beginning to what is said of it, and the exit code as far as it is known."""
    _reap_leftovers()
    left_behind = False
    with progress.shown(shown) as observe:
        campaign = Campaign(chosen, output, sys.argv, observe)
        try:
            campaign.run()
        except LeftBehind as error:
            left_behind = True
            tell_left_behind(error)
    outcome = campaign.outcome
    _tell(outcome, campaign.output)
    if campaign.writer.kept:
        say(f"the earlier {campaign.output} is kept as {campaign.writer.kept}")
    return campaign, outcome.interrupted or (SOME_FAILED if outcome.failed or left_behind else 0)


def _second(output: Path | None) -> Path | None:
    return output and output.with_name(f"{output.name.removesuffix('.jsonl')}-again.jsonl")


def _reap_leftovers() -> None:
    for campaign, failure in ledger.reap().items():
        told = "released what it left behind" if failure is None else f"could not release all it left: {failure}"
        say(f"the campaign {campaign} was killed; {told}")


def _tell(outcome: Outcome, output: Path) -> None:
    for absent in outcome.unavailable:
        say(f"{absent.target}: not here: {absent.reason}. Try: {absent.hint}")
    if outcome.precise:
        say(outcome.precise)
    if outcome.stopped:
        say(f"stopped early: {outcome.stopped}")
    say(f"{outcome.runs} runs, {outcome.failed} of them failed, in {output}")
