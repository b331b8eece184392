"""The ledger: everything that a campaign creates outside Python's memory, and its reaper.

Each object is written down, with the function that releases it, before it is made, and struck out after it is gone.
Orderly release and the reaping of what a killed campaign left behind are therefore the same functions. A ledger is
locked as long as its campaign lives: one whose lock is free is an orphan's, and only those are reaped.
"""

from __future__ import annotations

import fcntl
import importlib
import json
import os
import secrets
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from harness import mounts, pace, places, signals
from harness.command import CommandFailed, run
from harness.errors import BadInput, LeftBehind

Release = Callable[..., None]
SharedRelease = TypeVar("SharedRelease", bound=Release)
REAP_TIMEOUT, REAP_FACTOR = 300.0, 7500
"""Floor in seconds and factor of pace.deadline, for the release of one ledger."""
NOT_OURS = 75
"""Exit status of a reaper whose ledger lives, or is another reaper's."""


class Ledger:
    """One campaign's ledger. Closing it releases whatever is still written in it, whatever happened before."""

    def __init__(self, started: datetime | None = None) -> None:
        moment = (started or datetime.now(UTC)).strftime("%Y%m%d-%H%M%S")
        while True:
            self.campaign = f"{moment}-{secrets.token_hex(3)}"
            self.path = _folder() / f"{self.campaign}.jsonl"
            self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
            # A reaper may have found the file in the moment before it was locked, and taken it away.
            if _lock(self._fd) and _same(self.path, self._fd):
                break
            os.close(self._fd)
        self._count = 0
        self._names = 0
        self.folder = places.state() / self.campaign.rpartition("-")[2]
        """Where everything that belongs to this campaign lies; gone with it. Short, because sockets will be in it."""

    def __enter__(self) -> Self:
        self._write({"entry": 0, "release": _address(remove_folder), "what": {"path": str(self.folder)}})
        self.folder.mkdir(mode=0o755)
        self.folder.chmod(0o755)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with signals.held():
            failures = _release(self.path, self._fd)
            os.close(self._fd)
            if failures:
                raise LeftBehind("left behind, `weighbridge clean` will try again", failures)

    def name(self) -> str:
        """A name for the next object: weighbridge-<campaign>-<n>."""
        self._names += 1
        return f"weighbridge-{self.campaign}-{self._names}"

    @contextmanager
    def holding(self, release: Release, **what: Any) -> Iterator[None]:
        """Holds an object that is made inside the block. release(**what) must do no harm where there is nothing.

        Where the release fails the object stays in the ledger. That is raised, unless something else is already.
        """
        self._count += 1
        number = self._count
        self._write({"entry": number, "release": _address(release), "what": what})

        def let_go() -> None:
            with signals.held(), _turn(release):
                release(**what)
                self._write({"gone": number})

        try:
            yield
        except BaseException as error:
            try:
                let_go()
            except Exception as failure:
                error.add_note(f"and its release failed: {failure}")
            raise
        let_go()

    @contextmanager
    def holding_folder(self) -> Iterator[Path]:
        """A new folder of the campaign, removed at the end of the block. Its path is short: sockets will be in it."""
        path = self.folder / self.name().rpartition("-")[2]
        with self.holding(remove_folder, path=str(path)):
            path.mkdir(mode=0o755)
            path.chmod(0o755)
            yield path

    def _write(self, line: dict[str, Any]) -> None:
        try:
            os.write(self._fd, json.dumps(line).encode() + b"\n")
        except OSError as error:
            raise BadInput(
                f"cannot write {self.path}: {error.strerror}; name another folder by WEIGHBRIDGE_STATE"
            ) from error


def remove_folder(path: str) -> None:
    """Removes a folder with all that is in it. An overlay's work folder has mode 000 and is opened first.

    Raises OSError where something is mounted below it: what shows through a mount is not ours to remove.
    """
    if mounts.below(path):
        raise OSError(f"something is still mounted below {path}")
    places.remove(Path(path))


def orphans() -> list[Path]:
    """The ledgers whose campaign is no longer alive."""
    found = []
    for path in sorted(_folder().glob("*.jsonl")):
        try:
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:  # its campaign has just ended
            continue
        except PermissionError:  # another user's
            continue
        try:
            if _lock(fd):
                found.append(path)
        finally:
            os.close(fd)
    return found


