"""qemu:///session: end the daemons of a user's session that libvirt's client library started for us.

By themselves they end after two minutes without a client (--timeout=120), and leave folders, marker files and caches in
the user's home. A daemon that the user started, that has another client or that runs a machine is left running; only
folders that did not exist before are removed.
Source: libvirt, src/remote/remote_sockets.c and src/rpc/virnetsocket.c (virNetSocketForkDaemon).
"""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from harness import pace
from harness.engines import program
from harness.engines.libvirt_traces import BASE_FOLDERS, find_base_folder, find_runtime_folder
from harness.ledger import Ledger, exclusive, held, shared
from harness.process import told, wait_for_end

DAEMONS = {"libvirt-sock": "libvirtd", "virtqemud-sock": "virtqemud", "virtlogd-sock": "virtlogd"}
"""{socket: the daemon that serves it}, in the order in which they are ended: a daemon before those that it uses."""
CONNECTED = "03"
"""The state of a connected socket in /proc/net/unix (SS_CONNECTED of linux/net.h)."""
CLOSING_TIMEOUT, CLOSING_FACTOR = 2.0, 50
"""Floor in seconds and factor of pace.deadline, for a daemon to notice that a client has closed its connection."""
DISPOSABLE = ("autostarted", "system.token", "*.pid", "capabilities/*.xml")
"""Files that a daemon creates again when it needs them."""


@contextmanager
def hold_session(ledger: Ledger, uri: str) -> Iterator[None]:
    """Hold, in the ledger, the daemons and folders that a connection to this URI creates in the user's session.

    Those that another campaign's connection created are shared; the last campaign to leave removes them. A daemon
    that no ledger has is the user's.
    """
    with ExitStack() as stack:
        if uri.endswith("/session"):
            with exclusive():
                runtime = find_runtime_folder()
                sharing = _list_held(str(runtime))
                if sharing or not any(_find_daemon(runtime, name) for name in DAEMONS.values()):
                    stack.enter_context(
                        ledger.holding(release, runtime=str(runtime), **_list_created(runtime, sharing))
                    )
        yield


def _list_held(runtime: str) -> list[dict[str, Any]]:
    """Return the entries for this session in the ledgers of all campaigns, including killed ones."""
    return [entry for _, entry in held(release) if entry["runtime"] == runtime]


def _list_created(runtime: Path, sharing: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Return the folders that the session's daemons will create, and those created for the entries in `sharing`."""
    bases = tuple(map(find_base_folder, BASE_FOLDERS))
    candidates = {"folders": (runtime, *(base / "libvirt" for base in bases)), "parents": bases}
    return {
        kind: [str(path) for path in paths if not path.exists() or any(str(path) in entry[kind] for entry in sharing)]
        for kind, paths in candidates.items()
    }


@shared
def release(runtime: str, folders: list[str], parents: list[str]) -> None:
    """End the session's daemons that a client started, and remove their folders, unless others use them.

    Another entry for the session, in any ledger, leaves both to the campaign that releases the last one.

    runtime: the folder of their sockets. folders: folders that did not exist before, removed unless they contain files
    that a daemon would not create again. parents: folders that did not exist before, removed if they are empty.
    Raises EngineError if a daemon does not end.
    """
    if len(_list_held(runtime)) > 1:
        return
    for socket, name in DAEMONS.items():
        pid = _find_daemon(Path(runtime), name)
        if pid is not None and not _end_unused(pid, Path(runtime, socket)):
            return
    for folder in folders:
        _prune(Path(folder))
    for parent in map(Path, parents):
        if parent.is_dir() and not any(parent.iterdir()):
            parent.rmdir()


def _find_daemon(runtime: Path, name: str) -> int | None:
    """Return the pid of a running daemon of the session; None if it does not run."""
    try:
        pid = int((runtime / f"{name}.pid").read_text())
    except (FileNotFoundError, ValueError):
        return None
    return pid if program(pid) == name else None


def _end_unused(pid: int, socket: Path) -> bool:
    """End a daemon; return False if the user started it, it has another client, or it runs a machine."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        deadline = time.monotonic() + pace.deadline(CLOSING_TIMEOUT, CLOSING_FACTOR)
        while _count_clients(socket) and time.monotonic() < deadline:
            if select.select([pidfd], [], [], 0.01)[0]:
                return True
        started_by_client = any(word.startswith(b"--timeout") for word in told(pid, "cmdline"))
        if not started_by_client or _count_clients(socket) or any((socket.parent / "qemu/run").glob("*.xml")):
            return False
        signal.pidfd_send_signal(pidfd, signal.SIGTERM)
        wait_for_end(pidfd, f"the session's {program(pid)}")
    except ProcessLookupError:
        return True
    finally:
        os.close(pidfd)
    return True


def _count_clients(socket: Path) -> int:
    """Return the number of connections that a Unix socket has accepted, from /proc/net/unix."""
    lines = (line.split() for line in Path("/proc/net/unix").read_text().splitlines())
    return sum(fields[-1] == str(socket) and fields[5] == CONNECTED for fields in lines if len(fields) == 8)


def _prune(top: Path) -> None:
    """Remove a folder and the files that a daemon creates again; other files, and the folders above them, stay."""
    for folder, _, files in os.walk(top, topdown=False):
        for path in (Path(folder, name) for name in files):
            if any(path.match(pattern) for pattern in DISPOSABLE):
                path.unlink()
        if not any(Path(folder).iterdir()):
            Path(folder).rmdir()
