"""`weighbridge facts`: what one instance is separated from, or in one line why that cannot be told."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from harness import facts
from harness.backends.host import Host
from harness.errors import Unavailable
from harness.model import Plan
from tests.ground import WORKLOADS, Ground, ground

BAD_INPUT, SOME_FAILED = 2, 4


@pytest.fixture(scope="module")
def place() -> Iterator[Ground]:
    with ground() as here:
        yield here


@pytest.mark.engine
def test_what_a_sandbox_is_separated_from(place: Ground) -> None:
    said = place.weighbridge("facts", "namespace/pid,net", "--json")
    assert said.code == 0, said.err
    told = json.loads(said.out)
    own = {kind for kind, whose in told["isolation"]["namespaces"].items() if whose == "own"}
    assert {"mnt", "pid", "net"} <= own
    assert told["isolation"]["kernel"] == "host's"
    assert told["isolation"]["no_new_privileges"] is True
    assert told["limits"]["memory"]["asked"] == 256 * 2**20
    assert told["facts"]["bundle"]
    assert place.left() == []


@pytest.mark.engine
def test_it_is_legible(place: Ground) -> None:
    said = place.weighbridge("facts", "namespace", environment={"COLUMNS": "80", "NO_COLOR": "1"})
    assert said.code == 0, said.err
    lines = {line[:19].strip(): line[19:].split() for line in said.out.splitlines()}
    assert lines["pid namespace"] == ["own"]
    assert lines["time namespace"] == ["host's"]
    assert max(map(len, said.out.splitlines())) <= 80


@pytest.mark.engine
def test_an_instance_that_fails_is_told_with_what_it_printed(place: Ground) -> None:
    said = place.weighbridge("facts", "namespace", "--workload", WORKLOADS / "dies")
    assert said.code == SOME_FAILED
    assert "ended before READY" in said.err
    assert "there is no database here" in said.err
    assert said.out == ""
    assert place.left() == []


@pytest.mark.long
@pytest.mark.parametrize(
    "words", [("nonsense",), ("host,namespace",), ("host", "--workload", "hello,python"), ("host", "--workload", "no")]
)
def test_what_makes_no_sense(place: Ground, words: tuple[str, ...]) -> None:
    said = place.weighbridge("facts", *words)
    assert said.code == BAD_INPUT
    assert len(said.err.splitlines()) == 1
    assert said.err.startswith("weighbridge: ")


@pytest.mark.engine
def test_whatever_an_engine_raises_is_a_reason(place: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    def probe(self: Host) -> None:
        raise RuntimeError("the SDK is of another opinion")

    for name, value in place.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(Host, "probe", probe)
    with pytest.raises(Unavailable, match="RuntimeError: the SDK is of another opinion"):
        facts.ask(Plan(targets=("host",)))