def reap() -> dict[str, str | None]:
    """Releases what dead campaigns left: {campaign: None, or what could not be released}.

    What another reaper is at is left to it.

    Each in a process of its own, because libvirt's embedded driver serves one root in a process's life.
    """
    outcome: dict[str, str | None] = {}
    for path in orphans():
        argv: list[str | Path] = [
            sys.executable,
            "-P",
            "-m",
            "harness.ledger",
            path,
        ]  # -P: whatever the folder we are in may hold
        try:
            run(argv, timeout=pace.deadline(REAP_TIMEOUT, REAP_FACTOR))
            outcome[path.stem] = None
        except CommandFailed as error:
            if error.status != NOT_OURS:
                outcome[path.stem] = error.log or str(error)
    return outcome


def entries(path: Path) -> list[tuple[int, str, dict[str, Any]]]:
    """What is written in a ledger and not struck out: (number, address of the release function, its arguments)."""
    open_entries: dict[int, tuple[int, str, dict[str, Any]]] = {}
    for line in path.read_text().splitlines():
        try:
            item = json.loads(line)
        except ValueError:  # the last line of a campaign that was killed while writing it: not made yet
            continue
        if "gone" in item:
            open_entries.pop(item["gone"], None)
        else:
            open_entries[item["entry"]] = (item["entry"], item["release"], item["what"])
    return list(open_entries.values())


def held(release: Release) -> list[tuple[str, dict[str, Any]]]:
    """(campaign, arguments) of all that this function is to release, in the ledgers of all campaigns."""
    found = []
    for path in sorted(_folder().glob("*.jsonl")):
        with suppress(FileNotFoundError):  # its campaign has just ended
            found += [(path.stem, what) for _, address, what in entries(path) if address == _address(release)]
    return found


def shared(release: SharedRelease) -> SharedRelease:
    """Mark a function that releases an object of several campaigns, the last of which removes it.

    Such a function and the strike-out of its entry are one step: two campaigns that end at once do not each take the
    other for the last one. Find out which objects exist, and write the entry, inside of `exclusive`.
    """
    # An attribute: a reaper runs this module as __main__, and other modules import it under its name.
    release.is_shared = True  # type: ignore[attr-defined]
    return release


@contextmanager
def exclusive() -> Iterator[None]:
    """Wait until no other process writes, or releases, an entry for a shared object; hold them off for the block."""
    fd = os.open(_folder(), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _turn(release: Release) -> AbstractContextManager[None]:
    return exclusive() if getattr(release, "is_shared", False) else nullcontext()


def _release(path: Path, fd: int) -> list[Exception]:
    """Releases all open entries, youngest first, and then the ledger itself; returns what failed."""
    failures: list[Exception] = []
    for number, address, what in reversed(entries(path)):
        # The campaign's folder goes last, and only if nothing in it is still held.
        if number == 0 and failures:
            continue
        try:
            release = _resolve(address)
            with _turn(release):
                release(**what)
                os.write(fd, json.dumps({"gone": number}).encode() + b"\n")
        except Exception as error:
            error.add_note(f"{address} {what}")
            failures.append(error)
    if not failures:
        path.unlink()
    return failures


def _address(release: Release) -> str:
    module = "harness.ledger" if release.__module__ == "__main__" else release.__module__
    return f"{module}:{release.__qualname__}"


def _resolve(address: str) -> Release:
    module, _, name = address.partition(":")
    release: Release = getattr(importlib.import_module(module), name)
    return release


def _folder() -> Path:
    folder = places.state() / "ledgers"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _same(path: Path, fd: int) -> bool:
    try:
        return path.stat().st_ino == os.fstat(fd).st_ino
    except FileNotFoundError:
        return False


def _reap_one(path: Path) -> int:
    try:
        fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
    except FileNotFoundError:
        return NOT_OURS
    if not (_lock(fd) and _same(path, fd)):
        return NOT_OURS
    failures = _release(path, fd)
    for failure in failures:
        print(f"{'; '.join(getattr(failure, '__notes__', []))}: {failure}", file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(_reap_one(Path(sys.argv[1])))
