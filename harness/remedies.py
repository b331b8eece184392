"""Remedies: for each thing that an ordinary user may lack, the one command that provides it.

Each text is made here once, so `doctor`, `run`, the table and the report show the same words.
"""

from __future__ import annotations

import grp
import os
import pwd
import stat
from pathlib import Path

USER_NAMESPACE_REFUSED = (
    r"(?:unshare|bwrap|newuidmap|newgidmap): .*(?:unshare failed|new namespace|uid.?map|gid.?map|not permitted)"
)
"""How unshare(1), bwrap(1) and newuidmap(1) say that this user must not have a user namespace."""
SYSCTLS = Path("/proc/sys")
NAMESPACE_SYSCTLS = (  # name, the value that forbids user namespaces, the value that allows them
    ("kernel.apparmor_restrict_unprivileged_userns", "1", "0"),
    ("kernel.unprivileged_userns_clone", "0", "1"),
    ("user.max_user_namespaces", "0", "10000"),
)
GROUP_MAY_USE = stat.S_IRGRP | stat.S_IWGRP


def join_group(group: str) -> str:
    """Return how the current user becomes a member of a group: the command, then a new login.

    A user who is a member already, since the session began, only has to log in again.
    """
    user = user_name()
    if _has_member(group, user):
        return f"log in again, or run `newgrp {group}`: {user} is in the group {group}, but this session is not"
    return f"run `sudo usermod -aG {group} {user}`, then log in again"


def user_namespaces() -> str:
    """Return how to get user namespaces: the sysctl that forbids them to ordinary users, else to run as root.

    Ubuntu 23.10 and newer restrict them by AppArmor, Debian up to 10 by a sysctl of its own. Only a container refuses
    them to root.
    """
    if os.geteuid() == 0:
        return "run outside of this container, or start it with `docker run --privileged`"
    for name, forbids, allows in NAMESPACE_SYSCTLS:
        if _read(SYSCTLS / name.replace(".", "/")) == forbids:
            return f"run `sudo sysctl {name}={allows}`, or run as root"
    return "run as root: the kernel or a container refuses user namespaces to ordinary users"


def user_name() -> str:
    """Return the current user's name; `$USER`, for the shell to fill in, where the uid has no name."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return "$USER"


def group_of(path: Path) -> str | None:
    """Return the group whose members may read and write a device or socket; None where membership does not help.

    The group root is never returned: joining it would give far more than this one file.
    """
    try:
        status = path.stat()
        group = grp.getgrgid(status.st_gid).gr_name
    except (OSError, KeyError):
        return None
    return group if status.st_gid != 0 and status.st_mode & GROUP_MAY_USE == GROUP_MAY_USE else None


def _has_member(group: str, user: str) -> bool:
    """Whether the user database, unlike perhaps this session, has the user in the group."""
    try:
        entry = grp.getgrnam(group)
        return user in entry.gr_mem or pwd.getpwnam(user).pw_gid == entry.gr_gid
    except KeyError:
        return False


def _read(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None
