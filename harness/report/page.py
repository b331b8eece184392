"""What all pages have in common: one file with its style, script and data inside, which asks nothing of any network."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from harness.report.language import Language


def render(
    template: str,
    language: Language,
    *,
    title: str,
    description: str,
    made: str = "",
    kind: str = "report",
    **content: Any,
) -> str:
    """A page of a template that extends base.html. What comes from outside is escaped, and nothing of it can run.

    description: the page in a sentence, which an index of pages shows. made: when its data were (RFC 3339).
    """
    style, script = _static("page.css"), _static("page.js") + _static("save.js")
    # Only this very script and this very style may run, and nothing may be fetched; a saved chart is an image of data.
    policy = (
        f"default-src 'none'; style-src '{_digest(style)}'; script-src '{_digest(script)}'; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'"
    )
    return (
        _environment()
        .get_template(template)
        .render(
            t=language,
            _=language.say,
            title=title,
            description=description,
            made=made,
            kind=kind,
            style=Markup(style),
            script=Markup(script),
            policy=policy,
            **content,
        )
    )


@cache
def _environment() -> Environment:
    """Return the environment, which keeps the compiled templates."""
    environment = Environment(
        loader=PackageLoader("harness.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = _percent
    return environment


def _static(name: str) -> str:
    return files("harness.report").joinpath(f"static/{name}").read_text("utf-8")


def _digest(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _percent(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") + "%"
