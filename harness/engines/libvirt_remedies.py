"""Remedies for a libvirt driver that cannot be used, or does not offer KVM: one for each cause.

Source: libvirt, include/libvirt/virterror.h (int1 is errno where libvirt has one), src/remote/remote_sockets.c.
"""

from __future__ import annotations

import errno
import grp
import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlparse

from harness import limiting, remedies, slices
from harness.command import CommandFailed, run
from harness.engines import program
from harness.engines.libvirt_traces import find_base_folder, find_home, find_runtime_folder
from harness.errors import Unavailable

SOCKETS = {"libvirtd": "libvirt-sock", "virtqemud": "virtqemud-sock"}
"""{daemon: the name of its socket}."""
UNITS = tuple(map(Path, ("/etc/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system")))
INIT_SCRIPTS = Path("/etc/init.d")
GROUP = "libvirt"
NO_DRIVER = 5
"""VIR_ERR_NO_CONNECT."""
FORBIDDEN = "Permission denied|authentication|access denied|polkit"
NOT_CREATED = re.compile(r"(?:Failed to|Unable to|Cannot|cannot) create [^/']*'?(/[^':]*)")
SOCKET_PATH = re.compile(r"socket to '([^']+)'")
KVM_AT_START = "libvirt looks for KVM when it starts"


def explain_refusal(uri: str, error: Any) -> Unavailable:
    """Return the error for a libvirtError that a connection to this URI failed with."""
    message = error.get_error_message()
    remedy = _remedy(uri, error.get_error_code(), error.get_int1(), message)
    return Unavailable(f"libvirt at {uri.partition('?')[0]}: {message}", remedy)


def mend_missing_kvm(uri: str, emulator: str, daemons: Sequence[int]) -> str:
    """Return how the driver of this URI comes to offer KVM, on a machine whose /dev/kvm opens.

    daemons: the pids of the driver's daemon, as far as they are visible; none for the embedded driver.
    """
    if not _is_built_with_kvm(emulator):
        return f"{emulator} is built without KVM: {remedies.install('qemu-system-x86')}, or name a QEMU by --emulator"
    if _root_of(uri):
        return f"run `{emulator} -accel kvm -machine none -display none`: QEMU prints why it cannot use KVM"
    running = next(((pid, name) for pid in daemons if (name := program(pid)) in SOCKETS), None)
    if uri.endswith("/session"):
        command = f"kill {running[0]}" if running else "libvirtd --verbose"
        return f"run `{command}`: {KVM_AT_START}, and a session's daemon is started again by the next connection"
    name = running[1] if running else _installed("") or "libvirtd"
    return f"{format_service_command('restart', name)}: {KVM_AT_START}"


def format_service_command(verb: str, daemon: str) -> str:
    """Return the command that starts or restarts the system's daemon. verb: `start` or `restart`."""
    if slices.SYSTEMD.is_dir():
        if not any((folder / f"{daemon}.socket").exists() for folder in UNITS):
            return f"run `{remedies.install('libvirt-daemon-system')}`"
        # A socket unit does not restart while its service runs; the service starts its sockets with it.
        unit = f"{daemon}.socket" if verb == "start" else daemon
        return f"run `{remedies.prefix_sudo(f'systemctl {verb} {unit}')}`"
    if (INIT_SCRIPTS / daemon).exists():
        return f"run `{remedies.prefix_sudo(f'service {daemon} {verb}')}`"
    start = remedies.prefix_sudo(f"{daemon} --daemon")
    pid_file = Path("/run", f"{daemon}.pid")
    if verb == "restart" and pid_file.exists():
        return f"run `{remedies.prefix_sudo(f'kill $(cat {pid_file})')} && {start}`"
    return f"run `{start}`"


