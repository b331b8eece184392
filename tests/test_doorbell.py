"""The doorbell: what an instance may write on it, in what pieces, and how its end is heard."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Self

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness import store
from harness.decode import LEVELS
from harness.doorbell import LONGEST_LINE, Doorbell
from harness.errors import ExitedBeforeReady, RunError, StartTimeout
from tests.ground import LONG
from tests.weighing import full

"""Seconds until a wait that should not last fails."""
SHORT = 0.05
"""Seconds to wait for what is not to come."""


@pytest.fixture
def bell(tmp_path: Path) -> Iterator[Doorbell]:
    with Doorbell(tmp_path) as bell:
        bell.mark("requested")
        yield bell


class Ringer:
    """An instance's end of the FIFO. `write` returns when the doorbell has read all that was written."""

    def __init__(self, bell: Doorbell) -> None:
        self._bell = bell
        self._fd = os.open(bell.fifo, os.O_WRONLY | os.O_CLOEXEC)
        self._number = 0

    def write(self, text: str | bytes) -> None:
        for rest in _pieces(text.encode() if isinstance(text, str) else text):
            os.write(self._fd, rest)

    def heard(self) -> list[str]:
        """The names of all marks, once a last one of our own has come."""
        self._number += 1
        last = f"heard-{self._number}"
        self.write(f"\nMARK {last}\n")
        while last not in (marks := [name for name, _ in self._bell.marks()]):
            assert not self._bell.wait_dead(0.001)
        return [name for name in marks if not name.startswith("heard-")]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)


def _pieces(content: bytes) -> Iterator[bytes]:
    for start in range(0, len(content), 4096):
        yield content[start : start + 4096]


@pytest.fixture
def ringer(bell: Doorbell) -> Iterator[Ringer]:
    with Ringer(bell) as ringer:
        yield ringer


def test_ready_and_what_comes_with_it(bell: Doorbell, ringer: Ringer) -> None:
    ringer.write('MARK init\nREADY\nFACTS {"cpus": 2, "seccomp": null}\n')
    bell.wait_ready(LONG)
    assert bell.wait_facts(LONG) == {"cpus": 2, "seccomp": None}
    marks = bell.marks()
    assert [name for name, _ in marks] == ["requested", "init", "ready"]
    assert marks[0][1] == 0
    assert [at for _, at in marks] == sorted(at for _, at in marks)


def test_ready_counts_when_its_line_is_complete(bell: Doorbell, ringer: Ringer) -> None:
    for piece in ("RE", "AD", "Y"):
        ringer.write(piece)
        with pytest.raises(StartTimeout):
            bell.wait_ready(SHORT)
    ringer.write("\n")
    bell.wait_ready(LONG)


def test_only_the_first_ready_counts(ringer: Ringer) -> None:
    ringer.write("READY\nREADY\n")
    assert ringer.heard() == ["requested", "ready"]


def test_a_mark_has_a_plain_name_that_is_not_ours(ringer: Ringer) -> None:
    ours = ("requested", "created", "ready", "start-returned", "settled", "unsettled", "stopping", "gone")
    for name in (*ours, "", "Loaded", "two words", "../etc", "-x", "x" * 41, "über"):
        ringer.write(f"MARK {name}\n")
    ringer.write("MARK loaded\nMARK v1.2-rc\n")
    assert ringer.heard() == ["requested", "loaded", "v1.2-rc"]


