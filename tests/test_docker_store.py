"""Both of Docker's image stores: overlay2, and containerd's, which takes an engine that is newer than Debian 12's."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from harness import backends, bundle, workloads
from harness.backends import Part, Unseen, docker_store
from harness.backends.docker import Container, Docker
from harness.doorbell import Doorbell
from harness.engines import docker as engine
from harness.errors import Unavailable
from harness.ledger import Ledger
from harness.meters import disk
from harness.model import Limits, Plan
from tests.ground import LONG, Ground, ground

if TYPE_CHECKING:
    from tests.conftest import EngineOrSkip

pytestmark = pytest.mark.engine

PROGRAMS = ("sbin/dockerd", "bin/containerd", "bin/containerd-shim-runc-v2", "sbin/docker-proxy")
"""Debian 13's. Its runc wants a newer C library than Debian 12 has: that is this machine's."""
WRITTEN = 8 * 2**20


@pytest.fixture(scope="module")
def place() -> Iterator[Ground]:
    with ground() as here, pytest.MonkeyPatch.context() as patch:
        for name, value in here.environment.items():
            patch.setenv(name, value)
        yield here


def test_a_store_that_the_engine_does_not_have_is_refused(
    place: Ground, engine_or_skip: EngineOrSkip, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An engine that ignores `features` in its configuration, as Docker 20.10 does, has one store of the two."""
    find = engine.find
    monkeypatch.setattr(engine, "find", lambda plan, ledger, features: find(plan, ledger, {}))
    refused: dict[str, str] = {}
    for store in ("overlay2", "containerd"):
        with Ledger() as ledger, engine_or_skip("docker"):
            backend = backends.create(f"docker/store={store}", ledger, Plan(engines="private"))
            try:
                backend.probe()
            except Unavailable as error:
                if "keeps its images" not in error.reason:
                    raise
                refused[store] = error.reason
            finally:
                backend.close()
    [(store, reason)] = refused.items()
    other = "overlay2" if store == "containerd" else "containerd"
    assert reason.endswith(f"in {other}, not in {store}")


@pytest.fixture(scope="module")
def newer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the programs of Docker 26."""
    folder = tmp_path_factory.mktemp("newer")
    # From 1.4.1 on mmdebstrap refuses chrootless mode for root; older versions ignore the unknown word.
    options = ["--mode=chrootless", "--skip=check/chrootless", "--variant=extract", "--format=directory"]
    packages = "--include=docker.io,usr-is-merged"
    subprocess.run(["mmdebstrap", "--quiet", *options, packages, "trixie", folder / "root"], check=True)
    (folder / "bin").mkdir()
    for program in PROGRAMS:
        if (folder / "root/usr" / program).exists():
            (folder / "bin" / Path(program).name).symlink_to(folder / "root/usr" / program)
    return folder / "bin"


@dataclass(frozen=True)
class Stored:
    store: str
    instance: Container
    shared: dict[str, Part]


@pytest.fixture(scope="module", params=["overlay2", "containerd"])
def stored(
    request: pytest.FixtureRequest,
    place: Ground,
    newer: Path,
    engine_or_skip: EngineOrSkip,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Stored]:
    """An instance in a store, which wrote 8 MiB."""
    writes = tmp_path_factory.mktemp("writes")
    (writes / "workload.toml").write_text('packages = ["busybox-static"]\nstart = "start"\n')
    (writes / "start").write_text(f"head -c {WRITTEN} /dev/urandom >/var/written\nsync\n")
    with pytest.MonkeyPatch.context() as patch, Ledger() as ledger:
        patch.setenv("PATH", f"{newer}:{os.environ['PATH']}")
        backend = backends.create(f"docker/store={request.param}", ledger, Plan(engines="private"))
        assert isinstance(backend, Docker)
        try:
            with engine_or_skip("docker"):
                record = backend.probe()
            assert record.version.startswith("26.")
            assert record.profile["image store"] == request.param
            with (
                backend.prepare(bundle.build(workloads.load(str(writes))), Limits()) as image,
                ledger.holding_folder() as folder,
                Doorbell(folder) as bell,
                backend.launch(image, bell, bell.mark) as instance,
            ):
                bell.wait_ready(LONG)
                yield Stored(request.param, instance, {part.name: part for part in image.parts})
        finally:
            backend.close()


def size(part: Part) -> int:
    assert not isinstance(part.paths, Unseen)
    return disk.allocated(*part.paths)


def test_every_part_is_named(stored: Stored) -> None:
    assert set(stored.shared) == {"layers"} | ({"content"} if stored.store == "containerd" else set())
    parts = {part.name: part for part in stored.instance.parts()}
    assert set(parts) == {"container layer", "-init layer", "metadata", "log"}
    assert size(parts["container layer"]) == pytest.approx(WRITTEN, rel=0.05)
    assert 0 < size(parts["-init layer"]) < 2**20
    assert 0 < size(parts["metadata"]) < 2**20


def test_the_layers_hold_the_bundle(stored: Stored) -> None:
    layers = stored.shared["layers"].paths
    assert not isinstance(layers, Unseen)
    [init] = [path for layer in layers for path in (layer / "diff/init", layer / "fs/init") if path.exists()]
    assert init.read_bytes() == workloads.INIT.read_bytes()
    assert size(stored.shared["layers"]) > 2**20
    if stored.store == "containerd":  # the layer as it was imported, compressed
        assert 2**19 < size(stored.shared["content"]) < size(stored.shared["layers"])


def test_what_is_mounted_is_what_the_engine_tells(stored: Stored) -> None:
    """overlay2 tells its folders: so it can be seen that the way in which the other one's are found is right."""
    about = stored.instance._client.api.inspect_container(stored.instance._identity)
    if stored.store == "containerd":
        assert not about.get("GraphDriver", {}).get("Data")
        return
    mounted = docker_store._root_of(stored.instance._pid)
    assert mounted is not None
    upper, lowers = mounted
    data = about["GraphDriver"]["Data"]
    assert upper.resolve() == Path(data["UpperDir"])
    assert [lower.resolve() for lower in lowers] == [Path(lower) for lower in data["LowerDir"].split(":")]
