"""`python -m selfbench`: measures, prints what came of it, and keeps the raw values. As root, on an idle machine."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import click
import msgspec

from harness import host
from harness.errors import Unavailable, WeighbridgeError
from selfbench.document import Selfbench, table
from selfbench.measurement import Measurement

SUBJECTS = ("host", "namespace", "docker", "libvirt", "guest", "doorbell", "campaign", "memory", "load", "command")
"""A module each, with a function `measure(rounds)` that gives Measurements; in the order in which they are shown."""
RESULT = Path("results/selfbench.json")


@click.command()
@click.argument("subjects", nargs=-1, type=click.Choice(SUBJECTS))
@click.option("--rounds", type=click.IntRange(min=1), help="Rounds of each. [what each takes to be steady]")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="[results/selfbench.json, where all is measured]")
def main(subjects: tuple[str, ...], rounds: int | None, output: Path | None) -> None:
    """Measures SUBJECTS (all, if none is named) against their floors. Exit code 1 where a promise is not kept."""
    measured: list[Measurement] = []
    for subject in subjects or SUBJECTS:
        print(f"selfbench: {subject}", file=sys.stderr, flush=True)
        module = importlib.import_module(f"selfbench.{subject}")
        try:
            measured += module.measure(rounds or module.ROUNDS)
        except Unavailable as absent:
            skipped = f"{absent.reason}. Try: {absent.hint}"
            measured.append(Measurement(key=subject, question=module.QUESTION, unit="s", ours=subject, skipped=skipped))
    commit, dirty = host.commit()
    result = Selfbench(
        command=["python", "-m", "selfbench", *sys.argv[1:]],
        commit=commit,
        dirty=dirty,
        host=host.describe(),
        measurements=measured,
    )
    if output is None and not subjects and rounds is None:  # a part of it takes no place of the whole
        output = RESULT
    if output is not None:
        output.write_bytes(msgspec.json.format(msgspec.json.encode(result), indent=1) + b"\n")
    print(table(result))
    sys.exit(any(measurement.reached is False for measurement in measured))


if __name__ == "__main__":
    try:
        main()
    except WeighbridgeError as error:
        sys.exit(f"selfbench: {error}")
