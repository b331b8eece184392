"""Delegated control groups: where an ordinary user, or root in a container, may create groups with limits.

Only cgroup version 2 can be delegated safely. There a group that enables controllers for the groups below it
must not contain processes itself: the processes of a delegated group first move into a group below it.
Source: Linux, Documentation/admin-guide/cgroup-v2.rst (Delegation, No Internal Process Constraint); systemd,
docs/CGROUP_DELEGATION.md, and org.freedesktop.systemd1(5) (StartTransientUnit).
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from harness import cgroup, user_manager
from harness.cgroup import members
from harness.ledger import Ledger
from harness.limiting import KERNEL_PARAMETERS, Place, Refusal, format_root_command, use_place
from harness.user_manager import Refused

OWN = Path("/proc/self/cgroup")
CONTROLLERS = ("cpu", "memory")
HARNESS = "weighbridge-harness"
"""The group below a delegated one into which its processes move."""
ATTEMPTS = 100
"""Attempts to move all processes: one that forks while it is moved leaves a child behind."""


@contextmanager
def enter_delegated_group(ledger: Ledger) -> Iterator[None]:
    """Have `cgroup.limited` create groups in a delegated group inside the block.

    The delegated group is the one that this process is in, or else a new scope of systemd's user manager. This process
    moves into a group below it. If there is neither, `cgroup.find_refusals` has the reason. Does nothing if this
    process may create groups at the root of the hierarchy, as root may.
    """
    if cgroup.refusal() is None:
        yield
        return
    with ExitStack() as held:
        try:
            place = _enter(ledger, held)
        except Refused as refused:
            place = Place(cgroup.ROOT, dict.fromkeys(CONTROLLERS, refused.refusal))
        with use_place(place):
            yield


def leave(folder: str) -> None:
    """Undo `enter_delegated_group` unless another living campaign uses the group. Does nothing if the group is gone.

    A scope of our own disappears with its last process: called from outside, this kills the processes that are left in
    it; called from inside, it does nothing. From any other group `HARNESS` is removed, and its processes move back.
    """
    top = Path(folder)
    try:
        with _lock(top, fcntl.LOCK_EX | fcntl.LOCK_NB):
            if not user_manager.is_scope(top):
                _move_back(top)
            elif os.getpid() not in members(top):
                cgroup.remove(folders=[folder])
    except OSError as error:
        # The group is gone, now or while it was read; or another campaign holds its lock, and the last one undoes it.
        if error.errno not in (errno.ENOENT, errno.ENODEV, errno.EWOULDBLOCK):
            raise


def _enter(ledger: Ledger, held: ExitStack) -> Place:
    """Prepare the delegated group. Raises Refused."""
    top = _choose_group(ledger)
    missing = [controller for controller in CONTROLLERS if controller not in _read_words(top / "cgroup.controllers")]
    refused = dict.fromkeys(missing, _explain_missing(top, missing))
    if len(missing) < len(CONTROLLERS):
        held.enter_context(ledger.holding(leave, folder=str(top)))
        held.enter_context(_lock(top, fcntl.LOCK_SH))
        _move_down(top, [controller for controller in CONTROLLERS if controller not in missing])
    return Place(top, refused)


def _choose_group(ledger: Ledger) -> Path:
    """Return the delegated group with the fewest processes of others. Raises Refused."""
    own = _find_own_group()
    if own is not None and own.name == HARNESS and _is_writable(own.parent):  # another campaign's, or our parent's
        return own.parent
    delegated = own if own is not None and _is_delegated(own) else None
    if delegated is not None and members(delegated) == [os.getpid()]:
        return delegated
    try:
        return _enter_scope(ledger)
    except Refused:
        if delegated is None:
            raise
        return delegated


def _enter_scope(ledger: Ledger) -> Path:
    """Request a new scope with this process in it, and return its folder. Raises Refused."""
    if os.geteuid() == 0 and (refusal := cgroup.refusal()):
        raise Refused(refusal.reason, refusal.command)
    if cgroup.version() == 1:
        reason = f"cgroup version 1, at {cgroup.ROOT}, cannot be delegated to an ordinary user"
        raise Refused(reason, format_root_command())
    name = user_manager.request_scope(ledger.campaign)
    own = _find_own_group()
    if own is None or own.name != name:
        raise Refused(f"systemd did not move this process into {name}; it is in {own}", format_root_command())
    return own


def _find_own_group() -> Path | None:
    """Return the folder of this process's own cgroup v2 group; None if it is not visible below the mounted root."""
    for line in OWN.read_text().splitlines():
        if line.startswith("0::"):
            folder = cgroup.ROOT / line.removeprefix("0::").lstrip("/")
            # In another cgroup namespace the same path names another group.
            return folder.resolve() if os.getpid() in members(folder) else None
    return None


