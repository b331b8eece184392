"""Measures, compares, and tells the job of it: its summary, and the outputs of this step.

Inputs are variables INPUT_<NAME>, as action.yml sets them; they become arguments of the program, one each, and no
shell sees them. It ends with 0 whatever was found, so that the steps after it can comment and upload: the code is the
output `code`, and the last step ends with it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile

import msgspec

from harness.baseline import ENDINGS
from harness.comparison import Compared
from harness.report.compared import first_line, junit, markdown
from harness.stats.compare import FEWEST_CAMPAIGNS

PROGRAM = (sys.executable, "-P", "-m", "harness")  # -P: a folder `harness` of the user's is not ours
AS_ROOT = ("sudo", "--non-interactive", "--preserve-env")
MEASURING = ("targets", "workloads", "rounds", "precision", "budget", "cpus", "memory", "engines")
BAD_INPUT, SOME_FAILED = 2, 4
LARGEST_SUMMARY = 2**20
"""GitHub drops a summary that is larger."""


@dataclass(frozen=True)
class Done:
    """What the commands ended with, and the last line that they said."""

    code: int
    said: str
    printed: str = ""


def said(name: str) -> str:
    """An input; empty where it is not given."""
    return os.environ.get(f"INPUT_{name.upper().replace('-', '_')}", "").strip()


def flags(*names: str) -> list[str]:
    return [f"--{name}={said(name)}" for name in names if said(name)]


def sides() -> Iterator[str]:
    for side in ("base", "head"):
        yield from (f"--{side}={line.strip()}" for line in said(side).splitlines() if line.strip())


def judging(comparison: Path) -> list[str]:
    return [*flags("gate", "fail"), "--format=json", f"--into={comparison}"]


def plan() -> list[str]:
    return ["--", *filter(None, [said("plan")])]


def weighbridge(*arguments: str) -> Done:
    """Runs the program to its end; what it says goes to the log as it comes."""
    root = AS_ROOT if said("sudo") == "true" and os.geteuid() != 0 and _needs_no_password() else ()
    argv = [*root, *PROGRAM, *arguments]
    last = ""
    with TemporaryFile("w+", encoding="utf-8", errors="replace") as out:  # a pipe would fill, and nobody reads it yet
        with subprocess.Popen(argv, stdout=out, stderr=subprocess.PIPE, text=True, errors="replace") as program:
            for line in program.stderr or ():
                print(line, end="", flush=True)
                last = line.strip().removeprefix("weighbridge: ") or last
        out.seek(0)
        printed = out.read()
    print(printed, end="", flush=True)
    return Done(program.returncode, last, printed)


def ab(result: Path, comparison: Path) -> Done:
    if said("result"):
        return weighbridge("compare", *flags("plan"), *judging(comparison), "--", said("result"))
    confirm = ["--confirm"] if said("confirm") == "true" else []
    measured = [*flags(*MEASURING), *sides(), *confirm, f"--output={result}"]
    return weighbridge("ab", *measured, *judging(comparison), *plan())


def against_baseline(result: Path, comparison: Path) -> Done:
    measured = _campaign(result)
    if measured.code not in (0, SOME_FAILED):
        return measured
    allowed = [f"--allow-different={name.strip()}" for name in said("allow-different").splitlines() if name.strip()]
    files = (said("baseline"), said("result") or str(result))
    compared = weighbridge("compare", *flags("plan"), *allowed, *judging(comparison), "--", *files)
    return Done(compared.code or measured.code, compared.said)


def keep(result: Path, comparison: Path) -> Done:
    measured = _campaign(result)
    if measured.code != 0:
        return measured
    kept = weighbridge("baseline", "add", f"--into={said('baseline')}", "--", said("result") or str(result))
    if kept.code != 0:
        return kept
    place = Path(kept.printed.splitlines()[0].rpartition(": ")[0]).parent
    count = sum(file.name.endswith(ENDINGS) for file in place.iterdir())
    return Done(0, f"Kept: campaigns of this kind of host in the baseline: {count}; {FEWEST_CAMPAIGNS} can decide")


MODES = {"ab": ab, "baseline": against_baseline, "keep": keep}
CHOICES = {"mode": tuple(MODES), "gate": ("regressed", "strict")}
"""What no option of the program checks: there is none for the mode, and --gate takes what begins with - for another."""


def main() -> None:
    folder = Path(said("output") or "weighbridge")
    folder.mkdir(parents=True, exist_ok=True)
    result, comparison = folder / "result.jsonl", folder / "comparison.json"
    comparison.unlink(missing_ok=True)
    wrong = next((name for name, known in CHOICES.items() if said(name) not in known), None)
    if wrong is None:
        done = MODES[said("mode")](result, comparison)
    else:
        done = Done(BAD_INPUT, f"{wrong}: {said(wrong)!r} is none of {', '.join(CHOICES[wrong])}")
    compared = _read(comparison)
    verdict = done.said if compared is None else first_line(compared)
    told = folder / "comparison.md"
    told.write_text(f"**{verdict}**\n" if compared is None else markdown(compared), encoding="utf-8")
    if compared is not None:
        (folder / "comparison.xml").write_text(junit(compared), encoding="utf-8")
    _summarize(told.read_text(encoding="utf-8"))
    outputs = {"code": done.code, "verdict": " ".join(verdict.split()), "comparison": told, "folder": folder}
    _output({**outputs, "result": said("result") or result})
    if done.code:
        print(f"::error title=weighbridge::{_command(verdict)}")


def _needs_no_password() -> bool:
    return subprocess.run([*AS_ROOT, "true"], check=False, capture_output=True).returncode == 0


def _campaign(result: Path) -> Done:
    """One that is not interleaved, unless it was measured before."""
    if said("result"):
        return Done(0, "")
    return weighbridge("run", *flags(*MEASURING), f"--output={result}", *plan())


def _read(comparison: Path) -> Compared | None:
    return msgspec.json.decode(comparison.read_bytes(), type=Compared) if comparison.exists() else None


def _summarize(told: str) -> None:
    """Appends to the job's summary, of what is too long the part that is not folded."""
    if len(told.encode()) >= LARGEST_SUMMARY:
        told = told.partition("<details>")[0]
    _append("GITHUB_STEP_SUMMARY", f"{told}\n")


def _output(outputs: dict[str, object]) -> None:
    _append("GITHUB_OUTPUT", "".join(f"{name}={value}\n" for name, value in outputs.items()))


def _append(variable: str, told: str) -> None:
    with Path(os.environ[variable]).open("a", encoding="utf-8") as file:
        file.write(told)


def _command(told: str) -> str:
    """As data of a workflow command."""
    return told.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


if __name__ == "__main__":
    main()
