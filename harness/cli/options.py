"""Arguments that several commands share, and the exit codes of all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click

PROGRESS = ("auto", "bar", "rounds", "lines", "json", "none")
REGRESSED, BAD_INPUT, NOTHING_RAN, SOME_FAILED = 1, 2, 3, 4
INTERNAL_ERROR = 70
"""An error of this program, shown with its traceback (EX_SOFTWARE of sysexits.h). Python itself would exit with 1."""


def measuring(command: Callable[..., int]) -> Callable[..., int]:
    """The arguments of what measures: a plan, and flags that win over it."""
    options = (
        click.argument("plan_file", metavar="[PLAN.toml]", required=False, type=click.Path(path_type=Path)),
        click.option("--targets", help="What to weigh, as host,namespace/pid,net,docker,libvirt/pc."),
        click.option("--workloads", help="Workloads by name, or folders of your own."),
        click.option(
            "--rounds", type=int, help="Measured rounds; every round visits every target once. [run 7, ab 30]"
        ),
        click.option("--precision", help="Measure until every median's interval is within this, as 5%: no --rounds."),
        click.option("--budget", help="Stop this long after the first launch, as 10m; `none`: never. [10m]"),
        click.option("--timeout", help="Deadline for one instance to be ready. [auto: 60s, more on slow machines]"),
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
        click.option(
            "--progress",
            "shown",
            type=click.Choice(PROGRESS),
            default="auto",
            help="How to show the progress of the runs.",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


def in_language(command: Callable[..., int]) -> Callable[..., int]:
    """The option of what writes a page."""
    return click.option("--lang", type=click.Choice(["en", "zh"]), default="en", help="Of the page. [en]")(command)


def gating(command: Callable[..., int]) -> Callable[..., int]:
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
        click.option(
            "--format", "formatted", type=click.Choice(["text", "markdown", "json", "junit", "html"]), default="text"
        ),
        click.option("--into", type=click.Path(path_type=Path), help="Write it into this file. [stdout]"),
    )
    for option in reversed(options):
        command = option(command)
    return in_language(command)
