"""The command line: arguments only. What they start is in campaign.py, report/, doctor.py and ledger.py."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec
from rich.console import Console

from harness import __version__, gate, ledger, places, plan, progress
from harness.campaign import Campaign, Outcome
from harness.errors import BadInput, Incomparable, Unavailable, WeighbridgeError
from harness.ledger import LeftBehind
from harness.model import Plan
from harness.signals import Interrupted, check, interruptible
from harness.wording import label, line, plain

if TYPE_CHECKING:
    from harness.comparison import Compared

REGRESSED, BAD_INPUT, NOTHING_RAN, SOME_FAILED = 1, 2, 3, 4


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def cli() -> None:
    """Weighs what carries a workload: a VM, a namespace sandbox, a container. Same bytes, same limits, same clock.

    Exit codes: 0 success, 2 bad input, 3 nothing that was asked for can run here, 4 some runs failed.
    """


def _measuring(command: Callable[..., int]) -> Callable[..., int]:
    """The arguments of what measures: a plan, and flags that win over it."""
    options = (
        click.argument("plan_file", metavar="[PLAN.toml]", required=False, type=click.Path(path_type=Path)),
        click.option("--targets", help="What to weigh, as host,namespace/pid,net,docker,libvirt/pc."),
        click.option("--workloads", help="Workloads by name, or folders of your own."),
        click.option(
            "--rounds", type=int, help="Measured rounds; every round visits every target once. [run 7, ab 30]"
        ),
        click.option("--precision", help="Measure until every median's interval is within this, as 5%: no --rounds."),
        click.option("--budget", help="When to stop short, as 10m; `none` never does. [10m]"),
        click.option("--timeout", help="How long one instance may take to be ready. [60s]"),
        click.option("--cpus", type=float, help="CPUs for every instance. [1]"),
        click.option("--memory", help="Memory for every instance. [256M]"),
        click.option(
            "--cold",
            type=click.Choice(["image", "all"]),
            is_flag=False,
            flag_value="image",
            help="Drop the page cache of the image's files before every start, or as root the whole machine's. "
            "[--cold=image]",
        ),
        click.option("--engines", type=click.Choice(["auto", "private", "user"]), help="Whose engines to use. [auto]"),
        click.option("--libvirt-uri", help="A libvirt daemon, as qemu:///system, in place of the embedded driver."),
        click.option("--kernel", help="A guest kernel of your own. [Debian's cloud kernel]"),
        click.option("--modules", help="The modules of that kernel. [/lib/modules/VERSION]"),
        click.option("--seed", type=int, help="Of the order within rounds. [random, recorded]"),
        click.option(
            "-o", "--output", type=click.Path(path_type=Path), help="The result file. [results/runs/TIME.jsonl]"
        ),
        click.option("--progress", "shown", type=click.Choice(progress.KINDS), default="auto", help="Of the runs."),
    )
    for option in reversed(options):
        command = option(command)
    return command


def _gating(command: Callable[..., int]) -> Callable[..., int]:
    """The options of what compares."""
    options = (
        click.option(
            "--gate",
            "gate_kind",
            type=click.Choice(["regressed", "strict"]),
            is_flag=False,
            flag_value="regressed",
            help="Exit with 1 where something regressed; strict: with 3 where it is undecided. [--gate=regressed]",
        ),
        click.option("--fail", metavar="METRIC:X%,...", help="Judge these alone, by these thresholds; implies --gate."),
        click.option("--format", "formatted", type=click.Choice(["text", "markdown", "json", "junit"]), default="text"),
        click.option("--into", type=click.Path(path_type=Path), help="Write it into this file. [stdout]"),
    )
    for option in reversed(options):
        command = option(command)
    return command


@cli.command()
@_measuring
@click.option("--report", "report_to", type=click.Path(path_type=Path), help="Write a report into this folder too.")
def run(plan_file: Path | None, output: Path | None, shown: str, report_to: Path | None, **flags: Any) -> int:
    """Measure: all targets in turn, round by round, into one result file."""
    campaign, code = _measure(plan.make(plan_file, flags), output, shown)
    if campaign.outcome.cells == 0:
        return NOTHING_RAN
    _report([campaign.output], report_to, None)
    return code


@cli.command()
@_measuring
@click.option("--base", multiple=True, metavar="KEY=VALUE", help="What one side changes in the plan, as kernel=PATH.")
@click.option("--head", multiple=True, metavar="KEY=VALUE", help="What the other one does.")
@click.option("--confirm", is_flag=True, help="Measure anew what regressed: only what does so again has.")
@_gating
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
    **flags: Any,
) -> int:
    """Compare two sides, measured in turn in one campaign: they differ in nothing but what is said of either.

    Two engines (docker_host, libvirt_uri), two QEMUs (emulator), two guest kernels (kernel, modules), two profiles
    (targets, cpus, memory) or two checkouts of a workload (workloads).
    """
    from harness import comparison, store

    chosen = plan.make(plan_file, {**flags, "base": plan.side(base), "head": plan.side(head)})
    metrics = gate.chosen(fail, plan_file)
    campaign, code = _measure(chosen, output, shown)
    if campaign.outcome.cells == 0:
        return NOTHING_RAN
    compared = comparison.interleaved(store.read(campaign.output), metrics)
    if confirm and compared.of("regressed") and not campaign.outcome.interrupted:
        again, code_again = _measure(msgspec.structs.replace(chosen, seed=chosen.seed + 1), _second(output), shown)
        code = max(code, code_again)
        if again.outcome.cells:
            compared = comparison.confirmed(compared, comparison.interleaved(store.read(again.output), metrics))
    _show(compared, formatted, into)
    return campaign.outcome.interrupted or _gate_code(compared, gate_kind, fail) or code


@cli.command()
@click.argument("base", type=click.Path(path_type=Path))
@click.argument("head", required=False, type=click.Path(path_type=Path))
@click.option("--plan", "plan_file", type=click.Path(path_type=Path), help="A plan whose [gate] has thresholds.")
@click.option("--allow-different", multiple=True, metavar="NAME", help="A field that may differ, as kernel.")
@_gating
def compare(
    base: Path,
    head: Path | None,
    plan_file: Path | None,
    allow_different: tuple[str, ...],
    gate_kind: str | None,
    fail: str | None,
    formatted: str,
    into: Path | None,
) -> int:
    """Compare campaigns: HEAD against BASE, each a result file or a folder of them, as results/baseline.

    Without HEAD, the two sides of what `weighbridge ab` wrote. Of campaigns that were not interleaved, a verdict needs
    five of the base.
    """
    from harness import baseline, comparison

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
    _show(compared, formatted, into)
    return _gate_code(compared, gate_kind, fail)


@cli.group("baseline")
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


def _show(compared: Compared, formatted: str, into: Path | None) -> None:
    from harness.report.compared import FORMATS

    told = FORMATS[formatted](compared)
    if into is None:
        print(told, end="")
    else:
        into.write_text(told, encoding="utf-8")


def _gate_code(compared: Compared, kind: str | None, fail: str | None) -> int:
    """What a gate says of it; without one, nothing does."""
    if kind is None and fail is None:
        return 0
    if compared.of("regressed"):
        return REGRESSED
    if compared.head_failed:
        return SOME_FAILED
    return NOTHING_RAN if kind == "strict" and (compared.of("undecided") or compared.missing) else 0


def _second(output: Path | None) -> Path | None:
    return output and output.with_name(f"{output.name.removesuffix('.jsonl')}-again.jsonl")


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
            _tell_left_behind(error)
    outcome = campaign.outcome
    _tell(outcome, campaign.output)
    if campaign.writer.kept:
        _say(f"the earlier {campaign.output} is kept as {campaign.writer.kept}")
    return campaign, outcome.interrupted or (SOME_FAILED if outcome.failed or left_behind else 0)


@cli.command()
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="The folder to write into.")
@click.option(
    "--format",
    "formats",
    help="Of html,md,csv,json, for CI of github-action-benchmark,bencher,openmetrics, and of those that other packages "
    "add. [the first four]",
)
def report(files: tuple[Path, ...], output: Path, formats: str | None) -> int:
    """Write a report of result files, and print its table."""
    _report(files, output, formats)
    return 0


@cli.command()
@click.option("--targets", help="Which targets to examine. [the default ones]")
@click.option("--engines", type=click.Choice(["auto", "private", "user"]), help="Whose engines to use. [auto]")
@click.option("--libvirt-uri", help="A libvirt daemon in place of the embedded driver.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def doctor(as_json: bool, **flags: Any) -> int:
    """What can run here, and for the rest why not and what to do. Really starts the engines, and a guest under KVM."""
    from harness.doctor import examine

    findings = examine(plan.make(None, flags))
    if as_json:
        print(msgspec.json.encode(findings).decode())
    for finding in findings if not as_json else ():
        if finding.record is not None:
            record = finding.record
            print(f"{label(record)}: {record.engine} {record.version}, whose: {record.whose}")
        else:
            print(f"{finding.target}: not here: {finding.reason}. Try: {finding.hint}")
    return 0 if any(finding.record for finding in findings) else NOTHING_RAN


@cli.command()
@click.argument("target")
@click.option("--workload", "workloads", default="hello", help="What to start. [hello]")
@click.option("--cpus", type=float, help="CPUs for it. [1]")
@click.option("--memory", help="Memory for it. [256M]")
@click.option("--engines", type=click.Choice(["auto", "private", "user"]), help="Whose engines to use. [auto]")
@click.option("--libvirt-uri", help="A libvirt daemon in place of the embedded driver.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def facts(target: str, as_json: bool, **flags: Any) -> int:
    """What isolation a target buys: starts one instance of it and reads from inside what it is separated from."""
    from harness.facts import ask
    from harness.report import terminal

    asked = plan.make(None, {"targets": target, **flags})
    if len(asked.targets) > 1 or len(asked.workloads) > 1:
        raise BadInput("give one target and one workload")
    inside = ask(asked)
    if inside.run.error is not None:
        _say(f"{target}: failed while {inside.run.error.phase}: {inside.run.error.message}")
        print(plain(inside.run.error.log).rstrip(), file=sys.stderr)
        return SOME_FAILED
    if as_json:
        told = {"target": target, "isolation": inside.isolation, "limits": inside.run.limits, "facts": inside.run.facts}
        print(msgspec.json.encode(told).decode())
    else:
        terminal.show_isolation(label(inside.record), inside.isolation, inside.run.limits, Console())
    return 0


@cli.command()
def clean() -> int:
    """Reap what campaigns left behind that were killed. Those that are still running are not touched."""
    outcome = ledger.reap()
    drafts = places.remove_drafts()
    for campaign, failure in outcome.items():
        print(f"{campaign}: {'released' if failure is None else f'not all could be released: {failure}'}")
    for draft in drafts:
        print(f"{draft}: removed, half made")
    if not outcome and not drafts:
        print("nothing was left behind")
    return SOME_FAILED if any(outcome.values()) else 0


def _reap_leftovers() -> None:
    for campaign, failure in ledger.reap().items():
        told = "released what it left behind" if failure is None else f"could not release all it left: {failure}"
        _say(f"the campaign {campaign} was killed; {told}")


def _tell(outcome: Outcome, output: Path) -> None:
    for absent in outcome.unavailable:
        _say(f"{absent.target}: not here: {absent.reason}. Try: {absent.hint}")
    if outcome.precise:
        _say(outcome.precise)
    if outcome.stopped:
        _say(f"stopped early: {outcome.stopped}")
    _say(f"{outcome.runs} runs, {outcome.failed} of them failed, in {output}")


def _tell_left_behind(error: LeftBehind) -> None:
    for failure in error.exceptions:
        _say(f"{error.message}: {failure}")


def _report(files: Sequence[Path], folder: Path | None, formats: str | None) -> None:
    """Prints the table of these results, and writes the report where a folder is named."""
    # Here, because pandas and matplotlib have no business in a process that is measuring.
    from harness.report import terminal
    from harness.report.formats import DEFAULT, write
    from harness.report.summary import summarize
    from harness.store import read

    results = [read(file) for file in files]
    if folder is not None:
        written = write(results, folder, DEFAULT if formats is None else formats.split(","))
        _say(f"the report is {written[0]}")
    terminal.show(summarize(results), Console())


def _say(text: str) -> None:
    print(f"weighbridge: {' '.join(line(text).split())}", file=sys.stderr)


def _invoke() -> Any:
    try:
        return cli.main(standalone_mode=False)
    except click.Abort:  # which click makes of an interruption, and hides it in
        check()
        raise


def main() -> None:
    """Runs a command and turns whatever goes wrong into one line and an exit code."""
    try:
        with interruptible():
            code = _invoke()
    except click.exceptions.NoArgsIsHelpError as error:
        print(error.format_message(), file=sys.stderr)
        code = BAD_INPUT
    except click.ClickException as error:
        _say(error.format_message())
        code = BAD_INPUT
    except Unavailable as error:
        _say(f"{error.reason}. Try: {error.hint}")
        code = NOTHING_RAN
    except Incomparable as error:
        _say(str(error))
        code = NOTHING_RAN
    except BadInput as error:
        _say(str(error))
        code = BAD_INPUT
    except Interrupted as error:
        _say(str(error))
        code = 128 + error.number
    except LeftBehind as error:
        _tell_left_behind(error)
        code = SOME_FAILED
    except WeighbridgeError as error:
        _say(str(error))
        code = SOME_FAILED
    except OSError as error:  # a full disk, above all
        _say(f"{error.filename or 'the system'}: {error.strerror or error}")
        code = BAD_INPUT
    sys.exit(code)
