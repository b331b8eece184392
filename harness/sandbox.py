"""Builds what is not ours in a sandbox: packages and scripts of others reach nothing of this machine but one folder.

Source: bwrap(1). Its root is pivoted to, so that whoever may call chroot inside does not get out; all processes of a
sandbox are in a PID namespace and end with it.
"""

from __future__ import annotations

import functools
import os
import re
import secrets
from collections.abc import Sequence
from pathlib import Path

from harness import command, process, remedies
from harness.command import CommandFailed, find
from harness.errors import Unavailable

ENDS = ["--unshare-pid", "--unshare-ipc", "--unshare-uts", "--die-with-parent", "--new-session"]
CLEAN = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "PYTHONHASHSEED": "0"}


def writing_only(folder: Path, argv: Sequence[str | Path], timeout: float | None = None) -> str:
    """What a program prints that sees this machine, its network too, but can write nowhere but in this folder and /tmp.

    An ordinary user's can write what that user can: they need no sandbox, which they may not be allowed to have.
    timeout: in seconds, None for that of command.run, whose exceptions are raised.
    """
    name = _name()
    if os.geteuid() != 0:
        return _run(name, argv, timeout)
    seen = ["--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "--tmpfs", "/tmp"]
    seen += ["--setenv", "TMPDIR", "/tmp"]  # another one would be read-only
    return _run(name, [find("bwrap", "bubblewrap"), *ENDS, *seen, "--bind", folder, folder, "--", *argv], timeout)


def within(root: Path, argv: Sequence[str]) -> str:
    """What a program prints that has this folder for its root: as uid 0, without network, in a clean environment.

    Raises what command.run raises, and Unavailable where this user must not have the namespaces of a sandbox.
    """
    alone: list[str | Path] = [
        "--unshare-all",
        "--uid",
        "0",
        "--gid",
        "0",
        "--bind",
        root,
        "/",
        "--dev",
        "/dev",
        "--proc",
        "/proc",
    ]
    name = _name()
    told = {**CLEAN, process.NAME_VARIABLE: name}  # by which all of it is found when it is to end
    clean = [word for variable, value in told.items() for word in ("--setenv", variable, value)]
    alone += ["--clearenv", *clean, "--chdir", "/"]
    try:
        return _run(name, [find("bwrap", "bubblewrap"), *ENDS, *alone, "--", *argv])
    except CommandFailed as error:
        if not re.search(remedies.USER_NAMESPACE_REFUSED, error.output):
            raise
        raise Unavailable(f"no sandbox can be made: {error}", remedies.allow_user_namespaces(), error.detail) from error


def _name() -> str:
    return f"weighbridge-build-{secrets.token_hex(4)}"


def _run(name: str, argv: Sequence[str | Path], timeout: float | None = None) -> str:
    """Ends, if it is interrupted, all that the program has started too, and returns when they are gone."""
    run = command.run if timeout is None else functools.partial(command.run, timeout=timeout)
    try:
        return run(argv, env={process.NAME_VARIABLE: name})
    except BaseException:
        process.end_processes(name)
        raise