def _remedy(uri: str, code: int, number: int, message: str) -> str:
    """number: errno, or -1 where libvirt has none."""
    if code == NO_DRIVER:
        return f"run `{remedies.install('libvirt-daemon-driver-qemu', 'qemu-system-x86')}`"
    if "user record" in message:
        return f"run `{remedies.prefix_sudo(f'useradd --uid {os.geteuid()} weighbridge')}`: libvirt needs a user's name"
    if found := NOT_CREATED.search(message):
        return _other_folder(Path(found[1]), _root_of(uri))
    if uri.endswith("/session"):
        return _session(message)
    if _root_of(uri):
        return "run `LIBVIRT_LOG_OUTPUTS=1:stderr weighbridge doctor`: it shows libvirt's log"
    return _system(number, message)


def _system(number: int, message: str) -> str:
    daemon = _installed(message)
    if number == errno.EACCES or re.search(FORBIDDEN, message):
        return _permission(message)
    if daemon is None:
        return f"run `{remedies.install('libvirt-daemon-system')}`"
    return format_service_command("start" if number == errno.ENOENT else "restart", daemon)


def _permission(message: str) -> str:
    found = SOCKET_PATH.search(message)
    folder = Path(found[1]).parent if found else None
    if folder and folder.is_dir() and not os.access(folder, os.X_OK):  # libvirt's packages create it with mode 755
        return f"run `{remedies.prefix_sudo(f'chmod 755 {folder}')}`"
    try:
        gid = grp.getgrnam(GROUP).gr_gid
    except KeyError:
        return f"run `{limiting.format_root_command()}`"
    return (
        f"run `{limiting.format_root_command()}`"
        if gid in (os.getegid(), *os.getgroups())
        else remedies.join_group(GROUP)
    )


def _session(message: str) -> str:
    """The client library starts the session's daemon, unless there is none or it ends at once."""
    folders = (
        find_runtime_folder(),
        *(find_base_folder(name) / "libvirt" for name in ("XDG_CACHE_HOME", "XDG_CONFIG_HOME")),
    )
    for folder in folders:
        existing = next(path for path in (folder, *folder.parents) if path.exists())
        if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
            return _other_folder(folder, None)
    daemon = _installed(message)
    if daemon is None:
        return f"run `{remedies.install('libvirt-daemon')}`: it has the daemon that serves a session"
    return f"run `{daemon} --verbose`: it prints why the session's daemon does not start"


def _other_folder(path: Path, root: Path | None) -> str:
    """How a folder that cannot be created gets another place. root: that of the embedded driver."""
    if root and path.is_relative_to(root):
        variable = "WEIGHBRIDGE_STATE"
    elif runtime := os.environ.get("XDG_RUNTIME_DIR"):
        variable = "XDG_RUNTIME_DIR" if path.is_relative_to(runtime) else _base_variable(path)
    else:
        variable = _base_variable(path)
    return f"run `export {variable}=$(mktemp -d)`, or name there another folder that you can write"


def _base_variable(path: Path) -> str:
    """The variable that names the base of this folder; HOME where none does and the home cannot be written."""
    names = ("XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME")
    variable = next((name for name in names if path.is_relative_to(find_base_folder(name))), names[-1])
    return variable if os.environ.get(variable) or os.access(find_home(), os.W_OK | os.X_OK) else "HOME"


def _root_of(uri: str) -> Path | None:
    """The folder of the embedded driver; None for a daemon."""
    roots = parse_qs(urlparse(uri).query).get("root")
    return Path(roots[0]) if roots else None


def _installed(message: str) -> str | None:
    """The daemon whose socket a message names, if it is installed; else another one; None where there is none."""
    path = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
    found = [name for name in SOCKETS if shutil.which(name, path=path)]
    named = [name for name in found if f"/{SOCKETS[name]}'" in message]
    return next(iter((*named, *found)), None)


def _is_built_with_kvm(emulator: str) -> bool:
    try:
        return "kvm" in run([emulator, "-accel", "help"]).split()
    except CommandFailed:  # a QEMU without this option is no proof of either
        return True
