"""Reports: pure functions of results, one module a format."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from harness.errors import BadInput
from harness.report import data, html, markdown
from harness.report.summary import Summary, summarize
from harness.store import Result

__all__ = ["FORMATS", "summarize", "write"]

Format = Callable[[Summary, Sequence[Result], Path], list[Path]]

FORMATS: dict[str, Format] = {
    "html": html.write,
    "md": markdown.write,
    "csv": data.write_csv,
    "json": data.write_json,
}


def write(results: Sequence[Result], directory: Path, formats: Iterable[str]) -> list[Path]:
    """Writes a report of each format into the folder, which is made if need be, and returns the files.

    Raises BadInput for a format that there is not, a folder that cannot be written, and what summarize() refuses.
    """
    wanted = list(dict.fromkeys(formats))
    unknown = next((name for name in wanted if name not in FORMATS), None)
    if unknown is not None:
        raise BadInput(f"there is no report format {unknown!r}: choose among {', '.join(FORMATS)}")
    summary = summarize(results)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        return [path for name in wanted for path in FORMATS[name](summary, results, directory)]
    except OSError as error:
        raise BadInput(f"cannot write the report to {directory}: {error.strerror or error}") from error
