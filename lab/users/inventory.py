"""List everything on a systemd machine that a campaign could leave behind, as lines that can be compared.

Run as root by the system's Python: only the standard library is there.
"""

from __future__ import annotations

import os
import pwd
import re
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

TIMEOUT = 120.0
FOLDERS = (
    *("/etc/apparmor.d", "/etc/docker", "/etc/libvirt", "/run", "/tmp", "/var/tmp", "/var/lib/containerd"),
    *("/var/lib/docker", "/var/lib/libvirt", "/var/lib/machines", "/var/lib/weighbridge", "/var/log/libvirt"),
    *("/var/cache/libvirt", "/etc/systemd", "/usr/local"),
)
HOMES = (".local/state/weighbridge", ".cache/libvirt", ".config/libvirt", ".config/systemd", ".docker")
PASSING = re.compile(
    r"/run/(systemd|udev|log|dbus|sudo|virtlogd\.pid$|user/\d+/(systemd|bus|gnupg|dbus-1))(/|$)|/run/(motd|utmp|sshd)"
    r"|/tmp/systemd-private-|/var/tmp/systemd-private-|/overlay2/l(/|$)"
    # libvirtd's cache of QEMU's capabilities, created at the first call.
    r"|/var/cache/libvirt/qemu/capabilities|/run/libvirt/.*(sock|pid)$"
    r"|/run/docker/|/run/containerd/io\.containerd|/tmp/uv-[\w-]+\.lock$|/var/tmp/pytest-of-"
)
"""Paths that systemd, sshd, dockerd, libvirtd, uv and pytest create for their own use."""
FIRST_USE = re.compile(
    r"/run/containerd/s$|/io\.containerd\.runtime\.v2\.task/moby$|/layerdb/(mounts|sha256|tmp)$|/weighbridge/ledgers$"
)
"""Folders that a daemon or the harness makes once and keeps. Their content is still listed."""
OWN_UNITS = re.compile(
    r"^(session-|user@|user-\d+|user-runtime-dir@|run-user-|ssh|dev-|sys-|apt-|systemd-|dpkg-|logrotate|man-db"
    r"|polkit|dbus|init\.scope|proc-sys|(machine|session)\.slice|virtlogd\.service)"
)
"""Units that come and go with logins, devices and timers, or stay after their first use by anybody.

machine.slice is systemd-machined's, for all machines; its socket starts virtlogd for libvirtd's first machine.
"""
SYSTEMDS_GROUPS = re.compile(
    r"/(user-\d+\.slice|user@\d+\.service|machine\.slice|session\.slice|virtlogd\.service)$|/app\.slice|/polkit|/dbus|/apt-"
)
SYSCTLS = (
    *("net/ipv4/ip_forward", "net/ipv4/conf/all/forwarding", "net/ipv6/conf/all/forwarding"),
    *("net/bridge/bridge-nf-call-iptables", "kernel/apparmor_restrict_unprivileged_userns"),
)
PROGRAMS = ("qemu-system", "containerd-shim", "dnsmasq", "unshare", "bwrap", "mmdebstrap", "weighbridge", "busybox")


def take(users: Sequence[str]) -> set[str]:
    """Return the inventory of the machine and of these users."""
    things = {*_units([]), *_cgroups(), *_network(), *_apparmor(), *_mounts(), *_processes()}
    for user in users:
        account = pwd.getpwnam(user)
        things |= {*_units(_as_user(account)), *_files([f"{account.pw_dir}/{name}" for name in HOMES])}
    return things | {*_files(FOLDERS), *_docker(), *_loop_devices()}


def _as_user(account: pwd.struct_passwd) -> list[str]:
    """Return the argv prefix of a command that queries the user's own manager."""
    if account.pw_uid == 0:
        return ["env"]
    bus = f"XDG_RUNTIME_DIR=/run/user/{account.pw_uid}"
    return ["setpriv", f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}", "--init-groups", "env", bus]


def _units(prefix: Sequence[str]) -> Iterator[str]:
    """Yield the loaded slices, scopes, services, sockets and mounts of the system's manager, or of a user's."""
    user = ["--user"] if prefix[:1] == ["setpriv"] else []
    kinds = "--type=slice,scope,service,socket,mount"
    listed = _output([*prefix, "systemctl", *user, "list-units", "--all", "--plain", "--no-legend", kinds])
    for line in listed.splitlines():
        name, _, active, *_ = line.split(maxsplit=3)
        if not OWN_UNITS.match(name) and active in ("active", "failed", "activating"):
            yield f"{'user ' if user else ''}unit: {name} {active}"


def _cgroups() -> Iterator[str]:
    for folder, below, _ in os.walk("/sys/fs/cgroup"):
        below[:] = [name for name in below if not re.match(r"session-\d+\.scope$|ssh|systemd-|init\.scope", name)]
        if not SYSTEMDS_GROUPS.search(folder):
            yield f"cgroup: {folder}"


def _network() -> Iterator[str]:
    for line in _output(["ip", "-o", "link"]).splitlines():
        yield f"link: {line.split(': ')[1].partition('@')[0]}"
    for line in _output(["nft", "list", "ruleset"]).splitlines():
        yield "nft: " + re.sub(r"packets \d+ bytes \d+", "", line).strip()
    for name in SYSCTLS:
        if (path := Path("/proc/sys", name)).exists():
            yield f"sysctl: {name} {path.read_text().strip()}"


def _apparmor() -> Iterator[str]:
    for line in Path("/sys/kernel/security/apparmor/profiles").read_text().splitlines():
        yield f"AppArmor profile: {line}"


def _mounts() -> Iterator[str]:
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        point, kind = line.split()[4], line.partition(" - ")[2].split()[0]
        if not re.match(r"/run/(user|systemd|credentials)/|/proc/sys/fs/binfmt_misc", point):
            yield f"mount: {point} {kind}"


def _processes() -> Iterator[str]:
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
        except OSError:  # it has ended
            continue
        name = Path(words[0].decode(errors="replace")).name
        if name.startswith(PROGRAMS):
            yield f"process: {b' '.join(words).decode(errors='replace')[:200]}"


def _files(folders: Sequence[str]) -> Iterator[str]:
    for top in folders:
        for folder, below, files in os.walk(top):
            below[:] = [name for name in below if not PASSING.search(f"{folder}/{name}")]
            for name in [*below, *files]:
                path = f"{folder}/{name}"
                if not PASSING.search(path) and not FIRST_USE.search(path):
                    yield f"file: {path}"


def _docker() -> Iterator[str]:
    for listing in (["image", "ls", "--quiet"], ["ps", "--all", "--quiet"], ["volume", "ls", "--quiet"]):
        yield from (f"docker {listing[0]}: {line}" for line in _output(["docker", *listing]).splitlines())


def _loop_devices() -> Iterator[str]:
    for device in Path("/sys/block").glob("loop*"):
        if (backing := device / "loop/backing_file").exists():
            yield f"loop device: {device.name} {backing.read_text().strip()}"


def _output(argv: Sequence[str]) -> str:
    """Return a command's standard output; "" if this machine lacks the program."""
    try:
        return subprocess.run(argv, capture_output=True, text=True, timeout=TIMEOUT, check=False).stdout
    except FileNotFoundError:
        return ""
