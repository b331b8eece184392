"""Remedies: for each thing that an ordinary user may lack, the command that provides it. Nothing here runs a command.

Each remedy is written here once, so `doctor`, `run`, the table and the report show the same text.
"""

from __future__ import annotations

import grp
import os
import pwd
import re
import shlex
import stat
from pathlib import Path

from harness import limiting

USER_NAMESPACE_REFUSED = (
    r"(?:unshare|bwrap|newuidmap|newgidmap): .*(?:unshare failed|new namespace|uid.?map|gid.?map|not permitted)"
)
"""Messages of unshare(1), bwrap(1) and newuidmap(1) when this user must not have a user namespace."""
SYSCTLS = Path("/proc/sys")
NAMESPACE_SYSCTLS = (  # name, the value that forbids user namespaces, the value that allows them
    ("kernel.apparmor_restrict_unprivileged_userns", "1", "0"),
    ("kernel.unprivileged_userns_clone", "0", "1"),
    ("user.max_user_namespaces", "0", "10000"),
)
SYSFS = Path("/sys/module")
CPUINFO = Path("/proc/cpuinfo")
UDEV = Path("/run/udev/control")
KVM_MODULES = {"vmx": "kvm_intel", "svm": "kvm_amd"}
NESTED = "`sudo modprobe kvm_intel nested=1` (or kvm_amd)"
KVM_IN_CONTAINER = "start this container with `docker run --device /dev/kvm`"
GROUP_MAY_USE = stat.S_IRGRP | stat.S_IWGRP


def join_group(group: str) -> str:
    """Return how the current user becomes a member of a group: the command, then a new login.

    A user who became a member after this session began only has to log in again.
    """
    user = get_user_name()
    if has_member(group, user):
        return f"log in again, or run `newgrp {group}`: this session began before {user} was in the group"
    return f"run `{prefix_sudo(f'usermod -aG {group} {user}')}`, then log in again"


def install(*packages: str) -> str:
    """Return the command that installs Debian packages."""
    return prefix_sudo(f"apt-get install {' '.join(packages)}")


def prefix_sudo(command: str) -> str:
    """Return a shell command with `sudo` in front, unless this user is root."""
    return command if os.geteuid() == 0 else f"sudo {command}"


def open_kvm(device: Path) -> str:
    """Return how this user gets access to /dev/kvm: by joining its group, or by its mode if no group has access.

    A udev rule survives the next boot; without udev, in most containers, the mode itself is changed.
    """
    if (group := find_group(device)) is not None:
        return join_group(group)
    if UDEV.exists():
        rule = 'KERNEL=="kvm", GROUP="kvm", MODE="0666", OPTIONS+="static_node=kvm"'
        return (
            f"run `echo '{rule}' | {prefix_sudo('tee /etc/udev/rules.d/99-kvm.rules')} && "
            f"{prefix_sudo('udevadm control --reload-rules')} && {prefix_sudo('udevadm trigger --name-match=kvm')}`"
        )
    return f"run `{prefix_sudo(f'chmod 666 {device}')}`"


def load_kvm() -> str:
    """Return how a machine without /dev/kvm gets it: by the kernel module for its CPU, or by a change outside of it.

    Source: the flags `vmx` (Intel), `svm` (AMD) and `hypervisor` (this machine is a guest) of /proc/cpuinfo.
    """
    flags = _cpu_flags()
    module = next((module for flag, module in KVM_MODULES.items() if flag in flags), None)
    if module is not None and (SYSFS / module).exists():
        return KVM_IN_CONTAINER
    if module is not None:
        return f"run `{prefix_sudo(f'modprobe {module}')}`"
    if "hypervisor" in flags:
        return (
            f"this is a virtual machine whose CPU has no virtualization extensions: on its host, run {NESTED} and give "
            "this machine the CPU model host-passthrough"
        )
    if flags:
        return "enable VT-x or AMD-V in this machine's firmware setup; if it has no such setting, use another machine"
    return "use a machine whose kernel has KVM: /proc/cpuinfo here shows no virtualization extensions"


def mend_kvm(verdict: Path) -> str:
    """Return how KVM comes to work where a guest failed under it. verdict: the file that keeps that result."""
    again = f"run `rm {shlex.quote(str(verdict))}`, so that KVM is tried again"
    if "hypervisor" in _cpu_flags():
        return f"this is a virtual machine: on its host, run {NESTED}; then {again}"
    upgrade = prefix_sudo("apt-get install --only-upgrade qemu-system-x86")
    return f"run `{upgrade}`, or name another kernel by --kernel; then {again}"


def allow_user_namespaces() -> str:
    """Return how to get user namespaces: by the sysctl that forbids them to ordinary users, else as root.

    Ubuntu 23.10 and newer restrict them by AppArmor, Debian up to 10 by a sysctl of its own. Root lacks them only in a
    container.
    """
    if os.geteuid() == 0:
        return "run outside this container, or start it with `docker run --privileged`"
    for name, forbids, allows in NAMESPACE_SYSCTLS:
        if _read(SYSCTLS / name.replace(".", "/")) == forbids:
            return f"run `{prefix_sudo(f'sysctl {name}={allows}')}`, or as root `{limiting.format_root_command()}`"
    return (
        f"run `{limiting.format_root_command()}`: the kernel or a container refuses user namespaces to ordinary users"
    )


def get_user_name() -> str:
    """Return the current user's name; `$USER`, for the shell to fill in, where the uid has no name."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return "$USER"


def find_group(path: Path) -> str | None:
    """Return the group whose members may read and write a device or socket; None if there is no such group.

    The group root is never returned: joining it would give far more than this one file.
    """
    try:
        status = path.stat()
        group = grp.getgrgid(status.st_gid).gr_name
    except (OSError, KeyError):
        return None
    return group if status.st_gid != 0 and status.st_mode & GROUP_MAY_USE == GROUP_MAY_USE else None


def has_member(group: str, user: str) -> bool:
    """Whether the user is in the group by the user database, regardless of this session's groups."""
    try:
        entry = grp.getgrnam(group)
        return user in entry.gr_mem or pwd.getpwnam(user).pw_gid == entry.gr_gid
    except KeyError:
        return False


def _cpu_flags() -> list[str]:
    found = re.search(r"^flags\s*:(.*)$", _read(CPUINFO) or "", re.MULTILINE)
    return found[1].split() if found else []


def _read(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None
