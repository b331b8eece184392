"""/init, the first process of every instance: what it says on the doorbell, and how it ends."""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from harness import bundle, workloads
from tests.ground import LONG


class Rung:
    """A copy of the bundle's tree in which /init runs as PID 1 of namespaces of its own, and its doorbell."""

    def __init__(self, root: Path) -> None:
        self.root = root
        os.mkfifo(root / "run/bell")
        self._bell = os.open(root / "run/bell", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        self._heard = b""

    def start(self, text: str) -> None:
        (self.root / "start").write_text(text)

    @contextmanager
    def run(self, bell: str = "/run/bell") -> Iterator[subprocess.Popen[str]]:
        isolated = ["unshare", "--map-root-user", "--mount", "--pid", "--fork", "--kill-child"]
        argv = [*isolated, f"--mount-proc={self.root}/proc", "chroot", str(self.root), "/init"]
        env = {**os.environ, "WEIGHBRIDGE_DOORBELL": bell}
        with subprocess.Popen(argv, env=env, stderr=subprocess.PIPE, text=True) as process:
            try:
                yield process
            finally:
                process.kill()

    def hear(self, last: str) -> list[str]:
        """The lines up to the one that begins with `last`; fails after LONG seconds."""
        deadline = time.monotonic() + LONG
        while not any(line.startswith(last) for line in self._lines()):
            assert select.select([self._bell], [], [], max(0, deadline - time.monotonic()))[0], self._heard
            self._heard += os.read(self._bell, 65536)
        return self._lines()

    def _lines(self) -> list[str]:
        return self._heard.decode().split("\n")[:-1]

    def close(self) -> None:
        os.close(self._bell)


@pytest.fixture(scope="module")
def hello(tmp_path_factory: pytest.TempPathFactory) -> bundle.Bundle:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WEIGHBRIDGE_CACHE", str(tmp_path_factory.mktemp("cache")))
        return bundle.build(workloads.load("hello"))


@pytest.fixture
def rung(hello: bundle.Bundle, tmp_path: Path) -> Iterator[Rung]:
    shutil.copytree(hello.root, tmp_path / "root", symlinks=True)
    rung = Rung(tmp_path / "root")
    yield rung
    rung.close()


@pytest.mark.engine
def test_init_rings_and_then_tells_what_it_sees(hello: bundle.Bundle, rung: Rung) -> None:
    with rung.run() as process:
        lines = rung.hear("FACTS")
        assert lines[:2] == ["MARK init", "READY"]
        assert len(lines) == 3
        facts = json.loads(lines[2].removeprefix("FACTS "))
        assert process.poll() is None
    assert facts["bundle"] == hello.sha256
    assert facts["boot_id"] == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert facts["kernel"] == os.uname().release
    ours = {entry.name: entry.stat().st_ino for entry in Path("/proc/self/ns").iterdir()}
    kinds = {kind for kind in ours if not kind.endswith("_for_children")}
    assert {kind for kind in kinds if facts["namespaces"][kind] == ours[kind]} == kinds - {"user", "mnt", "pid"}
    assert facts["uid_map"] == f"0 {os.geteuid()} 1"
    assert int(facts["capabilities"]["effective"], 16) > 0
    assert facts["memory"] > 2**20
    assert facts["cpus"] == len(os.sched_getaffinity(0))
    assert (facts["seccomp"], facts["no_new_privs"]) == (0, 0)
    assert facts["processes"] >= 1
    assert facts["cgroup"] is None


@pytest.mark.engine
def test_nothing_forks_before_ready(rung: Rung) -> None:
    rung.start('read -r a b c d last </proc/loadavg\necho "MARK last-pid-$last" >&3\n')
    with rung.run():
        assert "MARK last-pid-1" in rung.hear("READY")


@pytest.mark.engine
@pytest.mark.parametrize(("text", "status"), [("exit 7", 7), ("false", 1), ("set -e\n(exit 5)\ntrue", 5), ("if", 2)])
def test_a_failing_start_ends_init_before_ready(rung: Rung, text: str, status: int) -> None:
    rung.start(text)
    with rung.run() as process:
        assert process.wait(10) == status
        assert rung.hear("MARK init") == ["MARK init"]


@pytest.mark.engine
def test_a_start_may_leave_a_service_behind(rung: Rung) -> None:
    (rung.root / "dev/null").touch()
    rung.start("sleep 1000 &\n")
    with rung.run():
        assert json.loads(rung.hear("FACTS")[-1].removeprefix("FACTS "))["processes"] >= 2


@pytest.mark.engine
@pytest.mark.parametrize("bell", ["/run/doorbell", "/run/absent", "/etc"])
def test_a_doorbell_that_nobody_hears_is_refused(rung: Rung, bell: str) -> None:
    with rung.run(bell) as process:
        assert process.wait(10) == 1
        assert process.stderr is not None
        assert process.stderr.read() == f"init: the doorbell {bell} is neither a FIFO nor a character device\n"
    assert not (rung.root / "run/absent").exists()


@pytest.mark.engine
def test_facts_are_json_whatever_they_are(rung: Rung) -> None:
    (rung.root / "etc/weighbridge-bundle").write_text('a "quoted\\ *  name\n')
    with rung.run():
        assert json.loads(rung.hear("FACTS")[-1].removeprefix("FACTS "))["bundle"] == 'a "quoted\\ * name'
