"""What is held is released, whatever else goes wrong, and what could not be is left to `weighbridge clean`."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from harness import ledger, mounts
from harness.errors import LeftBehind
from harness.ledger import Ledger
from harness.signals import Interrupted, held, interruptible


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