@pytest.mark.parametrize(
    "rubbish",
    [b"\xff\xfe\x00\n", b"ready\n", b"READYISH\n", b"NOT READY\n", b"\n\n\n", b"x" * (LONGEST_LINE + 100_000) + b"\n"],
    ids=["no UTF-8", "lower case", "longer", "later in the line", "empty", "longer than any line"],
)
def test_rubbish_is_neither_ready_nor_in_the_way(bell: Doorbell, ringer: Ringer, rubbish: bytes) -> None:
    ringer.write(rubbish)
    assert ringer.heard() == ["requested"]
    ringer.write("READY\n")
    bell.wait_ready(LONG)


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rubbish=st.lists(st.binary(max_size=300).map(lambda line: b"?" + line.replace(b"\n", b" "))),
    cuts=st.lists(st.integers(0, 400), max_size=8),
)
def test_however_it_is_cut_the_same_is_heard(
    tmp_path_factory: pytest.TempPathFactory, rubbish: list[bytes], cuts: list[int]
) -> None:
    content = b"\n".join([*rubbish, b"MARK loaded", b"READY", b'FACTS {"cpus": 1}', b""])
    with Doorbell(tmp_path_factory.mktemp("bell")) as bell, Ringer(bell) as ringer:
        edges = [0, *sorted({cut for cut in cuts if cut < len(content)}), len(content)]
        for start, end in pairwise(edges):
            ringer.write(content[start:end])
        bell.wait_ready(LONG)
        assert bell.wait_facts(LONG) == {"cpus": 1}
        assert [name for name, _ in bell.marks()] == ["loaded", "ready"]


@pytest.mark.parametrize(
    "facts",
    [
        "{not so",
        "[1, 2]",
        '"text"',
        "",
        '{"cpus": NaN}',
        '{"text": "\\ud800"}',
        '{"a":' * 5000 + "1" + "}" * 5000,
        '{"a":' * (LEVELS + 1) + "1" + "}" * (LEVELS + 1),
        '{"a":' + "[" * 5000 + "]" * 5000 + "}",
        '{"a":' * 5000,
    ],
    ids=[
        "no JSON",
        "a list",
        "a text",
        "nothing",
        "NaN",
        "half a character",
        "bottomless",
        "one level too many",
        "bottomless list",
        "bottomless and cut",
    ],
)
def test_facts_that_are_none_are_told_at_once(bell: Doorbell, ringer: Ringer, facts: str) -> None:
    ringer.write(f"READY\nFACTS {facts}\n")
    with pytest.raises(RunError, match="FACTS are no"):
        bell.wait_facts(LONG)
    # And the doorbell still listens.
    ringer.write("MARK alive\n")
    assert "alive" in ringer.heard()


def test_facts_as_deep_as_allowed_are_recorded_and_read_back(bell: Doorbell, ringer: Ringer, tmp_path: Path) -> None:
    ringer.write("READY\nFACTS " + '{"a":' * LEVELS + "1" + "}" * LEVELS + "\n")
    [host, *_] = full().runs
    deepest = msgspec.structs.replace(host, facts=bell.wait_facts(LONG))
    with store.Writer(tmp_path / "r.jsonl") as writer:
        for record in (full().header, deepest):
            writer.append(record)
    assert store.read(tmp_path / "r.jsonl").runs == [deepest]


def test_no_ready_in_time(bell: Doorbell) -> None:
    with pytest.raises(StartTimeout, match=r"within 0\.05 s"):
        bell.wait_ready(SHORT)


def test_no_facts_in_time(bell: Doorbell, ringer: Ringer) -> None:
    ringer.write("READY\n")
    bell.wait_ready(LONG)
    with pytest.raises(RunError, match="no FACTS"):
        bell.wait_facts(SHORT)


def test_a_writer_that_goes_away_is_not_a_death(bell: Doorbell) -> None:
    with Ringer(bell) as ringer:
        ringer.write("MARK init\n")
    with Ringer(bell) as ringer:
        ringer.write("READY\n")
    bell.wait_ready(LONG)
    assert not bell.wait_dead(SHORT)


def test_an_end_before_ready_is_told_at_once(bell: Doorbell) -> None:
    with subprocess.Popen(["sleep", "600"]) as process:
        pidfd = os.pidfd_open(process.pid)
        bell.watch(pidfd)
        with pytest.raises(StartTimeout):
            bell.wait_ready(SHORT)
        process.kill()
        with pytest.raises(ExitedBeforeReady):
            bell.wait_ready(LONG)
        assert bell.wait_dead(0)
        with pytest.raises(RunError, match="ended"):
            bell.wait_facts(LONG)
    os.close(pidfd)


