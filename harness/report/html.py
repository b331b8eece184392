"""index.html: one file with its style and pictures inside, which asks nothing of any network."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from harness.report import matrix, pictures, tables
from harness.report.summary import Summary
from harness.store import Result


def write(summary: Summary, results: Sequence[Result], directory: Path) -> list[Path]:
    path = directory / "index.html"
    path.write_text(render(summary), encoding="utf-8")
    return [path]


def render(summary: Summary) -> str:
    """The whole page. Logs, reasons and names are foreign text: all is escaped but the style and the pictures."""
    environment = Environment(
        loader=PackageLoader("harness.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html").render(
        summary=summary,
        tables=tables,
        matrix=matrix,
        pictures=[Markup(picture.svg()) for picture in pictures.draw(summary)],
        style=Markup(files("harness.report").joinpath("static/report.css").read_text("utf-8")),
    )
