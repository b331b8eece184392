"""report.md, with its pictures as PNG files beside it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from harness.report import matrix, particulars, pictures, tables
from harness.report.summary import Campaign, Failed, Summary
from harness.report.tables import Table
from harness.store import Result
from harness.wording import line

_SPECIAL = re.compile(r"([\\`*_\[\]<>|#~$])")


def write(summary: Summary, results: Sequence[Result], directory: Path) -> list[Path]:
    drawn = [(picture, directory / f"{picture.name}.png") for picture in pictures.draw(summary)]
    for picture, path in drawn:
        path.write_bytes(picture.saved("png"))
    report = directory / "report.md"
    images = [f"![{escape(picture.title)}]({path.name})" for picture, path in drawn]
    report.write_text(render(summary, images), encoding="utf-8")
    return [report, *(path for _, path in drawn)]


def render(summary: Summary, images: Sequence[str] = ()) -> str:
    """The whole report. `images` are Markdown already."""
    parts = ["# Weighbridge report", table(tables.headline(summary)), *images]
    for content in matrix.tables(summary):
        parts += _section(content, level=2)
    for campaign in summary.campaigns:
        parts += _campaign(campaign)
    return "\n\n".join(parts) + "\n"


def table(content: Table) -> str:
    """One table with its notes, without its title."""
    lines = [_row(content.columns), _row(["---"] * len(content.columns), foreign=False)]
    lines += [_row(row) for row in content.rows]
    notes = [f"- {escape(note)}" for note in content.notes]
    return "\n".join([*lines, *([""] if notes else []), *notes])


def escape(text: str) -> str:
    """Foreign text on one line, with nothing in it that Markdown or HTML would take as markup."""
    return _SPECIAL.sub(r"\\\1", line(text)).replace("&", "&amp;")


def _row(cells: Sequence[str], foreign: bool = True) -> str:
    return f"| {' | '.join(escape(cell) if foreign else cell for cell in cells)} |"


def _campaign(campaign: Campaign) -> Iterator[str]:
    yield f"## Campaign {escape(campaign.id)}"
    yield "\n".join(f"- {name}: {escape(value)}" for name, value in particulars.origin(campaign))
    if campaign.warnings:
        yield "\n".join(f"> **Note:** {escape(str(warning))}" for warning in campaign.warnings)
    if campaign.failures:
        yield from _section(particulars.failures(campaign))
        for failure in campaign.failures:
            yield from _log(failure)
    for content in particulars.details(campaign):
        yield from _section(content)


def _section(content: Table, level: int = 3) -> Iterator[str]:
    yield f"{'#' * level} {escape(content.title)}"
    yield table(content)


def _log(failure: Failed) -> Iterator[str]:
    if failure.log:
        # A fence must be longer than any in what it encloses.
        longest = max((len(run) for run in re.findall(r"`+", failure.log)), default=0)
        fence = "`" * max(3, longest + 1)
        yield f"The end of what {escape(failure.run)} printed:"
        yield f"{fence}text\n{failure.log}\n{fence}"
