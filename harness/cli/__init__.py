"""The command line: arguments only, one file for each kind of command. The rest of the package does the work.

Each command imports what it needs when it is called, so `--help` and errors about arguments appear at once.
"""

from __future__ import annotations

import sys
from typing import Any

import click

from harness.cli.comparing import baseline_group, compare
from harness.cli.looking import clean, doctor, facts, report, site
from harness.cli.measuring import ab, run
from harness.cli.options import BAD_INPUT, NOTHING_RAN, SOME_FAILED
from harness.cli.telling import say, say_detail, tell_left_behind
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


def _invoke(command: click.Command) -> Any:
    try:
        return command.main(standalone_mode=False)
    except click.Abort:  # which click makes of an interruption, and hides it in
        check()
        raise


def main(command: click.Command = cli) -> None:
    """Runs a command and turns whatever goes wrong into one line and an exit code."""
    try:
        with interruptible():
            code = _invoke(command)
    except click.exceptions.NoArgsIsHelpError as error:
        print(error.format_message(), file=sys.stderr)
        code = BAD_INPUT
    except click.ClickException as error:
        say(error.format_message())
        code = BAD_INPUT
    except Unavailable as error:
        say(f"{error.reason}. Try: {error.hint}")
        say_detail(error.detail)
        code = NOTHING_RAN
    except Incomparable as error:
        say(str(error))
        code = NOTHING_RAN
    except BadInput as error:
        say(str(error))
        code = BAD_INPUT
    except Interrupted as error:
        say(str(error))
        code = 128 + error.number
    except LeftBehind as error:
        tell_left_behind(error)
        code = SOME_FAILED
    except WeighbridgeError as error:
        say(str(error))
        code = SOME_FAILED
    except OSError as error:  # a full disk, above all
        say(f"{error.filename or 'the system'}: {error.strerror or error}")
        code = BAD_INPUT
    sys.exit(code)
