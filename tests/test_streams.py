"""The command whose stdout or stderr has no reader, is on a full disk, or is closed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO

import pytest

from harness.store import read
from tests.ground import Ground, ground

MAIN = "from harness.cli import main; main()"
FAKE = """
import sys
from pathlib import Path
import pytest
from harness import cli
from tests import test_release_errors as fakes

with pytest.MonkeyPatch.context() as patch:
    fakes.install(patch, Path.cwd())
    cli.main()
"""
"""The command with an engine that measures nothing: what it prints is under test."""


@pytest.fixture
def place() -> Iterator[Ground]:
    with ground() as place:
        yield place


def broken(stack: ExitStack) -> IO[bytes]:
    """Return the writing end of a pipe whose reader is gone."""
    reading, writing = os.pipe()
    os.close(reading)
    return stack.enter_context(os.fdopen(writing, "wb", buffering=0))


def full(stack: ExitStack) -> IO[bytes]:
    return stack.enter_context(Path("/dev/full").open("wb", buffering=0))


def run(
    place: Ground,
    *arguments: str,
    program: str = MAIN,
    buffered: bool = True,
    prefix: tuple[str, ...] = (),
    **streams: object,
) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    environment |= {**place.environment, **({} if buffered else {"PYTHONUNBUFFERED": "1"})}
    given = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **streams}
    argv = [*prefix, sys.executable, "-c", program, *arguments]
    return subprocess.run(argv, cwd=place.folder, env=environment, text=True, check=False, **given)  # type: ignore[call-overload,no-any-return]


@pytest.mark.parametrize("buffered", [True, False])
@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["clean"]], ids=" ".join)
def test_stdout_without_a_reader_ends_the_command_with_141_and_no_message(
    place: Ground, arguments: list[str], buffered: bool
) -> None:
    with ExitStack() as stack:
        done = run(place, *arguments, buffered=buffered, stdout=broken(stack))
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.parametrize("arguments", [["--help"], ["clean"]], ids=" ".join)
def test_stdout_on_a_full_disk_is_bad_input(place: Ground, arguments: list[str]) -> None:
    with ExitStack() as stack:
        done = run(place, *arguments, stdout=full(stack))
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == "weighbridge: cannot write to standard output: No space left on device"
    assert "Exception ignored" not in done.stderr


def test_stdout_without_a_reader_keeps_the_exit_code_of_an_error(place: Ground) -> None:
    with ExitStack() as stack:
        assert run(place, "nonsense", stdout=broken(stack)).returncode == 2


@pytest.mark.parametrize("stderr", [broken, full])
@pytest.mark.parametrize(("arguments", "code"), [(["nonsense"], 2), (["run", "none.toml"], 2), ([], 2)])
def test_stderr_that_cannot_be_written_does_not_change_the_exit_code(
    place: Ground, arguments: list[str], code: int, stderr: object
) -> None:
    with ExitStack() as stack:
        assert run(place, *arguments, stderr=stderr(stack)).returncode == code  # type: ignore[operator]


@pytest.mark.long
@pytest.mark.parametrize(
    ("progress", "stderr"),
    [("lines", broken), ("bar", broken), ("json", full), ("rounds", None)],
)
def test_run_whose_stderr_cannot_be_written_measures_every_launch(place: Ground, progress: str, stderr: object) -> None:
    arguments = ["run", "--targets", "bad,good", "--rounds", "1", "--progress", progress, "-o", "new.jsonl"]
    with ExitStack() as stack:
        if stderr is None:
            done = run(place, *arguments, program=FAKE, prefix=("sh", "-c", 'exec "$0" "$@" 2>&-'))
        else:
            done = run(place, *arguments, program=FAKE, stderr=stderr(stack))  # type: ignore[operator]
    assert done.returncode == 0
    assert "Start-up" in done.stdout and "4/4" not in done.stdout
    result = read(place.folder / "new.jsonl")
    assert result.footer is not None and result.footer.complete and len(result.runs) == 4
    assert all(each.ok for each in result.runs)


@pytest.mark.long
def test_run_whose_stdout_has_no_reader_writes_result_and_report(place: Ground) -> None:
    arguments = [
        "run",
        "--targets",
        "good",
        "--rounds",
        "1",
        "-o",
        "new.jsonl",
        "--report",
        "rep",
    ]
    with ExitStack() as stack:
        done = run(place, *arguments, program=FAKE, stdout=broken(stack))
    assert done.returncode == 141 and "Traceback" not in done.stderr
    footer = read(place.folder / "new.jsonl").footer
    assert footer is not None and footer.complete and (place.folder / "rep/index.html").exists()


@pytest.mark.long
def test_doctor_whose_stdout_has_no_reader_ends_with_141(place: Ground) -> None:
    with ExitStack() as stack:
        done = run(place, "doctor", "--targets", "good,bad", program=FAKE, stdout=broken(stack))
    assert (done.returncode, done.stderr) == (141, "")
    assert place.left() == []


@pytest.mark.long
def test_closed_streams_are_as_dev_null(place: Ground) -> None:
    arguments = ["run", "--targets", "good", "--rounds", "1", "-o", "new.jsonl"]
    done = run(place, *arguments, program=FAKE, prefix=("sh", "-c", 'exec "$0" "$@" 0<&- 1>&- 2>&-'))
    assert (done.returncode, done.stdout) == (0, "")
    assert json.loads((place.folder / "new.jsonl").read_text().splitlines()[0])["kind"] == "header"
    assert read(place.folder / "new.jsonl").footer is not None
