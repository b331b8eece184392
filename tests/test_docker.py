"""Docker: which engine is taken, what is said of one that cannot be used, and a user's own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import docker as sdk
import pytest

from harness import backends, process
from harness.campaign import Campaign
from harness.engines import docker as engine
from harness.engines.docker import DockerEngine
from harness.errors import Unavailable
from harness.ledger import Ledger, remove_folder
from harness.model import Limits, Plan, headline
from harness.store import Result, read
from tests.dockers import visible_engine
from tests.ground import Ground, ground

if TYPE_CHECKING:
    from tests.conftest import EngineOrSkip


@pytest.fixture(scope="module")
def place() -> Iterator[Ground]:
    with ground() as here, pytest.MonkeyPatch.context() as patch:
        for name, value in here.environment.items():
            patch.setenv(name, value)
        patch.delenv("DOCKER_HOST", raising=False)
        yield here


def refusal(**plan: Any) -> Unavailable:
    """Why docker cannot run here."""
    with Ledger() as ledger, pytest.raises(Unavailable) as refused:
        backend = backends.create("docker", ledger, Plan(**plan))
        try:
            backend.probe()
        finally:
            backend.close()
    return refused.value


@pytest.mark.parametrize(
    "url", ["tcp://192.0.2.1:2375", "tcp://docker.invalid:2376", "ssh://somebody@192.0.2.1", "rubbish", "npipe://x"]
)
@pytest.mark.parametrize("engines", ["auto", "user"])
def test_another_machines_engine_is_not_even_asked(
    place: Ground, monkeypatch: pytest.MonkeyPatch, url: str, engines: str
) -> None:
    def connect(*_: object) -> None:
        raise AssertionError("it was asked")

    monkeypatch.setenv("DOCKER_HOST", url)
    monkeypatch.setattr(socket.socket, "connect", connect)
    monkeypatch.setattr(socket, "getaddrinfo", connect)
    refused = refusal(engines=engines)
    assert url in refused.reason
    assert "unset DOCKER_HOST" in refused.hint
    assert ("--engines private" in refused.hint) == (os.geteuid() == 0)


@pytest.mark.parametrize("engines", ["auto", "user"])
def test_an_engine_that_was_named_is_not_passed_over(
    place: Ground, monkeypatch: pytest.MonkeyPatch, engines: str
) -> None:
    """Where it does not answer nothing else is taken in its place."""
    for path, told in ((f"{place.folder}/none.sock", "No such file"), (str(place.folder), "is not a socket")):
        monkeypatch.setenv("DOCKER_HOST", f"unix://{path}")
        refused = refusal(engines=engines)
        assert path in refused.reason
        assert told in refused.reason
        assert "unset DOCKER_HOST" in refused.hint
        assert ("--engines private" in refused.hint) == (os.geteuid() == 0)


def test_an_engine_that_hangs_up(place: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    path = f"{place.folder}/rude.sock"
    with socket.socket(socket.AF_UNIX) as rude:
        rude.bind(path)  # listens to nobody
        monkeypatch.setenv("DOCKER_HOST", f"unix://{path}")
        assert "Connection refused" in refusal().reason


def test_a_containers_first_process_is_not_the_one_of_the_lowest_number() -> None:
    """Numbers begin anew once all are used up, and who has just been started may have ended."""
    with subprocess.Popen(["sh", "-c", "sleep 600 & echo $!; wait"], stdout=subprocess.PIPE, text=True) as shell:
        assert shell.stdout is not None
        below = int(shell.stdout.readline())
        with subprocess.Popen(["true"]) as ended:
            pass
        try:
            assert process.outermost([ended.pid, below, shell.pid]) == (shell.pid, os.getpid())
        finally:
            os.kill(below, signal.SIGKILL)
            shell.kill()
    with pytest.raises(ProcessLookupError):
        process.outermost([ended.pid])


# A user's own engine, which a private one stands in for.


@pytest.fixture(scope="module")
def users_engine(place: Ground, engine_or_skip: EngineOrSkip) -> Iterator[DockerEngine]:
    with ExitStack() as stack:
        with engine_or_skip("docker"):
            running = stack.enter_context(visible_engine())
        lasting = stack.enter_context(pytest.MonkeyPatch.context())
        lasting.setenv("DOCKER_HOST", running.url)
        yield running


def weigh(place: Ground, *targets: str, rounds: int = 1) -> Result:
    output = place.folder / "docker.jsonl"
    Campaign(Plan(targets=targets, rounds=rounds, engines="user"), output, [], lambda event: None).run()
    return read(output)


@pytest.mark.engine
def test_a_users_engine_is_used_and_left_as_it_was(place: Ground, users_engine: DockerEngine) -> None:
    result = weigh(place, "docker")
    assert result.unavailable == []
    [record] = result.targets
    assert (record.whose, record.profile["url"]) == ("user", users_engine.url)
    assert [run.error for run in result.runs] == [None, None]
    for run in result.runs:
        assert {s.group for s in run.samples if s.metric == "memory.pss"} == {"workload", "supervisor"}
        assert (headline(run.samples, "memory.pss") or 0) > 2**20
        assert [limit.reason for limit in run.limits.values()] == [None, None]
    daemons = [s for host in result.hosts for s in host.samples if s.group == "daemon" and s.metric == "memory.rss"]
    assert len(daemons) == len(result.hosts)
    assert all((s.value or 0) > 2**20 for s in daemons)
    client = sdk.DockerClient(base_url=users_engine.url)
    try:
        assert client.containers.list(all=True) == []
        assert client.images.list(all=True) == []
        assert client.volumes.list() == []
        assert {network.name for network in client.networks.list()} == {"bridge", "host", "none"}
    finally:
        client.close()


@pytest.mark.engine
def test_a_runtime_that_it_has_not(place: Ground, users_engine: DockerEngine) -> None:
    [absent] = weigh(place, "docker/runtime=absent").unavailable
    assert "no runtime 'absent'" in absent.reason
    assert "runc" in absent.reason
    assert "daemon.json" in absent.hint


@pytest.mark.engine
def test_an_engine_that_does_not_see_our_files(
    place: Ground, users_engine: DockerEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its /run is another one than ours."""
    hidden = tempfile.mkdtemp(prefix="wb-", dir="/run")
    try:
        monkeypatch.setenv("WEIGHBRIDGE_STATE", hidden)
        result = weigh(place, "docker")
        [absent] = result.unavailable
        assert hidden in absent.reason
        assert "WEIGHBRIDGE_STATE" in absent.hint
        assert result.runs == []
    finally:
        remove_folder(hidden)


@pytest.mark.engine
def test_limits_that_it_refuses(place: Ground, users_engine: DockerEngine) -> None:
    output = place.folder / "refused.jsonl"
    cpus = float((os.cpu_count() or 1) + 1)
    plan = Plan(targets=("docker",), rounds=1, engines="user", limits=Limits(cpus=cpus))
    Campaign(plan, output, [], lambda event: None).run()
    [absent] = read(output).unavailable
    assert "CPUs" in absent.reason
    assert "WEIGHBRIDGE_STATE" not in absent.hint


@pytest.mark.engine
def test_an_engine_in_a_process_namespace_of_its_own(
    place: Ground, engine_or_skip: EngineOrSkip, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its pids mean nothing here, or somebody else: better no value than a stranger's."""
    with ExitStack() as stack:
        ledger = stack.enter_context(Ledger())
        with engine_or_skip("docker"):
            running = stack.enter_context(engine._private_docker(ledger, {}))
        monkeypatch.setenv("DOCKER_HOST", running.url)
        result = weigh(place, "docker")
    assert len(result.runs) == 2
    for run in result.runs:
        assert run.error is not None
        assert run.error.type == "EngineError"
        assert "another PID namespace" in run.error.message
        assert run.samples == []
