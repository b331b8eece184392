"""What is held is released, whatever else goes wrong, and what could not be is left to `weighbridge clean`."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from harness import ledger, mounts, places
from harness.errors import LeftBehind
from harness.ledger import Ledger
from harness.signals import Interrupted, held, interruptible
from tests.ground import REPOSITORY


def release(path: str) -> None:
    """Releases a file, unless another one says that this cannot be done."""
    if Path(f"{path}.stuck").exists():
        raise OSError(f"{path} is stuck")
    Path(path).unlink(missing_ok=True)


@pytest.fixture
def things(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Three files, of which the second cannot be released yet."""
    monkeypatch.setenv("WEIGHBRIDGE_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)
    made = [tmp_path / name for name in ("first", "second", "third")]
    for path in (*made, tmp_path / "second.stuck"):
        path.touch()
    return made


def test_a_release_that_fails_stops_no_other_one_and_is_left_to_clean(things: list[Path]) -> None:
    first, second, third = things
    with (
        pytest.raises(LeftBehind, match="clean"),
        Ledger() as book,
        book.holding(release, path=str(first)),
        book.holding(release, path=str(second)),
        book.holding(release, path=str(third)),
    ):
        pass
    assert [path.exists() for path in things] == [False, True, False]
    assert "second is stuck" in str(ledger.reap()[book.campaign])
    assert book.path.exists()
    Path(f"{second}.stuck").unlink()
    assert ledger.reap() == {book.campaign: None}
    assert (second.exists(), book.path.exists(), book.folder.exists()) == (False, False, False)


def test_a_release_that_fails_does_not_hide_why_the_block_ended(things: list[Path]) -> None:
    second = things[1]
    with Ledger() as book:
        with pytest.raises(Interrupted) as told, book.holding(release, path=str(second)):
            raise Interrupted(signal.SIGINT)
        assert "second is stuck" in told.value.__notes__[0]
        Path(f"{second}.stuck").unlink()
    assert not second.exists()


def test_what_is_struck_out_is_not_released_again(things: list[Path]) -> None:
    first, _, _ = things
    with Ledger() as book:
        with book.holding(release, path=str(first)):
            pass
        first.touch()
    assert first.exists()


def test_a_signal_does_not_tear_a_release_apart() -> None:
    done = []
    with pytest.raises(Interrupted, match="SIGTERM"), interruptible():
        with held():
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGINT)
            done.append("released")
        done.append("gone on")
    assert done == ["released"]


def test_mounts_are_found_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/proc")
    assert "/proc" in mounts.below(str(tmp_path / "link"))


@ledger.shared
def release_shared(campaign: str) -> None:
    """Note who else holds the object, and whether another process could release it at the same time."""
    others = [other for other, _ in ledger.held(release_shared) if other != campaign]
    _seen.append((others, is_free()))


_seen: list[tuple[list[str], bool]] = []


def is_free() -> bool:
    """Whether another process would get the lock of the shared objects now."""
    folder = os.open(places.state() / "ledgers", os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(folder)
    return True


def test_release_of_a_shared_object_and_its_strike_out_are_one_step(
    things: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise two campaigns that end at once each see the other's entry, and both leave the object."""
    _seen.clear()
    struck: list[bool] = []
    write = Ledger._write

    def watch(book: Ledger, line: dict[str, object]) -> None:
        write(book, line)
        if "gone" in line:
            struck.append(is_free())

    monkeypatch.setattr(Ledger, "_write", watch)
    with Ledger() as one, Ledger() as two:
        with one.holding(release_shared, campaign=one.campaign), two.holding(release_shared, campaign=two.campaign):
            assert is_free()
        assert is_free()
    assert _seen == [([one.campaign], False), ([], False)]
    assert struck == [False, False]


def test_reaper_releases_a_shared_object_as_one_step_too(things: list[Path], tmp_path: Path) -> None:
    """The reaper runs the ledger's module as a program, and the release functions import the module by its name."""
    seen = tmp_path / "seen"
    with Ledger() as book:
        book._write({"entry": 1, "release": "test_ledger_shared:release", "what": {"path": str(seen)}})
        (tmp_path / "state/test_ledger_shared.py").write_text(REAPED)
        orphan = book.path.with_name("orphan.jsonl")
        shutil.copyfile(book.path, orphan)
        environment = {**os.environ, "PYTHONPATH": f"{tmp_path / 'state'}:{REPOSITORY}"}
        subprocess.run([sys.executable, "-P", "-m", "harness.ledger", orphan], env=environment, check=True, timeout=60)
        assert seen.read_text() == "held"
        book._write({"gone": 1})


REAPED = """
import fcntl, os
from pathlib import Path
from harness import ledger, places

@ledger.shared
def release(path):
    folder = os.open(places.state() / "ledgers", os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        Path(path).write_text("held")
"""
