"""Finds a usable engine of the user's, or starts a private one that leaves nothing behind; always says which."""

from __future__ import annotations

import socket
from collections.abc import Sequence

import psutil

from harness.backends import Unseen

SOCKET_PATH_LIMIT = 107
"""Bytes that the path of a Unix socket may have (unix(7): 108 with the NUL)."""


def peer(path: str) -> int:
    """The pid of the process that serves a Unix socket (SO_PEERCRED of unix(7)). Raises OSError."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
        return peer_of(connection)


def program(pid: int) -> str:
    """The name of a running program; empty where it has ended."""
    try:
        return psutil.Process(pid).name()
    except psutil.NoSuchProcess:
        return ""


def serving(path: str, names: Sequence[str]) -> list[int] | Unseen:
    """The daemon of one of these names that serves a Unix socket.

    The socket tells only who began to listen: where systemd did, the daemon is looked for by name.
    """
    pid = peer(path)
    if program(pid) in names:
        return [pid]
    found = [process.pid for process in psutil.process_iter() if program(process.pid) in names]
    return found or Unseen(f"no {' or '.join(names)} is visible from here")


def peer_of(connection: socket.socket) -> int:
    """The pid at the other end of a connected Unix socket."""
    return int.from_bytes(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)[:4], "little", signed=True)


def last_line(text: str) -> str:
    """What a log says last."""
    return text.splitlines()[-1] if text else "it said nothing"


def last_cause(error: BaseException) -> str:
    """The innermost reason of a chain of exceptions: what the SDK wraps around it says less."""
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__  # type: ignore[assignment]
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
