"""The data behind a page: inside it while they are small, else beside it."""

from __future__ import annotations

import base64
import gzip
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.report import data
from harness.store import Result
from harness.wording import Words, line

MOST_RUNS = 3000
"""Of more, the data are beside the page."""
MOST_BYTES = 400_000
"""Compressed."""
FAST = 1


@dataclass(frozen=True)
class Link:
    """`href` holds the file itself, or names one beside the page."""

    name: str
    href: str
    told: str


def links(results: Sequence[Result], directory: Path) -> tuple[list[Link], list[Path]]:
    """Links to the results as JSON Lines and as one CSV, and the files that were written for them.

    Of large data, the results alone are written, compressed, beside the page.
    """
    if sum(len(result.runs) for result in results) <= MOST_RUNS:
        inside = [(_name(result), _lines(result), Words("the records, as JSON Lines")) for result in results]
        table = data.frame(results).to_csv(index=False, float_format=data.number).encode()
        inside.append(("values.csv.gz", _packed(table), Words("every value as it was measured, as CSV")))
        if sum(len(content) for _, content, _ in inside) <= MOST_BYTES:
            return [Link(name, _inline(content), told) for name, content, told in inside], []
    # All are read before one is written: a result may be what an earlier report left here under the same name.
    contents = {f"data-{number}.jsonl.gz": _lines(result, FAST) for number, result in enumerate(results, 1)}
    for name, content in contents.items():
        (directory / name).write_bytes(content)
    told = Words("the records, as JSON Lines; too many to be in this page")
    return [Link(name, name, told) for name in contents], [directory / name for name in contents]


def _name(result: Result) -> str:
    name = line(result.path.name)
    return name if name.endswith(".gz") else f"{name}.gz"


def _lines(result: Result, level: int = 9) -> bytes:
    content = result.path.read_bytes()
    return content if result.path.suffix == ".gz" else _packed(content, level)


def _packed(content: bytes, level: int = 9) -> bytes:
    return gzip.compress(content, level, mtime=0)


def _inline(content: bytes) -> str:
    return f"data:application/gzip;base64,{base64.b64encode(content).decode()}"
