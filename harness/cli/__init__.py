"""The command line: arguments only, one file for each kind of command. The rest of the package does the work.

Each command imports what it needs when it is called, so `--help` and errors about arguments appear at once.
"""

from __future__ import annotations

import sys
import traceback
from typing import Any

import click

from harness.cli import streams
from harness.cli.comparing import baseline_group, compare
from harness.cli.looking import clean, doctor, facts, report, site
from harness.cli.measuring import ab, run
from harness.cli.options import BAD_INPUT, INTERNAL_ERROR, NOTHING_RAN, SOME_FAILED
from harness.cli.telling import say, say_detail, tell_left_behind
from harness.engine_errors import is_engine_error
from harness.errors import BadInput, Incomparable, LeftBehind, Unavailable, WeighbridgeError
from harness.signals import Interrupted, check, interruptible


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="weighbridge")
def cli() -> None:
    """Weighs what carries a workload: a VM, a namespace sandbox, a container. Same bytes, same limits, same clock.

    Exit codes: 0 success, 1 something regressed (with --gate), 2 bad input, 3 nothing that was asked for can run here
    or be compared, 4 some runs failed.
    """


for command in (run, ab, report, site, compare, baseline_group, doctor, facts, clean):
    cli.add_command(command)


def main(command: click.Command = cli) -> None:
    """Run a command, report any error in one line, and exit with its code."""
    with streams.guard():
        code = _run(command)
    sys.exit(code)


def _run(command: click.Command) -> Any:
    try:
        try:
            with interruptible():
                return _invoke(command)
        finally:  # not when Python exits, which would change the exit code after an error
            sys.stdout.flush()
    except streams.OutputClosed:
        return streams.CLOSED
    except (Exception, Interrupted) as error:
        return _report(error)


def _invoke(command: click.Command) -> Any:
    try:
        return command.main(standalone_mode=False)
    except click.Abort:  # which click makes of an interruption, and hides it in
        check()
        raise


def _report(error: BaseException) -> int:
    """Print an error to stderr, and return its exit code."""
    match error:
        case click.exceptions.NoArgsIsHelpError():
            print(error.format_message(), file=sys.stderr)
            return BAD_INPUT
        case click.ClickException():
            say(error.format_message())
            return BAD_INPUT
        case Unavailable():
            say(f"{error.reason}. Try: {error.hint}")
            say_detail(error.detail)
            return NOTHING_RAN
        case Incomparable():
            say(str(error))
            return NOTHING_RAN
        case BadInput():
            say(str(error))
            return BAD_INPUT
        case Interrupted():
            say(str(error))
            return 128 + error.number
        case LeftBehind():
            tell_left_behind(error)
            return SOME_FAILED
        case WeighbridgeError():
            say(str(error))
            return SOME_FAILED
        case _ if is_engine_error(error):
            say(f"{type(error).__name__}: {error}")
            return SOME_FAILED
        case OSError():  # such as a full disk
            say(f"{error.filename or 'the system'}: {error.strerror or error}")
            return BAD_INPUT
    traceback.print_exception(error)
    return INTERNAL_ERROR
