"""docker: a container by the Engine API, the user's engine or a private one. No CLI in the timed path.

Source: Docker Engine API, /containers/create and /containers/{id}/start; `docker import` for the image.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import docker as sdk
import requests
from docker.types import Mount

from harness import cgroup, pace
from harness.backends import DOORBELL, Backend, Image, Instance, Options, Part, Unseen, docker_store, environment
from harness.backends.docker_release import connect, remove_container, remove_image
from harness.backends.docker_store import Store
from harness.bundle import Bundle
from harness.doorbell import Doorbell, Mark
from harness.engines import docker as engine
from harness.engines.docker import DockerEngine
from harness.errors import BadInput, EngineError, ExitedBeforeReady, Unavailable
from harness.ledger import Ledger
from harness.model import Applied, Group, Limits, Plan, TargetRecord
from harness.process import END_FACTOR, END_TIMEOUT, outermost, parents, process_tree, told, wait_for_end

LOG_LINES = 50
INIT = ("/init",)
UNSEEN_PROCESSES = "the engine's processes are not visible from here: it runs in another PID namespace"
WAIT = ("/bin/busybox", "sleep", "600")


@dataclass(frozen=True)
class DockerImage(Image):
    name: str


class Container(Instance):
    def __init__(
        self,
        client: sdk.DockerClient,
        identity: str,
        groups: Mapping[str, Path],
        pid: int,
        store: Store | None,
        limits: Limits,
    ) -> None:
        self._client = client
        self._identity = identity
        self._groups = groups
        self._pid = pid
        self._store = store
        self._limits = limits

    def processes(self) -> Mapping[Group, list[int]]:
        """The shim is the parent of the container's first process, and in no control group of the container's."""
        pids = cgroup.members(self._groups["memory"]) if self._groups else process_tree(self._pid)
        return {"workload": pids, "supervisor": sorted(set(parents(pids).values()) - set(pids))}

    def cgroups(self) -> Mapping[str, Path]:
        return self._groups

    def limits(self) -> Mapping[str, Applied]:
        if not self._groups:
            reason = "the engine makes no control groups (cgroup driver none)"
            asked = {"cpus": self._limits.cpus, "memory": self._limits.memory}
            return {name: Applied(value, None, reason=reason) for name, value in asked.items()}
        return cgroup.applied(self._groups, self._limits)

    def parts(self) -> tuple[Part, ...]:
        about = self._client.api.inspect_container(self._identity)
        return docker_store.container_parts(docker_store.layers(self._store, about, self._pid), about)

    def reported(self) -> Mapping[str, int | Unseen]:
        [about] = self._client.api.containers(all=True, size=True, filters={"id": self._identity})
        return {"writable layer": docker_store.reported_size(about.get("SizeRw", 0))}

    def log(self) -> str:
        return _log(self._client, self._identity)

    def status(self) -> int | None:
        return _ended(self._client, self._identity)


class Docker(Backend):
    name = "docker"

    @classmethod
    def check(cls, options: Options) -> None:
        options.only("runtime=", "store=")
        if options.get("store") not in (None, "overlay2", "containerd"):
            raise BadInput(f"target {options.target}: store is overlay2 or containerd")

    def __init__(self, options: Options, ledger: Ledger, plan: Plan) -> None:
        super().__init__(options, ledger, plan)
        self._stack = ExitStack()
        self._runtime = options.get("runtime")

    def probe(self) -> TargetRecord:
        wanted = self.options.get("store")
        features = {} if wanted is None else {"containerd-snapshotter": wanted == "containerd"}
        self.engine: DockerEngine = self._stack.enter_context(engine.find(self.plan, self.ledger, features))
        self._client = self._stack.enter_context(connect(self.engine.url))
        version, about = self._client.version(), self._client.info()
        if self._runtime and self._runtime not in about["Runtimes"]:
            told = ", ".join(sorted(about["Runtimes"]))
            raise Unavailable(f"the engine has no runtime {self._runtime!r}, only {told}", "add it to daemon.json")
        self._store = docker_store.store_of(about)
        self._groups_by = about["CgroupDriver"]
        if wanted not in (None, self._store):
            told = f"Docker {version['Version']} keeps its images in {self._store or about['Driver']}, not in {wanted}"
            raise Unavailable(told, "leave out store=, or see what the engine's version and daemon.json allow")
        profile = {
            "url": self.engine.url if self.engine.whose == "user" else "a socket of its own",
            **({"context": self.engine.context} if self.engine.context else {}),
            "api": version["ApiVersion"],
            "runtime": self._runtime or about["DefaultRuntime"],
            "image store": self._store,
            "storage driver": about["Driver"],
            "cgroup driver": about["CgroupDriver"],
            "cgroup version": about.get("CgroupVersion"),
            "security": about["SecurityOptions"],
            "network": "bridge",
            "components": {part["Name"]: part["Version"] for part in version.get("Components", [])},
        }
        return TargetRecord(self.options.target, "Docker", version["Version"], self.engine.whose, profile=profile)

    def close(self) -> None:
        self._stack.close()

    def daemons(self) -> list[int] | Unseen:
        return self.engine.daemons()

    @contextmanager
    def prepare(self, bundle: Bundle, limits: Limits) -> Iterator[DockerImage]:
        name = self.ledger.name()
        with self.ledger.holding(remove_image, url=self.engine.url, name=name, private=self._is_private):
            answer = self._client.api.import_image_from_file(str(bundle.tar()), repository=name)
            about = self._client.api.inspect_image(name)
            if about["Size"] == 0:
                raise EngineError(f"the engine imported nothing: {answer.strip()}")
            reported = {"image": docker_store.reported_size(about["Size"])}
            image = DockerImage(bundle, limits, (), name, reported=reported)
            yield replace(image, parts=self._shared(image))

    @contextmanager
    def launch(self, image: DockerImage, doorbell: Doorbell, mark: Mark) -> Iterator[Container]:
        with self._created(image, self.ledger.name(), doorbell.fifo) as identity:
            mark("created")
            expected = self._expected_groups(identity)  # to be read at READY: the answer to start comes later
            doorbell.at_ready(lambda: {"workload": spent} if (spent := cgroup.cpu_time(expected)) else {})
            self._client.api.start(identity)
            groups = self._groups(identity)
            with ExitStack() as stack:
                try:
                    first, shim = self._outermost(identity, groups)
                    pidfd = stack.enter_context(_pidfd(first))
                    shim_pidfd = stack.enter_context(_pidfd(shim))
                except ProcessLookupError:
                    raise ExitedBeforeReady(_ended(self._client, identity), _log(self._client, identity)) from None
                doorbell.watch(pidfd)
                # The engine's call returns before the container's shim has ended.
                stack.callback(wait_for_end, shim_pidfd, "the shim of a removed container")
                stack.callback(self._client.api.remove_container, identity, force=True, v=True)
                yield Container(self._client, identity, groups, first, self._store, image.limits)

    @property
    def _is_private(self) -> bool:
        return self.engine.whose == "private"

    @contextmanager
    def _created(self, image: DockerImage, name: str, fifo: Path, argv: Sequence[str] = INIT) -> Iterator[str]:
        with self.ledger.holding(remove_container, url=self.engine.url, name=name, private=self._is_private):
            settings = self._client.api.create_host_config(
                mounts=[Mount(DOORBELL, str(fifo), type="bind")],
                nano_cpus=round(image.limits.cpus * 1e9),
                mem_limit=image.limits.memory,
                runtime=self._runtime,
            )
            made = self._client.api.create_container(
                image.name, entrypoint=list(argv), name=name, environment=environment(DOORBELL), host_config=settings
            )
            yield made["Id"]

    def _shared(self, image: DockerImage) -> tuple[Part, ...]:
        """What all instances of an image use together, as seen of a container that only waits.

        An engine that does not see our files refuses to bind the doorbell: told once here, not in every run.
        """
        with self.ledger.holding_folder() as folder, Doorbell(folder) as bell:
            try:
                with self._created(image, self.ledger.name(), bell.fifo, WAIT) as identity:
                    pid = None
                    if self._store == "containerd":  # it tells of a running one only
                        self._client.api.start(identity)
                        pid, _ = self._outermost(identity, self._groups(identity))
                    found = docker_store.layers(self._store, self._client.api.inspect_container(identity), pid)
                    return docker_store.image_parts(found, self._client.api.inspect_image(image.name))
            except sdk.errors.APIError as error:
                hint = "ask for what this engine can give"
                if str(bell.fifo) in str(error.explanation):
                    hint = "set WEIGHBRIDGE_STATE to a folder that the engine sees"
                    hint += ", or give --engines private" if os.geteuid() == 0 else ""
                raise Unavailable(f"the engine cannot make a container: {error.explanation}", hint) from error

    def _groups(self, identity: str) -> dict[str, Path]:
        """The container's control groups, found by its own: a pid may be of the engine's PID namespace, not ours."""
        if self.engine.cgroup_parent is not None:
            return self._expected_groups(identity)
        if self._groups_by == "none":  # a rootless engine to which no control group is delegated
            return {}
        pid = self._client.api.inspect_container(identity)["State"]["Pid"]
        try:
            groups = cgroup.of_process(pid) if pid else {}
        except FileNotFoundError:
            groups = {}
        if identity in str(groups.get("memory")):
            return groups
        if self._client.api.inspect_container(identity)["State"]["Running"]:
            raise EngineError(UNSEEN_PROCESSES)
        return {}  # it has ended

    def _outermost(self, identity: str, groups: Mapping[str, Path]) -> tuple[int, int]:
        """Return the host's pids of the first process and of the shim. Raises ProcessLookupError if it has ended."""
        if groups or self._groups_by != "none":
            return outermost(cgroup.members(groups["memory"]) if groups else [])
        first = self._client.api.inspect_container(identity)["State"]["Pid"]
        shim = parents([first] if first else []).get(first)
        if shim is None:
            raise ProcessLookupError
        if identity.encode() not in told(shim, "cmdline"):
            raise EngineError(UNSEEN_PROCESSES)
        return first, shim

    def _expected_groups(self, identity: str) -> dict[str, Path]:
        """Where the engine makes a container's control groups, so far as it keeps to its defaults."""
        parent = self.engine.cgroup_parent or "docker"
        place = f"{parent}/{identity}"
        if self._groups_by == "systemd":
            place = f"{self.engine.systemd_slice}/docker-{identity}.scope"
        tops = {name: cgroup.hierarchy(name) for name in ("cpu", "cpuacct", "memory")}
        return {name: top / place for name, top in tops.items() if top}


@contextmanager
def _pidfd(pid: int) -> Iterator[int]:
    pidfd = os.pidfd_open(pid)
    try:
        yield pidfd
    finally:
        os.close(pidfd)


def _log(client: sdk.DockerClient, identity: str) -> str:
    return bytes(client.api.logs(identity, tail=LOG_LINES)).decode(errors="replace").strip()


def _ended(client: sdk.DockerClient, identity: str) -> int | None:
    """The exit status of a container whose first process is dead, which the engine notices somewhat later."""
    try:
        return int(client.api.wait(identity, timeout=round(pace.deadline(END_TIMEOUT, END_FACTOR)))["StatusCode"])
    except requests.RequestException:  # it does not notice
        return None
