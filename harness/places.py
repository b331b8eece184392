"""Where things live outside the source: the cache of what was built, and the state of what is running.

Both must be readable by other users than ours (libvirt-qemu reads disks, a sandbox's unprivileged uid reads trees),
whatever the umask is: hence the explicit modes.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.errors import BadInput
from harness.steps import report_step


def cache() -> Path:
    """The folder of what can be built again: bundles, disks, guest kernels. Raises BadInput where it cannot be made."""
    return _place("WEIGHBRIDGE_CACHE", Path("/var/cache"), "XDG_CACHE_HOME", ".cache")


def state() -> Path:
    """The folder of ledgers, engines and instance layers. Raises BadInput where it cannot be made."""
    return _place("WEIGHBRIDGE_STATE", Path("/var/lib"), "XDG_STATE_HOME", ".local/state")


def folder(path: Path) -> Path:
    """`path` as a folder, its missing parents included: whatever had to be made has mode 0755. Raises OSError."""
    if not path.is_dir():
        folder(path.parent)
        try:
            path.mkdir()
            path.chmod(0o755)
        except FileExistsError:  # somebody beside us was faster, or it is no folder
            if not path.is_dir():
                raise
    return path


def made_once(target: Path, make: Callable[[Path], None], doing: str = "") -> Path:
    """`target`, made by `make(draft)` unless it is there: a file or a folder, never seen half made.

    Whoever comes second, in this process or another, waits for the first. What a killed maker left is made anew.
    doing: the name of this step for the progress display, as `building the bundle hello`.
    """
    if target.exists():
        return target
    folder(target.parent)
    with report_step(doing or f"making {target.name}"), _locked(target.parent / f".{target.name}.lock"):
        if not target.exists():
            draft = target.parent / f".{target.name}.draft"
            remove(draft)
            try:
                make(draft)
                draft.rename(target)
            except BaseException:
                remove(draft)
                raise
    return target


def remove_drafts() -> list[Path]:
    """Removes what makers that were killed left half made in the cache, and returns it."""
    found = []
    for lock in cache().rglob(".*.lock"):
        draft = lock.with_suffix(".draft")
        with _locked(lock, wait=False) as free:
            if free and draft.exists():
                remove(draft)
                found.append(draft)
    return found


def _place(variable: str, of_root: Path, xdg: str, below_home: str) -> Path:
    named = os.environ.get(variable)
    try:
        path = Path(named).absolute() if named else _default(of_root, xdg, below_home)
        folder(path)
    except (OSError, RuntimeError) as error:  # RuntimeError: there is no home
        told = error.strerror if isinstance(error, OSError) else error
        path_told = named or (error.filename if isinstance(error, OSError) else below_home)
        raise BadInput(f"cannot make the folder {path_told}: {told}; name another one by {variable}") from error
    if any(character in str(path) for character in ":,\\"):
        told = f"the folder {path} has a colon, comma or backslash, which the options of an overlay cannot hold"
        raise BadInput(f"{told}; name another one by {variable}")
    if not os.access(path, os.W_OK | os.X_OK):
        raise BadInput(f"cannot write in the folder {path}; name another one by {variable}")
    return path


def _default(of_root: Path, xdg: str, below_home: str) -> Path:
    if os.geteuid() == 0:
        return of_root / "weighbridge"
    base = Path(os.environ.get(xdg, ""))
    if not base.is_absolute():  # the XDG specification: a relative path is to be ignored
        try:
            base = Path.home() / below_home
        except RuntimeError as error:
            raise BadInput(f"uid {os.geteuid()} has no home: name a folder by HOME or {xdg}") from error
    return base / "weighbridge"


@contextmanager
def _locked(path: Path, *, wait: bool = True) -> Iterator[bool]:
    """Whether we have the lock, which can be false only if we did not wait for it."""
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        # Let go by close, and by the kernel if we die.
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(lock)


def remove(path: Path) -> None:
    """Removes a file, or a folder with all that is in it, folders that are closed to us too; nothing there is fine."""
    if path.is_dir() and not path.is_symlink():
        path.chmod(0o700)
        for folder, below, _ in os.walk(path):
            for name in below:
                if not Path(folder, name).is_symlink():  # what a link leads to is not ours
                    Path(folder, name).chmod(0o700)
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
