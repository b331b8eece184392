"""The commands that measure."""

from __future__ import annotations

import sys
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harness.cli.comparing import gate_code, show
from harness.cli.options import NOTHING_RAN, SOME_FAILED, gating, measuring
from harness.cli.telling import say, say_detail, show_table, tell_left_behind, write_report
from harness.elapsed import show_elapsed
from harness.errors import BadInput, LeftBehind
from harness.wording import count_runs, improvable, not_here

if TYPE_CHECKING:
    from harness.campaign import Campaign, Outcome
    from harness.model import Plan


@click.command()
@measuring
@click.option("--report", "report_to", type=click.Path(path_type=Path), help="Write a report into this folder too.")
def run(plan_file: Path | None, output: Path | None, shown: str, report_to: Path | None, **flags: Any) -> int:
    """Measure: all targets in turn, round by round, into one result file."""
    from harness import plan

    chosen = plan.make(plan_file, flags)
    if chosen.sides:
        raise BadInput(f"{plan_file} has two sides, which `weighbridge ab` measures")
    campaign, code = _measure(chosen, output, shown)
    if not campaign.outcome.measured:
        return code
    try:
        show_table([campaign.output])
    finally:  # even if the reader of the table is gone
        if report_to is not None:
            with show_elapsed("writing the report"):
                write_report([campaign.output], report_to)
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
    import msgspec

    from harness import gate, plan

    chosen = plan.make(plan_file, {**flags, "base": plan.side(base), "head": plan.side(head)})
    metrics = gate.chosen(fail, plan_file)
    campaign, code = _measure(chosen, output, shown)
    if not campaign.outcome.measured:
        return code
    from harness import comparison, store  # here: NumPy and SciPy have no business in a process that measures

    compared = comparison.interleaved(store.read(campaign.output), metrics)
    if confirm and compared.of("regressed") and not campaign.outcome.interrupted:
        again, code_again = _measure(msgspec.structs.replace(chosen, seed=chosen.seed + 1), _second(output), shown)
        code = max(code, code_again)
        if again.outcome.measured:
            compared = comparison.confirmed(compared, comparison.interleaved(store.read(again.output), metrics))
    show(compared, formatted, into, lang)
    return campaign.outcome.interrupted or gate_code(compared, gate_kind, fail) or code


def _measure(chosen: Plan, output: Path | None, shown: str) -> tuple[Campaign, int]:
    """A campaign from its beginning to what is said of it, and the exit code as far as it is known."""
    from harness import progress
    from harness.campaign import Campaign

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
    _tell(outcome, chosen, campaign.output)
    if campaign.writer.kept:
        say(f"the earlier {campaign.output} is kept as {campaign.writer.kept}")
    return campaign, _code(outcome, left_behind)


def _code(outcome: Outcome, left_behind: bool) -> int:
    if outcome.interrupted:
        return outcome.interrupted
    if not outcome.measured:
        return NOTHING_RAN
    return SOME_FAILED if outcome.failed or outcome.unreleased or left_behind else 0


def _second(output: Path | None) -> Path | None:
    return output and output.with_name(f"{output.name.removesuffix('.jsonl')}-again.jsonl")


def _reap_leftovers() -> None:
    from harness import ledger

    for campaign, failure in ledger.reap().items():
        told = "released what it left behind" if failure is None else f"could not release all it left: {failure}"
        say(f"the campaign {campaign} was killed; {told}")


def _tell(outcome: Outcome, chosen: Plan, output: Path) -> None:
    shown: set[str] = set()
    for absent in outcome.unavailable:
        say(not_here(absent.target, absent.reason, absent.hint))
        if absent.detail and absent.detail not in shown:  # one failed build is the reason of every target
            say_detail(absent.detail)
            shown.add(absent.detail)
    for target in outcome.targets:
        if target.remedy:
            say(improvable(target.target, target.accelerator, target.accelerator_reason, target.remedy))
    if outcome.precise:
        say(outcome.precise)
    if outcome.stopped and (outcome.measured or outcome.interrupted):
        say(f"stopped early: {outcome.stopped}")
    say(f"{count_runs(outcome.runs)}, {outcome.failed} of them failed, in {output}")
    if not outcome.measured and not outcome.interrupted:
        say(f"nothing was measured: {_why_unmeasured(outcome, chosen)}")


def _why_unmeasured(outcome: Outcome, chosen: Plan) -> str:
    """Return why a campaign has no measured launch, and what to do."""
    if not outcome.cells:
        return "no target can run here with these workloads; the lines above have each reason and what to try"
    if not outcome.runs:
        return f"{outcome.stopped}. Try: the same command with a longer --budget, or --budget none"
    each = outcome.cells * outcome.seconds / outcome.runs
    failed = f"; the last failure was {outcome.failure}" if outcome.failure else ""
    return (
        f"{outcome.stopped}{failed}. Try: the same command with a longer --budget: the warm-up and one measured round "
        f"take about {_minutes(2 * each)}, all {chosen.rounds + 1} rounds about {_minutes((chosen.rounds + 1) * each)}"
    )


def _minutes(seconds: float) -> str:
    """Return a duration as --budget takes it, rounded up: `40s`, `12m`."""
    return f"{ceil(seconds)}s" if seconds < 60 else f"{ceil(seconds / 60)}m"
