"""Docker engines for tests: one like the system's, and a rootless one of an ordinary user."""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from harness.engines import docker as engine
from harness.engines.docker import DockerEngine
from harness.ledger import Ledger
from harness.process import Child, spawn, tail

SUBORDINATE = 200_000
"""The first of the uids and gids that a rootless engine has besides its user's own."""


@contextmanager
def visible_engine() -> Iterator[DockerEngine]:
    """Yield a dockerd whose processes are visible from here, like those of the system's engine."""
    inside = engine._dockerd

    def visible(folder: Path, group: str) -> list[str]:
        return [word for word in inside(folder, group) if word not in ("--pid", "--mount-proc")]

    with ExitStack() as stack:
        ledger = stack.enter_context(Ledger())
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(engine, "_dockerd", visible)
            running = stack.enter_context(engine._private_docker(ledger, {}))
        yield running


ROOTLESS = """
set -e
echo >"$0/made"
read -r line <"$0/mapped"
exec setpriv --reuid 0 --regid 0 --clear-groups unshare --mount --net sh -c '
    ip link set lo up
    mount -t tmpfs -o mode=755 weighbridge /run
    exec "$@"' sh "$@"
"""


@contextmanager
def rootless_engine(folder: Path, uid: int) -> Iterator[str]:
    """Yield the URL of a dockerd that this user runs in a user namespace. folder: a new folder for it. Needs root.

    Debian's rootlesskit makes such a namespace by newuidmap(1); here the test maps the uids. There is only loopback.
    """
    for name in ("data", "exec", "run"):
        (folder / name).mkdir()
    (folder / "rootlesskit-docker-proxy").symlink_to("/bin/false")  # dockerd looks for it and does not run it
    for name in ("made", "mapped"):
        os.mkfifo(folder / name)
    with (
        Ledger() as ledger,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify,
    ):
        notify.bind(f"{folder}/notify")
        for path in (folder, *folder.iterdir()):
            os.chown(path, uid, uid, follow_symlinks=False)
        environment = {
            "PATH": f"{folder}:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": str(folder),
            "XDG_RUNTIME_DIR": f"{folder}/run",
            "ROOTLESSKIT_STATE_DIR": f"{folder}/run",
            "NOTIFY_SOCKET": f"{folder}/notify",
        }
        with spawn(ledger, ledger.name(), _dockerd(folder, uid), folder / "log", environment) as child:
            _map_ids(child, folder, uid)
            engine._wait_until_ready(notify, child)
            yield f"unix://{folder}/docker.sock"


def _dockerd(folder: Path, uid: int) -> list[str]:
    return [
        *("setpriv", "--reuid", str(uid), "--regid", str(uid), "--clear-groups", "--pdeathsig", "KILL"),
        *("unshare", "--user", "sh", "-c", ROOTLESS, str(folder)),
        *("dockerd", "--rootless", "--host", f"unix://{folder}/docker.sock", "--pidfile", f"{folder}/pid"),
        *("--data-root", f"{folder}/data", "--exec-root", f"{folder}/exec", "--group", "root"),
        *("--iptables=false", "--bridge=none", "--userland-proxy=false"),
    ]


def _map_ids(child: Child, folder: Path, uid: int) -> None:
    """Map uids and gids once the child has its user namespace, and let it continue."""
    made = os.open(folder / "made", os.O_RDWR)
    try:
        assert made in select.select([made, child.pidfd], [], [])[0], tail(child.log)
    finally:
        os.close(made)
    for name in ("uid_map", "gid_map"):
        Path(f"/proc/{child.pid}/{name}").write_text(f"0 {uid} 1\n1 {SUBORDINATE} 65535\n")
    (folder / "mapped").write_text("\n")  # waits until the child reads
