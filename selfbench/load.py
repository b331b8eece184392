"""load: what it takes to read very many runs and to sum them up, beside pandas reading the same file.

The file is made of results/sample.jsonl: its measured runs again and again, with ids and rounds of their own, each with
its times and amounts scaled by a factor of its own, up to RUNS of them (some 380 MB). It is nobody's result and is gone
afterwards. The floor is pandas.read_json(lines=True), which leaves every record as nested as it is; ours checks each
one and makes the tidy frame, a row a value. The summary is all that a report says: of every metric in every cell the
median with its interval, the ratio, and what it consists of. Each side runs in a process of its own.
"""

from __future__ import annotations

import itertools
import json
import random
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from harness.errors import WeighbridgeError
from selfbench.measurement import SEED, Measurement, interleaved

QUESTION = "How long does it take to load 100,000 runs into the tidy frame, beside pandas.read_json?"
ROUNDS = 5
AT_MOST, SUMMARY_AT_MOST = 1.0, 0.5
RUNS = 100_000
SAMPLE = Path("results/sample.jsonl")
SPREAD = 0.05
PAGE = 4096
OURS, FLOOR, SUMMARY = "load", "pandas.read_json", "summary"

LOAD = """
import json, sys, time
from pathlib import Path
import pandas
from harness import store
from harness.report.summary import summarize
path = Path(sys.argv[1])
began = time.perf_counter()
result = store.read(path)
frame = result.frame()
loaded = time.perf_counter()
summary = summarize([result])
print(json.dumps([loaded - began, time.perf_counter() - loaded]))
"""
READ_JSON = """
import json, sys, time
import pandas
began = time.perf_counter()
frame = pandas.read_json(sys.argv[1], lines=True)
print(json.dumps([time.perf_counter() - began]))
"""


def measure(rounds: int) -> Sequence[Measurement]:
    summaries = list[float]()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "many.jsonl"
        write(path)
        sides: dict[str, Callable[[], float]] = {
            OURS: partial(loaded, path, summaries),
            FLOOR: lambda: child(READ_JSON, path)[0],
        }
        values = interleaved(sides, rounds)
    beside = {SUMMARY: summaries[-rounds:], OURS: values[OURS]}
    return [
        _measurement("load.frame", QUESTION, OURS, FLOOR, AT_MOST, values),
        _measurement(
            "load.summary", "And to sum them up, beside loading them?", SUMMARY, OURS, SUMMARY_AT_MOST, beside
        ),
    ]


def _measurement(
    key: str, question: str, ours: str, floor: str, at_most: float, values: Mapping[str, list[float]]
) -> Measurement:
    return Measurement(
        key=key, question=question, unit="s", ours=ours, floor=floor, at_most=at_most, values=dict(values)
    )


def loaded(path: Path, summaries: list[float]) -> float:
    """Seconds to the frame. `summaries` takes those of the summary after it."""
    seconds, summary = child(LOAD, path)
    summaries.append(summary)
    return seconds


def child(script: str, path: Path) -> list[float]:
    """What a script printed of this file. Raises WeighbridgeError where it fails."""
    done = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise WeighbridgeError(f"loading failed: {done.stderr.strip()}")
    seconds: list[float] = json.loads(done.stdout)
    return seconds


def write(path: Path) -> None:
    """Makes the file."""
    lines = SAMPLE.read_bytes().splitlines()
    records = [msgspec.json.decode(line) for line in lines]
    runs = [record for record in records if record["kind"] == "run" and record["phase"] == "measured"]
    *before, footer = (record for record in records if record["kind"] != "run")
    encode = msgspec.json.Encoder().encode
    with path.open("wb") as file:
        for record in itertools.chain(before, _again(runs), [{**footer, "runs": RUNS}]):
            file.write(encode(record) + b"\n")


def _again(runs: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    chance = random.Random(SEED)
    cells = len({(run["target"], run["workload"]) for run in runs})
    for number in range(RUNS):
        run, factor = runs[number % len(runs)], chance.lognormvariate(0, SPREAD)
        yield {
            **run,
            "id": f"{run['id']}-{number}",
            "seq": number,
            "round": number // cells + 1,
            "marks": [[name, at * factor] for name, at in run["marks"]],
            "samples": [{**sample, "value": _scaled(sample["value"], factor)} for sample in run["samples"]],
        }


def _scaled(value: float | None, factor: float) -> float | None:
    """Bytes stay whole pages."""
    return int(value * factor) // PAGE * PAGE if isinstance(value, int) else value and value * factor