def test_what_was_written_before_the_end_counts(tmp_path: Path) -> None:
    """Who reads the death first, of two that came together, would lose the last words."""
    for number in range(20):
        folder = tmp_path / str(number)
        folder.mkdir()
        with Doorbell(folder) as bell:
            script = f"exec 3>{bell.fifo}; read go; echo READY >&3"
            with subprocess.Popen(["sh", "-c", script], stdin=subprocess.PIPE) as process:
                pidfd = os.pidfd_open(process.pid)
                bell.watch(pidfd)
                process.communicate(b"go\n", timeout=LONG)
                bell.wait_ready(LONG)
                assert bell.wait_dead(LONG)
            os.close(pidfd)


def test_a_socket_rings_and_its_end_is_the_instances_death(bell: Doorbell) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        bell.attach(ours.fileno())
        theirs.sendall(b"MARK init\nREADY\n")
        bell.wait_ready(LONG)
        assert not bell.wait_dead(SHORT)
        theirs.sendall(b'FACTS {"cpus": 1}\n')
        assert bell.wait_facts(LONG) == {"cpus": 1}
        theirs.close()
        assert bell.wait_dead(LONG)


def test_a_socket_rings_though_its_number_was_given_to_another_file(bell: Doorbell, tmp_path: Path) -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        bell.attach(number := ours.fileno())
        ours.close()
        other = os.open(tmp_path / "other", os.O_RDWR | os.O_CREAT)
        try:
            assert other == number
            os.write(other, b"READY\n")
            os.lseek(other, 0, os.SEEK_SET)
            theirs.sendall(b"MARK init\n")
            with pytest.raises(StartTimeout):
                bell.wait_ready(SHORT)
            theirs.sendall(b"READY\n")
            bell.wait_ready(LONG)
            assert [name for name, _ in bell.marks()] == ["requested", "init", "ready"]
        finally:
            os.close(other)


def test_a_socket_that_breaks_before_ready(bell: Doorbell) -> None:
    ours, theirs = socket.socketpair()
    with ours:
        bell.attach(ours.fileno())
        theirs.sendall(b"MARK init\nREA")
        theirs.close()
        with pytest.raises(ExitedBeforeReady):
            bell.wait_ready(LONG)


def test_ready_is_noted_while_the_main_thread_is_busy(bell: Doorbell, ringer: Ringer) -> None:
    """The clock is read by the doorbell's thread: what comes during a call is not told by the call's end."""
    noted = threading.Event()

    def ring() -> None:
        ringer.write("READY\n")
        while "ready" not in [name for name, _ in bell.marks()]:
            bell.wait_dead(0.001)
        noted.set()

    threading.Thread(target=ring).start()
    assert noted.wait(LONG)  # a call that comes back only long after READY
    bell.mark("start-returned")
    names = [name for name, _ in bell.marks()]
    assert names.index("ready") < names.index("start-returned")


