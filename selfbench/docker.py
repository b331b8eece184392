"""docker: what the harness makes of the Engine API, beside the engine's own command line and beside runc alone.

The floor is `docker run --detach` of the same image on the same engine with the same limits, environment and doorbell,
from just before the command is started to READY, heard by the same doorbell. It asks the same engine for the same
work: below 1 is what the harness saves by a connection that is open already.

`runc run` of the same files, with the same namespaces, limits and doorbell, is what a start takes without an engine:
the rest of a container's start is Docker's (layers, a bridge, its seccomp profile, containerd and the shim). The
overlay that is its root is mounted before the clock starts.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from harness import cgroup, mounts
from harness.backends import DOORBELL, environment
from harness.backends.docker import INIT, Docker, DockerImage
from harness.backends.docker_release import remove_container
from harness.bundle import Bundle
from harness.command import find, run
from harness.doorbell import Doorbell, timed_window
from harness.errors import WeighbridgeError
from harness.ledger import Ledger
from harness.measure import Cell
from harness.model import Limits
from harness.process import NAME_VARIABLE, end_processes
from selfbench.host import TIMEOUT, cell, started
from selfbench.measurement import Measurement, interleaved

QUESTION = "How long does `docker` take to be ready, beside `docker run`?"
ROUNDS = 20
AT_MOST = 1.0
OURS, CLI, RUNC = "docker", "docker run", "runc run"


def measure(rounds: int) -> Sequence[Measurement]:
    find("docker", "docker.io")
    find("runc", "runc")
    with Ledger() as ledger, cell("docker", ledger) as docker:
        sides = {
            OURS: lambda: started(docker, ledger),
            CLI: lambda: by_command_line(docker, ledger),
            RUNC: lambda: by_runc(docker.image.bundle, docker.image.limits, ledger),
        }
        values = interleaved(sides, rounds)
    return [
        Measurement(
            key="docker.start",
            question=QUESTION,
            unit="s",
            ours=OURS,
            floor=CLI,
            at_most=AT_MOST,
            values={name: values[name] for name in (OURS, CLI)},
        ),
        Measurement(
            key="docker.runc",
            question="And beside `runc run` of the same files, without an engine?",
            unit="s",
            ours=OURS,
            floor=RUNC,
            values={name: values[name] for name in (OURS, RUNC)},
            note="runc: no layers to make, no bridge, no seccomp profile, no shim.",
        ),
    ]


def by_command_line(cell: Cell, ledger: Ledger) -> float:
    """Seconds from just before the command is started to READY."""
    assert isinstance(cell.backend, Docker)
    assert isinstance(cell.image, DockerImage)
    engine, limits, name = cell.backend.engine, cell.image.limits, ledger.name()
    with (
        ledger.holding_folder() as folder,
        Doorbell(folder) as bell,
        ledger.holding(remove_container, url=engine.url, name=name, private=engine.whose == "private"),
    ):
        argv = [find("docker", "docker.io"), "--host", engine.url, "--config", str(folder), "run", "--detach"]
        argv += ["--pull", "never", "--name", name, "--entrypoint", INIT[0]]
        argv += ["--cpus", str(limits.cpus), "--memory", str(limits.memory)]
        argv += ["--mount", f"type=bind,source={bell.fifo},target={DOORBELL}"]
        argv += [word for variable, value in environment(DOORBELL).items() for word in ("--env", f"{variable}={value}")]
        return _ready(bell, [*argv, cell.image.name], folder)


def by_runc(bundle: Bundle, limits: Limits, ledger: Ledger) -> float:
    """Seconds from just before runc is started to READY."""
    name = ledger.name()
    with (
        ledger.holding_folder() as folder,
        Doorbell(folder) as bell,
        ledger.holding(cgroup.remove, name=name),
        _overlay(bundle.tree(), folder, ledger),
        ledger.holding(end_processes, name=name),
    ):
        run([find("runc", "runc"), "spec"], cwd=folder)
        place = folder / "config.json"
        place.write_text(json.dumps(_adapted(json.loads(place.read_text()), name, limits, bell.fifo)))
        argv = [find("runc", "runc"), "--root", str(folder / "state"), "run", "--detach", "--bundle", str(folder)]
        return _ready(bell, [*argv, name], folder)


def _ready(bell: Doorbell, argv: Sequence[str], folder: Path) -> float:
    """Runs a command that starts an instance and ends: seconds to READY. Raises WeighbridgeError where it fails."""
    with (folder / "log").open("wb") as log, timed_window():
        bell.mark("requested")
        with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log) as command:
            try:
                if command.wait(TIMEOUT) == 0:
                    bell.wait_ready(TIMEOUT)
            except subprocess.TimeoutExpired:
                command.kill()
    ready = dict(bell.marks()).get("ready")
    if ready is None:
        raise WeighbridgeError(f"{argv[0]} started nothing: {(folder / 'log').read_text().strip()}")
    return ready


@contextmanager
def _overlay(tree: Path, folder: Path, ledger: Ledger) -> Iterator[None]:
    """The bundle's tree as the root file system of an instance, with a layer of its own."""
    for layer in ("rootfs", "upper", "work"):
        (folder / layer).mkdir()
    with ledger.holding(mounts.unmount_below, path=str(folder)):
        layers = (f"lowerdir={tree}", f"upperdir={folder}/upper", f"workdir={folder}/work")
        mounts.mount("overlay", "overlay", folder / "rootfs", *layers)
        yield


def _adapted(spec: dict[str, Any], name: str, limits: Limits, fifo: Path) -> dict[str, Any]:
    """What `runc spec` writes (a root that is not writable, a terminal), made to be what Docker is asked for."""
    told = {**environment(DOORBELL), NAME_VARIABLE: name}
    spec["process"] |= {"terminal": False, "args": list(INIT), "env": [f"{key}={value}" for key, value in told.items()]}
    spec["process"]["noNewPrivileges"] = False
    spec["root"]["readonly"] = False
    spec["mounts"].append({"destination": DOORBELL, "source": str(fifo), "type": "bind", "options": ["rbind"]})
    quota = {"period": cgroup.PERIOD, "quota": round(limits.cpus * cgroup.PERIOD)}
    spec["linux"]["resources"] |= {"cpu": quota, "memory": {"limit": limits.memory}}
    spec["linux"]["cgroupsPath"] = f"/{name}"
    return spec
