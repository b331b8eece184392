"""What a report is written as: a function a format.

A format of somebody else's is a function as those in FORMATS, named in the entry-point group `weighbridge.reports`. It
is written where it is asked for by name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

from harness import extensions
from harness.errors import BadInput, Unavailable
from harness.report import ci, data, html, markdown, pictures
from harness.report.summary import Summary, summarize
from harness.store import Result

ENTRY_POINTS = "weighbridge.reports"
Format = Callable[[Summary, Sequence[Result], Path], list[Path]]
"""Writes one report of all results into a folder that is there, and returns its files."""

FORMATS: dict[str, Format] = {
    "html": html.write,
    "md": markdown.write,
    "csv": data.write_csv,
    "json": data.write_json,
    "png": partial(pictures.write, kind="png"),
    "svg": partial(pictures.write, kind="svg"),
    "pdf": partial(pictures.write, kind="pdf"),
    "github-action-benchmark": ci.write_github,
    "bencher": ci.write_bencher,
    "openmetrics": ci.write_openmetrics,
}
IN_ENGLISH = ("md", "png", "svg", "pdf")
"""Those for people that are in no other language, whatever was asked for."""
DEFAULT = ("html", "md", "csv", "json")
"""What is written where no format is named."""


def write(results: Sequence[Result], directory: Path, formats: Iterable[str], language: str = "en") -> list[Path]:
    """Writes a report of each format into the folder, which is made if need be, and returns the files.

    language: of the page, one of language.CODES.

    Raises BadInput for a format that there is not, a folder that cannot be written, and what summarize() refuses.
    """
    page = partial(html.write, code=language)
    writers = [page if name == "html" else _writer(name) for name in dict.fromkeys(formats)]
    summary = summarize(results)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        return [path for writer in writers for path in writer(summary, results, directory)]
    except OSError as error:
        raise BadInput(f"cannot write the report to {directory}: {error.strerror or error}") from error


def _writer(name: str) -> Format:
    if name in FORMATS:
        return FORMATS[name]
    added = extensions.installed(ENTRY_POINTS)
    if name not in added:
        raise BadInput(f"there is no report format {name!r}: choose among {', '.join([*FORMATS, *added])}")
    try:
        writer: Format = extensions.load(added[name])
    except Unavailable as absent:
        raise BadInput(f"the report format {name}: {absent.reason}") from absent
    return writer