def _is_delegated(folder: Path) -> bool:
    """Whether the group is delegated to us: writable, and marked by systemd or below a group that is not writable.

    Below a user manager every group is writable, but only the marked ones are delegated.
    """
    if not _is_writable(folder) or not (folder / "cgroup.type").exists():  # absent: the kernel's root group
        return False
    try:
        marked = os.getxattr(folder, "user.delegate") == b"1"
    except OSError:  # systemd before 251, or no systemd
        marked = False
    return marked or folder == cgroup.ROOT.resolve() or not os.access(folder.parent / "cgroup.procs", os.W_OK)


def _is_writable(folder: Path) -> bool:
    files = (folder, folder / "cgroup.procs", folder / "cgroup.subtree_control")
    return all(os.access(file, os.W_OK) for file in files)


def _explain_missing(top: Path, missing: list[str]) -> Refusal:
    names = " and ".join(missing)
    if set(missing) - set(cgroup.list_offered_controllers()):
        return Refusal(f"the kernel does not offer a cgroup version 2 controller for {names}", KERNEL_PARAMETERS)
    have = ", ".join(_read_words(top / "cgroup.controllers")) or "no controller"
    who = user_manager.describe_user()
    return Refusal(f"the control group delegated to {who} has {have}, but not {names}", user_manager.DELEGATE)


def _move_down(top: Path, controllers: list[str]) -> None:
    """Move all processes of the group into HARNESS below it, and enable the controllers. Raises Refused."""
    try:
        (top / HARNESS).mkdir(exist_ok=True)
        for _ in range(ATTEMPTS):
            _move(top, top / HARNESS)
            try:
                (top / "cgroup.subtree_control").write_text(" ".join(f"+{controller}" for controller in controllers))
                return
            except OSError as error:
                if error.errno != errno.EBUSY:
                    raise
        raise Refused(f"{top} cannot be emptied: a process in it cannot be moved", format_root_command())
    except OSError as error:
        raise Refused(f"{error.filename or top}: {error.strerror}", format_root_command()) from error


def _move_back(top: Path) -> None:
    enabled = _read_words(top / "cgroup.subtree_control")
    (top / "cgroup.subtree_control").write_text(" ".join(f"-{controller}" for controller in enabled))
    if (top / HARNESS).exists():
        _move(top / HARNESS, top)
        (top / HARNESS).rmdir()


def _move(source: Path, target: Path) -> None:
    for pid in _read_words(source / "cgroup.procs"):
        if pid == "0":  # a process of another PID namespace; writing 0 would move this process
            continue
        with suppress(ProcessLookupError):  # it has ended
            (target / "cgroup.procs").write_text(pid)


def _read_words(file: Path) -> list[str]:
    return file.read_text().split()


@contextmanager
def _lock(folder: Path, operation: int) -> Iterator[None]:
    """Hold a lock on the group. Each campaign in the group holds a shared lock. Raises OSError."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, operation)
        yield
    finally:
        os.close(fd)
