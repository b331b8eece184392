"""What the meters say is what others say of the same instance: Docker, QEMU, du(1)."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from harness import backends, bundle, cgroup, delegation, workloads
from harness.backends import Backend, Image
from harness.backends.docker import Container
from harness.backends.libvirt import LibvirtMachine
from harness.doorbell import Doorbell
from harness.ledger import Ledger
from harness.meters import disk, memory
from harness.model import Limits, Plan, Sample
from tests.ground import LONG, lasting

if TYPE_CHECKING:
    from tests.conftest import EngineOrSkip

pytestmark = pytest.mark.engine

VM = "libvirt/pc,accel=tcg"
LIMITS = Limits(cpus=1, memory=256 * 2**20)
TRUE = 0.05


def true(amount: float) -> object:
    return pytest.approx(amount, rel=TRUE)


def amounts(samples: list[Sample]) -> dict[tuple[str, str | None, str | None], float]:
    assert [sample.reason for sample in samples if sample.reason and sample.group != "workload"] == []
    return {(s.metric, s.group, s.part): s.value for s in samples if s.value is not None}


@dataclass(frozen=True)
class Running:
    backend: Backend
    image: Image
    instance: Any


@pytest.fixture(scope="module")
def patched() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in lasting().environment.items():
            patch.setenv(name, value)
        yield


everywhere = pytest.mark.parametrize("running", ["host", "namespace", "docker", VM], indirect=True)


@pytest.fixture(scope="module")
def running(request: pytest.FixtureRequest, patched: None, engine_or_skip: EngineOrSkip) -> Iterator[Running]:
    """An instance with redis in it, at rest."""
    with running_on(request.param, engine_or_skip) as running:
        yield running


@contextmanager
def running_on(target: str, engine_or_skip: EngineOrSkip) -> Iterator[Running]:
    with Ledger() as ledger, delegation.enter_delegated_group(ledger):
        backend = backends.create(target, ledger, Plan(targets=(target,), engines="private", limits=LIMITS))
        try:
            with engine_or_skip(backend.name):
                backend.probe()
            with (
                backend.prepare(bundle.build(workloads.load("redis")), LIMITS) as image,
                ledger.holding_folder() as folder,
                Doorbell(folder) as bell,
            ):
                bell.mark("requested")
                backend.refresh(image)
                with backend.launch(image, bell, bell.mark) as instance:
                    bell.wait_ready(LONG)
                    bell.wait_facts(LONG)
                    yield Running(backend, image, instance)
        finally:
            backend.close()


@everywhere
def test_disk_agrees_with_du(running: Running) -> None:
    for part in (*running.image.parts, *running.instance.parts()):
        [sample] = disk.weigh("disk.instance", [part])
        paths = [path for path in part.paths if path.stat().st_mode & 0o777]
        du = subprocess.run(["du", "-scx", "--block-size=1", *paths], capture_output=True, text=True, check=True)
        assert sample.value == int(du.stdout.splitlines()[-1].split()[0]), part.name


@pytest.mark.parametrize("running", ["docker"], indirect=True)
def test_a_container_agrees_with_docker(running: Running) -> None:
    container: Container = running.instance
    told = container._client.api.stats(container._identity, stream=False)
    charged = amounts(memory.charged(container))
    stats = told["memory_stats"]["stats"]
    anonymous, cache = ("total_rss", "total_cache") if cgroup.version() == 1 else ("anon", "file")
    assert charged["memory.charged", None, "anonymous"] == true(stats[anonymous])
    shown = charged["memory.charged", None, "file"] + charged["memory.charged", None, "shmem"]
    assert shown == pytest.approx(stats[cache], rel=TRUE, abs=2**18)
    batched = 64 * 4096 * len(os.sched_getaffinity(0))  # pages that a CPU has charged in advance
    assert sum(charged.values()) == pytest.approx(told["memory_stats"]["usage"], rel=TRUE, abs=batched)
    spent = cgroup.cpu_time(container.cgroups())
    assert spent is not None
    assert spent.total == true(told["cpu_stats"]["cpu_usage"]["total_usage"] / 1e9)
    assert len(container.processes()["workload"]) == len(container._client.api.top(container._identity)["Processes"])


@pytest.mark.parametrize("running", [VM], indirect=True)
def test_a_machine_agrees_with_qemu(running: Running) -> None:
    import libvirt_qemu

    vm: LibvirtMachine = running.instance
    domain = vm.engine.connection.lookupByName(vm.name)
    answer = libvirt_qemu.qemuMonitorCommand(domain, json.dumps({"execute": "query-memory-size-summary"}), 0)
    weighed = amounts(memory.weigh(vm))
    mappings = Path(f"/proc/{vm.pid}/maps").read_text().splitlines()
    spans = [line.split()[0].split("-") for line in mappings if vm.guest_ram in line]
    size = sum(int(end, 16) - int(start, 16) for start, end in spans)
    assert json.loads(answer)["return"]["base-memory"] == size == LIMITS.memory
    [memfd] = [fd for fd in Path(f"/proc/{vm.pid}/fd").iterdir() if vm.guest_ram in str(fd.readlink())]
    assert weighed["memory.rss", "guest", "shmem"] == true(memfd.stat().st_blocks * 512)


@everywhere
def test_the_parts_are_the_whole(running: Running) -> None:
    """No byte of PSS is lost or counted twice between groups and kinds."""
    pids = {pid for pids in running.instance.processes().values() if isinstance(pids, list) for pid in pids}
    rollups = [Path(f"/proc/{pid}/smaps_rollup").read_text() for pid in pids]
    for metric, field in (("memory.pss", "Pss"), ("memory.rss", "Rss")):
        whole = sum(int(found) * 1024 for text in rollups for found in re.findall(rf"^{field}: +(\d+) kB", text, re.M))
        parts = [value for (name, _, _), value in amounts(memory.weigh(running.instance)).items() if name == metric]
        assert sum(parts) == pytest.approx(whole, rel=0.01)