def test_the_end_is_never_missed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading the eventfd takes all that was written to it: who ends at that very moment must be heard all the same."""
    read, write = os.eventfd_read, os.eventfd_write
    reading, ending = threading.Event(), threading.Event()
    bell = Doorbell(tmp_path)

    def read_late(fd: int) -> int:
        reading.set()
        assert ending.wait(LONG)
        return read(fd)

    def write_and_tell(fd: int, value: int) -> None:
        write(fd, value)
        if reading.is_set():
            ending.set()

    monkeypatch.setattr(os, "eventfd_read", read_late)
    monkeypatch.setattr(os, "eventfd_write", write_and_tell)
    bell.__enter__()
    assert reading.wait(LONG)
    end = threading.Thread(target=bell.__exit__, args=(None, None, None), daemon=True)
    end.start()
    end.join(LONG)
    assert not end.is_alive()


def test_another_fifo_rings_too(bell: Doorbell, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "other")
    bell.ring_from(tmp_path / "other")
    with (tmp_path / "other").open("w") as other:
        other.write("READY\n")
        other.flush()
        bell.wait_ready(LONG)


def test_nothing_is_left_open(tmp_path: Path) -> None:
    before = sorted(os.listdir("/proc/self/fd"))  # noqa: PTH208
    with Doorbell(tmp_path) as bell, Ringer(bell) as ringer:
        ringer.write("READY\n")
        bell.wait_ready(LONG)
    assert sorted(os.listdir("/proc/self/fd")) == before  # noqa: PTH208
    assert "doorbell" not in [thread.name for thread in threading.enumerate()]


# What is read at READY.


def test_what_is_read_at_ready_is_read_once_in_that_moment(bell: Doorbell, ringer: Ringer) -> None:
    """By the thread that listens, with READY noted and nobody told of it yet, whatever comes after."""
    calls: list[tuple[str, list[str]]] = []

    def read() -> dict[str, int]:
        calls.append((threading.current_thread().name, [name for name, _ in bell.marks()]))
        return {"calls": len(calls)}

    bell.at_ready(read)
    assert ringer.heard() == ["requested"]
    assert (calls, bell.readings()) == ([], {})
    ringer.write("READY\nMARK later\nREADY\n")
    assert ringer.heard() == ["requested", "ready", "later"]
    bell.wait_ready(LONG)
    assert [(thread, names[-1]) for thread, names in calls] == [("doorbell", "ready")]
    assert bell.readings() == {"calls": 1}


def test_ready_is_told_after_it_was_read(bell: Doorbell, ringer: Ringer) -> None:
    """Who waits for READY finds what was read, however long that took."""
    reading, waited = threading.Event(), threading.Event()

    def read() -> dict[str, bool]:
        reading.set()
        return {"waited before": waited.wait(SHORT)}

    def wait() -> None:
        bell.wait_ready(LONG)
        waited.set()

    bell.at_ready(read)
    waiting = threading.Thread(target=wait)
    waiting.start()
    ringer.write("READY\n")
    assert reading.wait(LONG)
    waiting.join(LONG)
    assert waited.is_set()
    assert bell.readings() == {"waited before": False}


def test_after_ready_it_is_read_at_once(bell: Doorbell, ringer: Ringer) -> None:
    ringer.write("READY\n")
    bell.wait_ready(LONG)
    threads: list[str] = []

    def read() -> dict[str, str]:
        threads.append(threading.current_thread().name)
        return {"workload": "late"}

    bell.at_ready(read)
    assert threads == [threading.current_thread().name]
    assert bell.readings() == {"workload": "late"}
    ringer.write("READY\n")
    assert "ready" in ringer.heard()
    assert len(threads) == 1


@pytest.mark.parametrize("late", [False, True], ids=["before READY", "after READY"])
def test_of_two_that_tell_of_the_same_the_earlier_counts(bell: Doorbell, ringer: Ringer, late: bool) -> None:
    bell.at_ready(lambda: {"workload": 1})
    if late:
        ringer.write("READY\n")
        bell.wait_ready(LONG)
    bell.at_ready(lambda: {"workload": 2, "supervisor": 2})
    if not late:
        ringer.write("READY\n")
        bell.wait_ready(LONG)
    assert bell.readings() == {"workload": 1, "supervisor": 2}


@pytest.mark.parametrize("late", [False, True], ids=["before READY", "after READY"])
def test_what_cannot_be_read_ends_nothing_and_is_told(bell: Doorbell, ringer: Ringer, late: bool) -> None:
    def fail() -> dict[str, int]:
        raise ValueError("no such field")

    if not late:
        bell.at_ready(fail)
    ringer.write('READY\nFACTS {"cpus": 1}\n')
    bell.wait_ready(LONG)
    if late:
        bell.at_ready(fail)
    bell.at_ready(lambda: {"workload": 1})
    assert bell.wait_facts(LONG) == {"cpus": 1}
    ringer.write("MARK alive\n")
    assert "alive" in ringer.heard()
    with pytest.raises(RunError, match="at READY could not be: no such field") as told:
        bell.readings()
    assert isinstance(told.value.__cause__, ValueError)


def test_nothing_is_read_of_who_never_was_ready(tmp_path: Path) -> None:
    calls: list[int] = []

    def read() -> dict[str, int]:
        calls.append(1)
        return {"workload": 1}

    with Doorbell(tmp_path) as bell, Ringer(bell) as ringer:
        bell.at_ready(read)
        ringer.write("MARK init\n")
        assert ringer.heard() == ["init"]
    assert (calls, bell.readings()) == ([], {})
