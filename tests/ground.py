"""The command as a user calls it, on ground of its own: cache and state in a new folder that every user may enter."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from harness import places
from harness.ledger import remove_folder

REPOSITORY = Path(__file__).parents[1]
WORKLOADS = Path(__file__).parent / "workloads"
TIMEOUT = 180.0
"""Seconds that any command may take: what hangs fails."""


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
    """New ground, removed at the end. owner: the uid it belongs to. Guest kernels are shared with the real cache."""
    folder = Path(tempfile.mkdtemp(prefix="wb-", dir="/tmp"))
    try:
        folder.chmod(0o755)
        (folder / "cache").mkdir()
        (folder / "cache/kernels").symlink_to(places.folder(places.cache() / "kernels"))
        if owner is not None:
            for path in (folder, folder / "cache"):
                os.chown(path, owner, owner)
        told = {"WEIGHBRIDGE_CACHE": str(folder / "cache"), "WEIGHBRIDGE_STATE": str(folder / "state")}
        yield Ground(folder, told)
    finally:
        remove_folder(str(folder))
