"""Request a scope, a unit with a delegated control group, for this process from systemd's user manager.

The request names this process: it keeps its pid, terminal, parent and environment, and no exec is needed. If the
process is in a session's scope, the user manager has PID 1 move it.
Source: org.freedesktop.systemd1(5), StartTransientUnit; systemd.scope(5); user@.service(5).
"""

from __future__ import annotations

import os
import pwd
import socket
import struct
from pathlib import Path

from harness import pace, remedies
from harness.command import CommandFailed, find, run
from harness.errors import Unavailable
from harness.limiting import Refusal, format_root_command

RUNTIME = Path("/run/user")
SYSTEMD = Path("/run/systemd/system")
"""Exists if systemd is PID 1 (sd_booted(3))."""
TIMEOUT, FACTOR = 60.0, 1500
"""Floor in seconds and factor of pace.deadline, for each of the two calls; they take 0.02 s on an idle machine."""
DELEGATE = (
    r"printf '[Service]\nDelegate=cpu memory pids\n' | sudo install -D -m 644 /dev/stdin"
    " /etc/systemd/system/user@.service.d/delegate.conf && sudo systemctl daemon-reload (then log in again)"
)
PREFIX = "weighbridge-"


class Refused(Exception):
    """No delegated control group is available. refusal: the reason and the command that changes it."""

    def __init__(self, reason: str, command: str) -> None:
        super().__init__(reason)
        self.refusal = Refusal(reason, command)


def describe_user() -> str:
    """Return the name of the user who runs this process, or the uid if it has no name."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def is_scope(folder: Path) -> bool:
    """Whether this control group is a scope that `request_scope` created."""
    return folder.name.startswith(PREFIX) and folder.suffix == ".scope"


def request_scope(campaign: str) -> str:
    """Have the user manager create a scope with this process in it, and return the scope's name. Raises Refused.

    The call returns before the process is moved. `systemctl start` joins the job that moves it, and returns at its end.
    """
    environment = _find_bus()
    name = f"{PREFIX}{campaign}.scope"
    properties = [
        *("PIDs", "au", "1", str(os.getpid())),
        *("Delegate", "b", "1"),
        *("CollectMode", "s", "inactive-or-failed"),
        *("Description", "s", f"Weighbridge campaign {campaign}"),
    ]
    manager = ("org.freedesktop.systemd1", "/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager")
    timeout = pace.deadline(TIMEOUT, FACTOR)
    try:
        busctl, systemctl = find("busctl", "systemd"), find("systemctl", "systemd")
        call = [busctl, "--user", "call", *manager, "StartTransientUnit", "ssa(sv)a(sa(sv))", name, "fail", "4"]
        run([*call, *properties, "0"], env=environment, timeout=timeout)
        run([systemctl, "--user", "--quiet", "start", name], env=environment, timeout=timeout)
    except Unavailable as absent:
        raise Refused(absent.reason, absent.hint) from absent
    except CommandFailed as error:
        reason = f"the systemd user manager of {describe_user()} refuses a scope: {error}"
        raise Refused(reason, format_root_command()) from error
    return name


def _find_bus() -> dict[str, str]:
    """Return the environment in which busctl and systemctl find the user manager. Raises Refused.

    Ours may lack it, as after `sudo -u`, or name another user's, as after `su`.
    """
    if not SYSTEMD.is_dir():
        reason = f"no control group is delegated to {describe_user()}, and systemd is not running here"
        raise Refused(reason, format_root_command())
    folder = RUNTIME / str(os.geteuid())
    if not folder.is_dir():
        user = describe_user()
        raise Refused(
            f"no control group is delegated to {user}, who has no systemd user manager without a login session",
            f"sudo loginctl enable-linger {user}",
        )
    bus = folder / "bus"
    try:
        pid = _find_listener(bus)
    except OSError as error:
        install = f"{remedies.install('dbus-user-session')} && systemctl --user start dbus.socket"
        raise Refused(
            f"the systemd user manager of {describe_user()} is not reachable: {bus}: {error.strerror}", install
        ) from None
    if pid == 0:
        reason = "the systemd user manager is in another PID namespace: this is a container"
        raise Refused(reason, format_root_command())
    return {"XDG_RUNTIME_DIR": str(folder), "DBUS_SESSION_BUS_ADDRESS": f"unix:path={bus}"}


def _find_listener(bus: Path) -> int:
    """Return the pid of the socket's listener; 0 if it is in another PID namespace. Raises OSError."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(TIMEOUT)
        connection.connect(str(bus))
        size = struct.calcsize("3i")
        pid, _, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
    return int(pid)
