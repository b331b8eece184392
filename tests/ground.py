"""The command as a user calls it, on ground of its own: cache and state in a new folder that every user may enter."""

from __future__ import annotations

import atexit
import functools
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from harness import pace, places
from harness.ledger import remove_folder

REPOSITORY = Path(__file__).parents[1]
WORKLOADS = Path(__file__).parent / "workloads"
SHARED = os.environ.get("WEIGHBRIDGE_SHARED", "kernels").split(",")
"""Folders of the real cache that the tests' own has too: in the lab, where nothing can be downloaded, all of them."""
TIMEOUT = pace.deadline(400.0, 10_000)
"""Seconds that any command may take: what hangs fails."""
LONG = pace.deadline(60.0, 6000)
"""Seconds that one step of an instance may take, emulated guests included."""


@dataclass(frozen=True)
class Said:
    """What a command printed, and the code it ended with."""

    code: int
    out: str
    err: str

    @property
    def told(self) -> list[str]:
        """What the program itself says on stderr, a line each, progress left out."""
        return [line for line in self.err.splitlines() if line.startswith("weighbridge: ")]


@dataclass(frozen=True)
class Ground:
    """A folder with a short path (there will be sockets below it). environment: how the program is told of it."""

    folder: Path
    environment: dict[str, str]

    def weighbridge(
        self, *arguments: str | Path, environment: Mapping[str, str] | None = None, prefix: tuple[str, ...] = ()
    ) -> Said:
        """Runs the command to its end; prefix: what it is started by, as `unshare` and its options."""
        argv = [*prefix, sys.executable, "-P", "-c", "from harness.cli import main; main()", *arguments]
        done = subprocess.run(
            argv,
            cwd=self.folder,
            env={**os.environ, **self.environment, **(environment or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )
        return Said(done.returncode, done.stdout, done.stderr)

    def left(self) -> list[str]:
        """What campaigns left in the state folder: nothing, if all is well, but the folder of ledgers."""
        return sorted(
            str(path.relative_to(self.folder / "state"))
            for path in (self.folder / "state").rglob("*")
            if path.name != "ledgers"
        )


@contextmanager
def ground(owner: int | None = None) -> Iterator[Ground]:
    """New ground, removed at the end. owner: the uid it belongs to; then it has a cache of its own.

    Otherwise the cache is one for all tests. What is SHARED is that of the real one.
    """
    with _folder() as folder:
        cache = folder / "cache" if owner is not None else lasting().folder / "cache"
        if owner is not None:
            _make_cache(cache)
            for path in (folder, cache):
                os.chown(path, owner, owner)
        yield Ground(folder, _told(cache, folder / "state"))


@functools.cache
def lasting() -> Ground:
    """Ground that is there until the tests end: libvirt's embedded driver serves one folder in a process's life."""
    stack = ExitStack()
    atexit.register(stack.close)
    folder = stack.enter_context(_folder())
    _make_cache(folder / "cache")
    return Ground(folder, _told(folder / "cache", folder / "state"))


@contextmanager
def _folder() -> Iterator[Path]:
    """Make a folder on a disk. Some systems mount a tmpfs on /tmp: folders take no space there, files are shmem."""
    folder = Path(tempfile.mkdtemp(prefix="wb-", dir="/var/tmp"))
    try:
        folder.chmod(0o755)
        yield folder
    finally:
        remove_folder(str(folder))


def _make_cache(cache: Path) -> None:
    cache.mkdir()
    for name in SHARED:
        (cache / name).symlink_to(places.folder(places.cache() / name))


def _told(cache: Path, state: Path) -> dict[str, str]:
    return {"WEIGHBRIDGE_CACHE": str(cache), "WEIGHBRIDGE_STATE": str(state)}
