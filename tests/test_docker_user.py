"""Docker for ordinary users: the system's engine by its group, and a rootless engine by its context."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from harness.model import headline
from harness.store import Result, read
from tests.dockers import rootless_engine, visible_engine
from tests.ground import REPOSITORY, Ground, Said, ground

if TYPE_CHECKING:
    from tests.conftest import EngineOrSkip

pytestmark = [
    pytest.mark.engine,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can start the engines and become another user"),
]

UID = 65534
GROUP = 12
"""The gid of the group man, which every Debian has, used instead of the group docker."""


@pytest.fixture(scope="module")
def place() -> Iterator[Ground]:
    if not all(folder.stat().st_mode & 0o5 == 0o5 for folder in (REPOSITORY, *REPOSITORY.parents)):
        pytest.skip(f"{REPOSITORY} is not open to ordinary users")
    with ground(UID) as here:
        yield here


def measure(place: Ground, groups: str, environment: dict[str, str]) -> tuple[Said, Result]:
    """A campaign of one round by an ordinary user."""
    named = {"DOCKER_HOST": "", "DOCKER_CONTEXT": "", "DOCKER_CONFIG": "", "HOME": str(place.folder)}
    said = place.weighbridge(
        *("run", "--targets", "docker", "--rounds", "1", "--progress", "none", "-o", "result.jsonl"),
        environment={**named, "MPLCONFIGDIR": f"{place.folder}/matplotlib", **environment},
        prefix=("setpriv", "--reuid", str(UID), "--regid", str(UID), groups),
    )
    return said, read(place.folder / "result.jsonl")


def test_the_docker_group_reads_stand_ins_for_what_only_root_can_read(
    place: Ground, engine_or_skip: EngineOrSkip
) -> None:
    with engine_or_skip("docker"), visible_engine() as engine:
        path = engine.url.removeprefix("unix://")
        os.chown(path, 0, GROUP)
        os.chmod(path, 0o660)  # noqa: PTH101
        said, result = measure(place, f"--groups={GROUP}", {"DOCKER_HOST": engine.url})
    assert said.code == 0, said.err
    assert [record.whose for record in result.targets] == ["user"]
    for run in result.runs:
        assert run.error is None
        samples = {name: [s for s in run.samples if s.metric == name] for name in {s.metric for s in run.samples}}
        assert headline(run.samples, "memory.pss") is None
        assert (headline(run.samples, "memory.charged") or 0) > 2**16
        assert headline(run.samples, "disk.instance") is None
        assert [(s.part, type(s.value)) for s in samples["disk.reported_instance"]] == [("writable layer", int)]
    [image] = result.images
    assert headline(image.samples, "disk.shared") is None
    assert 2**20 < (headline(image.samples, "disk.reported_shared") or 0) < 2**25
    shown = " ".join(said.out.split())
    assert "charged" in shown and "reported" in shown
    assert "charged: what the control group is charged, where PSS could not be read. It is not PSS." in shown
    assert "reported: the size that the engine reports" in shown


LAYERS = """
from pathlib import Path
import sys
from harness.backends import docker_store
from harness.backends.docker_store import Layers, SNAPSHOTTER
snapshot = Path(sys.argv[1], SNAPSHOTTER, "1")
print(docker_store.image_parts(Layers(snapshot, snapshot, (snapshot,)), {"Id": "sha256:ab"})[1].paths.reason)
"""


def test_blobs_of_the_containerd_store_that_only_root_can_see_are_null_with_the_reason(place: Ground) -> None:
    (place.folder / "containerd").mkdir(mode=0o700)
    become = ("setpriv", "--reuid", str(UID), "--regid", str(UID), "--clear-groups")
    argv = [*become, sys.executable, "-P", "-c", LAYERS, f"{place.folder}/containerd"]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    reason = done.stdout.strip()
    assert reason.startswith(f"{place.folder}/containerd/") and reason.endswith("Permission denied")


def test_a_rootless_engine_is_found_by_its_context(place: Ground, engine_or_skip: EngineOrSkip) -> None:
    folder = place.folder / "engine"
    folder.mkdir()
    with engine_or_skip("docker"), rootless_engine(folder, UID) as url:
        meta = place.folder / ".docker/contexts/meta" / hashlib.sha256(b"rootless").hexdigest()
        meta.mkdir(parents=True)
        (meta / "meta.json").write_text(json.dumps({"Name": "rootless", "Endpoints": {"docker": {"Host": url}}}))
        (place.folder / ".docker/config.json").write_text(json.dumps({"currentContext": "rootless"}))
        said, result = measure(place, "--clear-groups", {})
    assert said.code == 0, said.err
    [record] = result.targets
    assert (record.whose, record.profile["url"], record.profile["context"]) == ("user", url, "rootless")
    for run in result.runs:
        assert run.error is None
        assert {s.group for s in run.samples if s.metric == "memory.pss"} == {"workload", "supervisor"}
        assert (headline(run.samples, "memory.pss") or 0) > 2**20
        assert (headline(run.samples, "disk.instance") or 0) > 0
        assert "disk.reported_instance" not in {s.metric for s in run.samples}
        if record.profile["cgroup driver"] == "none":
            assert {limit.reason for limit in run.limits.values()} == {
                "the engine makes no control groups (cgroup driver none)"
            }
