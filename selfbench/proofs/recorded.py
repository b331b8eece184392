"""The campaigns that were recorded on a machine: how, and where they are.

`python -m selfbench.proofs.recorded` records what is missing, in an hour and a half, as root on an idle machine. Every
campaign is a process of its own: it starts the engines, prepares the images and ends them again.
"""

from __future__ import annotations

import gzip
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from harness import store
from harness.store import Result

FOLDER = Path("results/proofs")
WORKLOADS = Path(__file__).parent / "workloads"
CAMPAIGNS, SIDES, POWER = 42, 41, 10
TARGETS = "host,namespace,docker"
INJECTED = ("namespace", "docker")
"""The targets whose start-up, memory and disk were raised by a tenth: each by a workload of its own."""


def commands() -> Iterator[tuple[str, list[str]]]:
    """Each campaign's name and the arguments of `weighbridge` that made it."""
    hello = ["--workloads", "hello", "--targets", TARGETS, "--rounds", "10"]
    for number in range(1, CAMPAIGNS + 1):
        yield f"run-{number}", ["run", *hello, "--seed", str(number)]
    for number in range(1, SIDES + 1):
        yield f"ab-{number}", ["ab", *hello, "--seed", str(1000 + number)]
    for number in range(1, POWER + 1):
        for target in INJECTED:
            base, head = WORKLOADS / "base", WORKLOADS / f"{target}-head"
            sides = ["--base", f"workloads={base}", "--head", f"workloads={head}"]
            arguments = ["ab", "--targets", target, "--rounds", "30", "--seed", str(2000 + number), *sides]
            yield f"power-{target}-{number}", arguments


def results(kind: str) -> list[Result]:
    """The recorded campaigns whose name begins so, in the order of their numbers."""
    files = sorted(FOLDER.glob(f"{kind}-*.jsonl.gz"), key=lambda path: int(path.name.split(".")[0].rpartition("-")[2]))
    return [store.read(file) for file in files]


def keep(result: Path, name: str) -> None:
    """Puts a result among those that are committed."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / f"{name}.jsonl.gz").write_bytes(gzip.compress(result.read_bytes(), mtime=0))


def record() -> None:
    for name, arguments in commands():
        if (FOLDER / f"{name}.jsonl.gz").exists():
            continue
        print(f"{name}: weighbridge {' '.join(arguments)}", file=sys.stderr, flush=True)
        with tempfile.TemporaryDirectory() as folder:
            output = Path(folder) / f"{name}.jsonl"
            argv = [sys.executable, "-m", "harness", *arguments, "--progress", "none", "-o", str(output)]
            subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)
            keep(output, name)


if __name__ == "__main__":
    record()
