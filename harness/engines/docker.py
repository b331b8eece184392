"""Docker: the user's engine where one answers, else a private dockerd that leaves nothing behind.

A private dockerd runs in network, mount and PID namespaces of its own: otherwise it would leave docker0, a FORWARD
policy of DROP and ip_forward=1 on the host, and its shims would survive it.
"""

from __future__ import annotations

import json
import os
import select
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlparse

import docker as sdk

from harness import cgroup
from harness.backends import Unseen
from harness.command import find as find_program
from harness.engines import SOCKET_PATH_LIMIT, last_cause, last_line, program, serving
from harness.errors import Unavailable
from harness.ledger import Ledger
from harness.model import Plan
from harness.process import Child, named, spawn, tail

DOCKER_SOCKET = "/var/run/docker.sock"
START_TIMEOUT = 60.0
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
    """A Docker engine that answers at `url`. cgroup_parent: of its containers, where we chose it."""

    url: str
    whose: Literal["private", "user"]
    name: str | None = None
    cgroup_parent: str | None = None

    def daemons(self) -> list[int] | Unseen:
        """The host's pids of its daemons; of an engine that is not ours, the one that serves its socket."""
        if self.name is not None:
            return [pid for pid in named(self.name) if program(pid) in DAEMONS]
        address = urlparse(self.url)
        return serving(address.path, DAEMONS) if address.scheme == "unix" else Unseen("its socket is not a Unix socket")


@contextmanager
def find(plan: Plan, ledger: Ledger, features: Mapping[str, bool]) -> Iterator[DockerEngine]:
    """The user's engine where one answers, else a private one with these features. Raises Unavailable."""
    if plan.engines != "private":
        url = _users_docker(plan.docker_host or os.environ.get("DOCKER_HOST"), must=plan.engines == "user")
        if url is not None:
            yield DockerEngine(url, "user")
            return
    with _private_docker(ledger, features) as engine:
        yield engine


def _users_docker(named_host: str | None, must: bool) -> str | None:
    """The URL of an engine that answers. named_host: as in DOCKER_HOST, and never passed over in silence."""
    url = named_host or f"unix://{DOCKER_SOCKET}"
    address = urlparse(url)
    if address.scheme != "unix" and address.hostname not in ("localhost", "127.0.0.1", "::1"):
        raise Unavailable(
            f"DOCKER_HOST={url} is another machine, which cannot share the doorbell",
            "unset DOCKER_HOST, or give --engines private",
        )
    try:
        client = sdk.DockerClient(base_url=url, timeout=10)
        client.ping()
        client.close()
    except (sdk.errors.DockerException, OSError) as error:
        if named_host or must:
            hint = "start it, see that you may use its socket, or give --engines private"
            raise Unavailable(f"no Docker engine answers at {url}: {last_cause(error)}", hint) from error
        return None
    return url


@contextmanager
def _private_docker(ledger: Ledger, features: Mapping[str, bool]) -> Iterator[DockerEngine]:
    if os.geteuid() != 0:
        raise Unavailable(
            f"no Docker engine answers at {DOCKER_SOCKET}, and a private one needs root",
            "run as root, or see that you may use the Docker socket (group docker, or DOCKER_HOST)",
        )
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
    """dockerd tells that it is ready by sd_notify(3). Raises Unavailable where it dies or takes too long."""
    while True:
        heard = select.select([notify.fileno(), child.pidfd], [], [], START_TIMEOUT)[0]
        if notify.fileno() in heard and b"READY=1" in notify.recv(4096).split(b"\n"):
            return
        if notify.fileno() not in heard:
            how = "ended" if heard else f"was not ready within {START_TIMEOUT:g} s"
            raise Unavailable(f"a private dockerd {how}: {last_line(tail(child.log))}", "see `weighbridge doctor`")
