"""The commands that show: reports, what can run here, what one instance is separated from, what was left behind."""

from __future__ import annotations

import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harness.cli.options import NOTHING_RAN, SOME_FAILED, in_language
from harness.cli.telling import say, show_table, tell_left_behind, write_report
from harness.errors import BadInput, LeftBehind

if TYPE_CHECKING:
    from harness.doctor import Finding

REPORTS = Path("reports")


@click.command()
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="The folder to write into.")
@click.option(
    "--format",
    "formats",
    help="Of html,md,csv,json, of the pictures as png,svg,pdf, for CI of github-action-benchmark,bencher,openmetrics, "
    "and of those that other packages add. [the first four]",
)
@in_language
def report(files: tuple[Path, ...], output: Path, formats: str | None, lang: str) -> int:
    """Write a report of result files, and print its table."""
    write_report(files, output, formats, lang)  # first: bad input prints no table
    show_table(files)
    return 0


@click.command()
@click.argument("folder", required=False, type=click.Path(path_type=Path))
@in_language
def site(folder: Path | None, lang: str) -> int:
    """Write an index.html over all reports in a folder. [reports]"""
    from harness.report.language import language
    from harness.report.site import write

    index, count = write(folder or REPORTS, language(lang))
    print(f"{index}: an index of {'1 report' if count == 1 else f'{count} reports'}")
    return 0


@click.command()
@click.option("--targets", help="Which targets to examine. [the default ones]")
@click.option("--engines", type=click.Choice(["auto", "private", "user"]), help="Whose engines to use. [auto]")
@click.option("--libvirt-uri", help="A libvirt daemon in place of the embedded driver.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def doctor(as_json: bool, **flags: Any) -> int:
    """Check which targets can run here, and show how to fix the others.

    For each target it builds a bundle, starts the engine, boots a guest under KVM and launches one instance.
    """
    import msgspec

    from harness import plan
    from harness.doctor import examine
    from harness.host import describe

    lab, findings, shown = describe().lab, [], set[str]()
    left_behind = False
    try:
        with closing(examine(plan.make(None, flags), _show_progress)) as examined:
            for finding in examined:
                _clear_progress()
                findings.append(finding)
                if not as_json:
                    _print_finding(finding, lab, shown)
    except LeftBehind as error:
        left_behind = True
        tell_left_behind(error)
    if as_json:
        print(msgspec.json.encode(findings).decode())
    if left_behind:
        return SOME_FAILED
    return 0 if any(finding.record for finding in findings) else NOTHING_RAN


def _show_progress(name: str) -> None:
    """Show the name of a check as it begins, in a terminal line that the next check overwrites."""
    from harness.wording import line

    if sys.stderr.isatty():
        print(f"\r\x1b[Kchecking {line(name)} ...", end="", file=sys.stderr, flush=True)


def _clear_progress() -> None:
    if sys.stderr.isatty():
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def _print_finding(finding: Finding, lab: str | None, shown: set[str]) -> None:
    """Print a target with its checks. shown: details that were printed before; a new one is added."""
    from harness.wording import improvable, label, line, not_here, plain

    if finding.record is not None:
        record = finding.record
        print(f"{label(record, lab)}: {record.engine} {record.version}, whose: {record.whose}")
        if record.remedy and record.remedy not in [check.remedy for check in finding.checks]:
            print(f"  {line(improvable(record.target, record.accelerator, record.accelerator_reason, record.remedy))}")
    else:
        print(line(not_here(finding.target, finding.reason or "", finding.hint or "")))
    for check in finding.checks:
        remedy = f". Try: {check.remedy}" if check.remedy else ""
        if not check.works and check.finding != finding.reason:
            print(f"  {line(f'{check.name}: no: {check.finding}{remedy}')}")
        elif check.works and check.name != "engine":  # the first line shows the engine already
            print(f"  {line(f'{check.name}: {check.finding}')}")
    if finding.detail and finding.detail not in shown:
        print("".join(f"  {each}\n" for each in plain(finding.detail).splitlines()), end="")
        shown.add(finding.detail)
    sys.stdout.flush()


@click.command()
@click.argument("target")
@click.option("--workload", "workloads", default="hello", help="What to start. [hello]")
@click.option("--cpus", type=float, help="CPUs for it. [1]")
@click.option("--memory", help="Memory for it. [256M]")
@click.option("--engines", type=click.Choice(["auto", "private", "user"]), help="Whose engines to use. [auto]")
@click.option("--libvirt-uri", help="A libvirt daemon in place of the embedded driver.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def facts(target: str, as_json: bool, **flags: Any) -> int:
    """What isolation a target buys: starts one instance of it and reads from inside what it is separated from."""
    import msgspec
    from rich.console import Console

    from harness import plan
    from harness.facts import ask
    from harness.host import describe
    from harness.report import terminal
    from harness.wording import label, plain

    asked = plan.make(None, {"targets": target, **flags})
    if len(asked.targets) > 1 or len(asked.workloads) > 1:
        raise BadInput("give one target and one workload")
    inside = ask(asked)
    for reason in inside.unreleased:
        say(f"{target}: while releasing: {reason}")
    if inside.run.error is not None:
        say(f"{target}: failed while {inside.run.error.phase}: {inside.run.error.message}")
        print(plain(inside.run.error.log).rstrip(), file=sys.stderr)
        return SOME_FAILED
    if as_json:
        told = {"target": target, "isolation": inside.isolation, "limits": inside.run.limits, "facts": inside.run.facts}
        print(msgspec.json.encode(told).decode())
    else:
        terminal.show_isolation(label(inside.record, describe().lab), inside.isolation, inside.run.limits, Console())
    return SOME_FAILED if inside.unreleased else 0


@click.command()
def clean() -> int:
    """Reap what campaigns left behind that were killed. Those that are still running are not touched."""
    from harness import ledger, places

    outcome = ledger.reap()
    drafts = places.remove_drafts()
    for campaign, failure in outcome.items():
        print(f"{campaign}: {'released' if failure is None else f'not all could be released: {failure}'}")
    for draft in drafts:
        print(f"{draft}: removed, half made")
    if not outcome and not drafts:
        print("nothing was left behind")
    return SOME_FAILED if any(outcome.values()) else 0
