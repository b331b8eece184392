"""What a command says on stderr, and the table that it prints."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from harness.elapsed import lasting
from harness.errors import LeftBehind
from harness.wording import line


def say(text: str) -> None:
    print(f"weighbridge: {' '.join(line(text).split())}", file=sys.stderr)


def tell_left_behind(error: LeftBehind) -> None:
    for failure in error.exceptions:
        say(f"{error.message}: {failure}")


def report_of(files: Sequence[Path], folder: Path | None, formats: str | None, language: str = "en") -> None:
    """Print the table of these results, then write the report if a folder is named: the table needs less time.

    What takes more than two seconds shows its progress on stderr.
    """
    with lasting("making the table"):
        # Imported here: NumPy, SciPy, pandas and matplotlib must not be in a process that measures.
        from rich.console import Console

        from harness.report import terminal
        from harness.report.summary import summarize
        from harness.store import read

        results = [read(file) for file in files]
        summary = summarize(results)
    terminal.show(summary, Console())
    if folder is None:
        return
    sys.stdout.flush()
    with lasting("writing the report"):
        from harness.report.formats import DEFAULT, IN_ENGLISH, write

        wanted = DEFAULT if formats is None else formats.split(",")
        written = write(results, folder, wanted, language)
    if language != "en" and (others := [name for name in wanted if name in IN_ENGLISH]):
        say(f"only the page is in another language than English, which {', '.join(others)} are in")
    say(f"the report is {written[0]}")
