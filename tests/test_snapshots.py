"""Restored machines: that they run is proven by what did not exist when they were saved."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from harness import backends, bundle, workloads
from harness.backends import Backend
from harness.doorbell import Doorbell
from harness.errors import StartTimeout
from harness.ledger import Ledger
from harness.measure import Cell, measure
from harness.model import Limits, Plan
from harness.vm.backend import DiskImage
from tests.ground import LONG, lasting

if TYPE_CHECKING:
    from tests.conftest import EngineOrSkip


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


@pytest.mark.parametrize("said", ["READY", "READY ", "READY 0123", "READY fresh2"])
def test_without_the_nonce_nobody_is_ready(
    pair: tuple[socket.socket, socket.socket], said: str, tmp_path: Path
) -> None:
    ours, theirs = pair
    with Doorbell(tmp_path) as bell:
        bell.attach(ours.fileno(), "fresh")
        theirs.sendall(f"{said}\nMARK heard\n".encode())
        with pytest.raises(StartTimeout):
            bell.wait_ready(0.2)
        assert "heard" in dict(bell.marks())
        theirs.sendall(b"READY fresh\n")
        bell.wait_ready(LONG)


def test_a_console_gives_the_time_of_each_phase_once(pair: tuple[socket.socket, socket.socket], tmp_path: Path) -> None:
    ours, theirs = pair
    log = tmp_path / "console"
    said = [b"\x1b[HLinux ver", b"sion 6.1\nLinux version 6.1\n", b"guest-init: begins\n"]
    with Doorbell(tmp_path) as bell:
        bell.overhear(ours.fileno(), {"Linux version": "firmware", "begins": "kernel"}, log)
        for words in said:
            theirs.sendall(words)
        theirs.close()
        for _ in range(1000):
            if "kernel" in dict(bell.marks()):
                break
            assert not bell.wait_dead(0.01), "a console that is closed is no death"
    assert log.read_bytes() == b"".join(said)
    assert [name for name, _ in bell.marks()] == ["firmware", "kernel"]


@dataclass(frozen=True)
class Restored:
    ledger: Ledger
    backend: Backend
    image: DiskImage


@pytest.fixture(scope="module", params=["libvirt/snapshot", "qemu/snapshot"])
def restored(request: pytest.FixtureRequest, engine_or_skip: EngineOrSkip) -> Iterator[Restored]:
    target = f"{request.param},accel=tcg"
    with pytest.MonkeyPatch.context() as patch:
        for name, value in lasting().environment.items():
            patch.setenv(name, value)
        with Ledger() as ledger:
            backend = backends.create(target, ledger, Plan())
            try:
                with engine_or_skip(backend.name):
                    backend.probe()
                hello = bundle.build(workloads.load("hello"))
                with backend.prepare(hello, Limits(1, 200 * 2**20)) as image:
                    assert isinstance(image, DiskImage)
                    yield Restored(ledger, backend, image)
            finally:
                backend.close()


@pytest.mark.engine
def test_each_instance_is_the_machine_that_was_saved(restored: Restored) -> None:
    cell = Cell("snapshot", "hello", restored.backend, restored.image)
    runs = [measure(cell, restored.ledger, LONG, n, n, "measured", lambda phase: None) for n in (1, 2)]
    assert [run.error for run in runs] == [None, None]
    assert len({run.facts["boot_id"] for run in runs}) == 1
    assert all("init" not in dict(run.marks) for run in runs)
    [saved] = [part for part in restored.image.parts if part.name == "saved memory"]
    assert restored.image.saved is not None
    assert saved.paths == (restored.image.saved.memory,)


@pytest.mark.engine
def test_an_answer_of_the_past_is_none(restored: Restored, monkeypatch: pytest.MonkeyPatch) -> None:
    """The harness waits for another nonce than it sends: the guest answers, and is not believed."""
    attach = Doorbell.attach
    monkeypatch.setattr(Doorbell, "attach", lambda self, fd, nonce="": attach(self, fd, f"not-{nonce}"))
    cell = Cell("snapshot", "hello", restored.backend, restored.image)
    run = measure(cell, restored.ledger, 5.0, 1, 1, "measured", lambda phase: None)
    assert run.error is not None and run.error.type == "StartTimeout"
