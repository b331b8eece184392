"""What a command says on stderr, and the table that it prints."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from harness.elapsed import show_elapsed
from harness.errors import LeftBehind
from harness.wording import line, plain


def say(text: str) -> None:
    print(f"weighbridge: {' '.join(line(text).split())}", file=sys.stderr)


def say_detail(detail: str) -> None:
    """Print the lines that belong to the message before, such as a failed command and its output."""
    for each in plain(detail).splitlines():
        print(f"  {each}", file=sys.stderr)


def tell_left_behind(error: LeftBehind) -> None:
    for failure in error.exceptions:
        say(f"{error.message}: {failure}")


def show_table(files: Sequence[Path]) -> None:
    """Print the table of these results; its progress goes to stderr if it takes more than two seconds."""
    with show_elapsed("making the table"):
        # Imported here: NumPy must not be in a process that measures.
        from rich.console import Console

        from harness.report import terminal
        from harness.report.summary import summarize
        from harness.store import read

        summary = summarize([read(file) for file in files])
    terminal.show(summary, Console())
    sys.stdout.flush()


def write_report(files: Sequence[Path], folder: Path, formats: str | None = None, language: str = "en") -> None:
    """Write the report of these results into a folder.

    Raises BadInput for a format that does not exist and a folder that cannot be written.
    """
    # Imported here: pandas and matplotlib must not be in a process that measures, and the table needs neither.
    from harness.report.formats import DEFAULT, IN_ENGLISH, write
    from harness.store import read

    wanted = DEFAULT if formats is None else formats.split(",")
    written = write([read(file) for file in files], folder, wanted, language)
    if language != "en" and (others := [name for name in wanted if name in IN_ENGLISH]):
        say(f"--lang applies to the HTML page only: {', '.join(others)} stay in English")
    say(f"the report is {written[0]}")
