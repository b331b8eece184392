"""Runs the programs that build things, and turns their failures into one clear line."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from harness import pace, remedies
from harness.errors import EngineError, Unavailable

TAIL_LINES = 10
DETAIL_LINES, DETAIL_WIDTH = 30, 500
"""Bounds of a failed command's output in messages: the number of last lines, and characters of each line."""
TIMEOUT, FACTOR = 600.0, 15000
"""Floor in seconds and factor of pace.deadline, for programs that build something."""


class CommandFailed(EngineError):
    """A program failed. The message has its last line, `log` its output's tail, `status` its exit status.

    A negative status is the signal that ended it; None: it timed out. argv: the command. output: the complete output.
    timeout: its deadline in seconds. detail: the complete command, its exit status and the end of its output, as lines.
    """

    def __init__(
        self, argv: Sequence[str | Path], status: int | None, output: str, timeout: float | None = None
    ) -> None:
        program, lines = Path(argv[0]).name, [line.rstrip() for line in output.splitlines() if line.strip()]
        how = "did not end in time" if status is None else f"failed with status {status}"
        super().__init__(
            f"{program} {how}: {lines[-1] if lines else 'it said nothing'}", "\n".join(lines[-TAIL_LINES:])
        )
        self.argv = argv
        self.status = status
        self.output = output
        self.timeout = timeout
        ended = f"timed out after {timeout:g} s" if status is None and timeout else f"exit status {status}"
        shown = [line if len(line) <= DETAIL_WIDTH else f"{line[: DETAIL_WIDTH - 1]}…" for line in lines]
        self.detail = "\n".join([f"$ {shlex.join(map(str, argv))}", *shown[-DETAIL_LINES:], ended])


def find(program: str, package: str) -> str:
    """The path of a program, looked for in the sbin folders too, which an ordinary user's PATH may lack.

    Raises Unavailable naming the Debian `package` that has it.
    """
    path = shutil.which(program, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")
    if path is None:
        raise Unavailable(f"the program {program} is not installed", remedies.install(package))
    return path


def run(
    argv: Sequence[str | Path],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    stdin: str = "",
    timeout: float | None = None,
) -> str:
    """Run a program with English messages and return its standard output.

    env: added to our environment. timeout: in seconds; None: a deadline that suits the machine.
    Raises CommandFailed if it fails, Unavailable if it is not installed.
    """
    program = Path(argv[0]).name
    try:
        done = subprocess.run(
            argv,
            cwd=cwd,
            env={**os.environ, "LC_ALL": "C.UTF-8", "LANGUAGE": "", **(env or {})},
            input=stdin,
            timeout=pace.deadline(TIMEOUT, FACTOR) if timeout is None else timeout,
            umask=0o022,  # what they make is for other users too, whatever ours is
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise CommandFailed(argv, None, _text(error.stderr), error.timeout) from error
    except OSError as error:  # which one says little: a folder of PATH that is closed to us hides a missing program
        if shutil.which(argv[0]) is None:
            raise Unavailable(f"the program {program} is not installed", f"install {program}") from error
        raise CommandFailed(argv, 126, f"{error.strerror}") from error
    if done.returncode != 0:
        raise CommandFailed(argv, done.returncode, done.stderr or done.stdout)
    return done.stdout


def run_as_uid_0(
    argv: Sequence[str | Path], *, cwd: Path | None = None, env: Mapping[str, str] | None = None, stdin: str = ""
) -> str:
    """Run a program to which our own files belong to uid 0, as they shall in the image or archive that it writes.

    Raises what `run` raises, and Unavailable where an ordinary user may not have a user namespace.
    """
    mapped: list[str | Path] = []
    if os.geteuid() != 0:
        mapped = [find("unshare", "util-linux"), "--map-root-user"]
        try:
            run([*mapped, find("true", "coreutils")])
        except CommandFailed as error:
            reason = f"no image can be built without a user namespace: {error}"
            raise Unavailable(reason, remedies.allow_user_namespaces(), error.detail) from error
    return run([*mapped, *argv], cwd=cwd, env=env, stdin=stdin)


def _text(output: bytes | str | None) -> str:
    return output.decode(errors="replace") if isinstance(output, bytes) else output or ""


def signal_name(number: int) -> str:
    """Return a signal's name, such as SIGKILL; "signal 77" for a number without one."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def version_of(program: str) -> str:
    """The first line of what `program --version` prints. Raises Unavailable where it is not there."""
    return run([program, "--version"]).splitlines()[0]
