"""Remedies: for each thing that an ordinary user may lack, the one command that provides it.

Each text is made here once, so `doctor`, `run`, the table and the report show the same words.
"""

from __future__ import annotations

import grp
import os
import pwd
import stat
from pathlib import Path

GROUP_MAY_USE = stat.S_IRGRP | stat.S_IWGRP


def join_group(group: str) -> str:
    """Return how the current user becomes a member of a group: the command, then a new login.

    A user who is a member already, since the session began, only has to log in again.
    """
    user = user_name()
    if _has_member(group, user):
        return f"log in again, or run `newgrp {group}`: {user} is in the group {group}, but this session is not"
    return f"run `sudo usermod -aG {group} {user}`, then log in again"


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
