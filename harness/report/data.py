"""A report for programs: every value as a tidy CSV, the summary as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pandas as pd

from harness.report.summary import Summary
from harness.store import Result
from harness.wording import Labels


def frame(results: Sequence[Result]) -> pd.DataFrame:
    """The tidy frames of all results, one below the other, with each target's label beside its key."""
    frames = []
    for result in results:
        values, labels = result.frame(), Labels(result.targets, result.header.host.lab)
        after = list(values.columns).index("target") + 1
        values.insert(after, "label", [labels[target] for target in values["target"]])
        frames.append(values)
    return pd.concat(frames, ignore_index=True)


def write_csv(summary: Summary, results: Sequence[Result], directory: Path) -> list[Path]:
    """values.csv: a row a value as it was measured, in s and B, warm-up and failed runs among them.

    isolation.csv: a row a target, several where its launches differ in what they found inside, a column a property.
    """
    values, isolation = directory / "values.csv", directory / "isolation.csv"
    # Bytes and rounds without the ".0" that a column with gaps gives them; all else to its last digit.
    frame(results).to_csv(values, index=False, float_format=number)
    _insides(summary).to_csv(isolation, index=False, float_format=number)
    return [values, isolation]


def _insides(summary: Summary) -> pd.DataFrame:
    found = [
        {"campaign": campaign.id, **msgspec.to_builtins(inside, enc_hook=str)}
        for campaign in summary.campaigns
        for inside in campaign.insides
    ]
    table = pd.json_normalize(found) if found else pd.DataFrame(columns=["campaign", "target"])
    return table.map(lambda cell: " ".join(map(str, cell)) if isinstance(cell, tuple) else cell)


def number(value: object) -> str:
    """A number of a CSV, without the ".0" that a column with gaps gives it."""
    return f"{value}".removesuffix(".0")


def write_json(summary: Summary, results: Sequence[Result], directory: Path) -> list[Path]:
    """summary.json: all that the tables say, in s and B. A value that could not be had is null beside its reason."""
    path = directory / "summary.json"
    content = json.dumps(msgspec.to_builtins(summary, enc_hook=str), indent=1, ensure_ascii=False, allow_nan=False)
    path.write_text(content + "\n", encoding="utf-8")
    return [path]
