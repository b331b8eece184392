"""Docker: the user's engine where one answers, else a private dockerd that leaves nothing behind.

A private dockerd runs in network, mount and PID namespaces of its own: otherwise it would leave docker0, a FORWARD
policy of DROP and ip_forward=1 on the host, and its shims would survive it.
"""

from __future__ import annotations

import json
import os
import re
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlparse

from harness import cgroup, limiting, pace
from harness.backends import Unseen
from harness.command import find as find_program
from harness.engines import SOCKET_PATH_LIMIT, last_line, program, serving
from harness.engines.docker_contact import format_service_command, reach
from harness.engines.docker_endpoint import choose
from harness.errors import TransientFailure, Unavailable
from harness.ledger import Ledger
from harness.model import Plan
from harness.process import Child, named, spawn, tail

START_FLOOR = 60.0
START_FACTOR = 1500.0
"""Floor in seconds and factor of pace.deadline, for a private dockerd to be ready."""
TRANSIENT = re.compile("timeout|timed out|deadline exceeded|temporarily", re.IGNORECASE)
"""Matches the last line of dockerd's log if another start may succeed."""
DAEMONS = ("dockerd", "containerd")

# A tmpfs on /run, where dockerd, containerd and the shims keep their sockets: whatever they leave goes with it.
# dockerd writes a key beside the configuration that it reads: that goes with it too.
IN_NAMESPACES = """
set -e
mount -t tmpfs -o mode=755 weighbridge /run
if [ -d /etc/docker ]; then
    mkdir /run/etc /run/work
    mount -t overlay -o lowerdir=/etc/docker,upperdir=/run/etc,workdir=/run/work weighbridge /etc/docker
fi
exec "$@"
"""


@dataclass(frozen=True)
class DockerEngine:
    """A Docker engine that is reachable at `url`.

    cgroup_parent: its containers' parent group, if we chose it. context: the Docker context with this URL, if any.
    """

    url: str
    whose: Literal["private", "user"]
    name: str | None = None
    cgroup_parent: str | None = None
    context: str | None = None

    @property
    def systemd_slice(self) -> str:
        """The slice of its containers under the systemd cgroup driver; for a rootless engine, its user's slice."""
        address = urlparse(self.url)
        owner = Path(address.path).stat().st_uid if address.scheme == "unix" else 0
        return f"user.slice/user-{owner}.slice/user@{owner}.service/user.slice" if owner else "system.slice"

    def daemons(self) -> list[int] | Unseen:
        """The host's pids of its daemons; of an engine that is not ours, the one that serves its socket."""
        if self.name is not None:
            return [pid for pid in named(self.name) if program(pid) in DAEMONS]
        address = urlparse(self.url)
        return serving(address.path, DAEMONS) if address.scheme == "unix" else Unseen("its socket is not a Unix socket")


@contextmanager
def find(plan: Plan, ledger: Ledger, features: Mapping[str, bool]) -> Iterator[DockerEngine]:
    """The user's engine where one can be used, else a private one with these features. Raises Unavailable."""
    engine = None if plan.engines == "private" else _users_docker(plan)
    if engine is not None:
        yield engine
        return
    with _private_docker(ledger, features) as engine:
        yield engine


def _users_docker(plan: Plan) -> DockerEngine | None:
    """Return the user's engine; None if a private one may replace it. A named engine is never replaced."""
    endpoint = None
    try:
        endpoint = choose(plan.docker_host)
        reach(endpoint)
    except Unavailable as error:
        if plan.engines == "user":
            raise
        if os.geteuid() != 0:
            raise Unavailable(f"{error.reason}, and a private engine needs root", error.hint) from error
        if endpoint is None or endpoint.choice is not None:
            raise
        return None
    return DockerEngine(endpoint.url, "user", context=endpoint.context)


@contextmanager
def _private_docker(ledger: Ledger, features: Mapping[str, bool]) -> Iterator[DockerEngine]:
    if os.geteuid() != 0:
        reason = "a private Docker engine needs root, and --engines private excludes the system's and your own engine"
        raise Unavailable(reason, f"{limiting.format_root_command()} --engines private, or leave out --engines private")
    find_program("iptables", "iptables")
    name, group = ledger.name(), ledger.name()
    with (
        ledger.holding_folder() as folder,
        ledger.holding(cgroup.remove, name=group),
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify,
    ):
        path = str(folder / "docker.sock")
        if len(path) > SOCKET_PATH_LIMIT:
            raise Unavailable(f"the path {path} is too long for a socket", "name a shorter folder by WEIGHBRIDGE_STATE")
        notify.bind(str(folder / "notify"))
        # /etc/docker/daemon.json is the user's engine's.
        (folder / "daemon.json").write_text(json.dumps({"features": features}))
        environment = {"PATH": os.environ["PATH"], "NOTIFY_SOCKET": str(folder / "notify")}
        with spawn(ledger, name, _dockerd(folder, group), folder / "log", environment) as child:
            _wait_until_ready(notify, child)
            yield DockerEngine(f"unix://{path}", "private", name, group)


def _dockerd(folder: Path, group: str) -> list[str]:
    namespaces = ["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    return [
        *(find_program("setpriv", "util-linux"), "--pdeathsig", "KILL"),
        *(find_program("unshare", "util-linux"), *namespaces),
        *("sh", "-c", IN_NAMESPACES, "sh"),
        *(find_program("dockerd", "docker.io"), "--host", f"unix://{folder}/docker.sock", "--pidfile", f"{folder}/pid"),
        *("--data-root", f"{folder}/data", "--config-file", f"{folder}/daemon.json"),
        *("--cgroup-parent", f"/{group}", "--exec-opt", "native.cgroupdriver=cgroupfs"),
    ]


def _wait_until_ready(notify: socket.socket, child: Child) -> None:
    """Wait until dockerd reports by sd_notify(3) that it is ready. Raises Unavailable."""
    began = time.monotonic()
    while True:
        readable = pace.wait_readable([notify.fileno(), child.pidfd], START_FLOOR, START_FACTOR)
        if notify.fileno() in readable and b"READY=1" in notify.recv(4096).split(b"\n"):
            return
        if notify.fileno() not in readable:
            log = tail(child.log)
            how = "ended" if readable else f"was not ready within {time.monotonic() - began:.0f} s"
            reason = f"a private dockerd {how}: {last_line(log)}"
            hint = f"use the system's engine: {format_service_command('start')}"
            if not readable or TRANSIENT.search(last_line(log)):
                raise TransientFailure(reason, f"run the command again, or {hint}")
            raise Unavailable(reason, hint)
