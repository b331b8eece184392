"""What libvirt keeps of a domain, and what it leaves behind: folders, logs, and the QEMUs of a driver that is gone."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path
from urllib.parse import parse_qs, urlparse

import psutil

from harness import cgroup
from harness.ledger import held, shared
from harness.process import end_all, told

MACHINE = r"(?P<machine>(?P<driver>qemu(?:-embed-[0-9a-f]+)?)-(?P<identity>\d+)-.+)"
GROUP = re.compile(rf"(?:machine-)?{MACHINE}\.(?:scope|libvirt-qemu)")
"""Name of a machine's control group: a scope of systemd-machined, or a group that libvirt created itself."""
LONGEST_MACHINE = 64
SHORT_NAME = 20
"""Characters of a domain's name that libvirt takes into the names of its folders."""


def is_group_of(folder: str, identity: int, name: str) -> bool:
    """Whether libvirt made the control group of that name for the domain with this number and name.

    libvirt truncates a machine's name to 64 characters; the number, unique to the domain in its driver, comes before
    the domain's name. systemd writes a dash as \\x2d.
    Source: libvirt, src/hypervisor/domain_driver.c (virDomainDriverGenerateMachineName) and src/util/vircgroup.c.
    """
    found = GROUP.fullmatch(folder.replace(r"\x2d", "-"))
    if found is None or int(found["identity"]) != identity:
        return False
    whole = f"{found['driver']}-{identity}-{name}"
    return found["machine"] == whole[:LONGEST_MACHINE].rstrip("-.")


def of_domain(uri: str, name: str, identity: int) -> tuple[Path, ...]:
    """What the driver keeps of a domain of that name and number: its state, its log, its folder."""
    patterns = (f"{name}.*", f"domain-{identity}-{name[:SHORT_NAME]}")
    return tuple(
        path
        for folder in _folders(uri)
        if os.access(folder, os.R_OK)
        for pattern in patterns
        for path in folder.glob(pattern)
    )


def _folders(uri: str) -> list[Path]:
    """Where a driver keeps the state of its domains, their logs, and what is there only while they run."""
    if uri.endswith("/system"):
        return [Path("/var/lib/libvirt/qemu"), Path("/var/log/libvirt/qemu"), Path("/run/libvirt/qemu")]
    if uri.endswith("/session"):
        config = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
        runtime = Path(os.environ.get("XDG_RUNTIME_DIR") or cache_folder())
        return [config / "libvirt/qemu/lib", cache_folder() / "libvirt/qemu/log", runtime / "libvirt/qemu/run"]
    [root] = parse_qs(urlparse(uri).query)["root"]
    return [Path(root, kind, "qemu") for kind in ("lib", "log", "run")]


def remove_log(uri: str, name: str) -> None:
    """A daemon keeps the log of a domain that is gone, for ever."""
    _, logs, _ = _folders(uri)
    with suppress(PermissionError):  # root's, for a user who may ask the system's daemon for domains
        (logs / f"{name}.log").unlink(missing_ok=True)


def cache_folder() -> Path:
    """Return the base folder of this user's caches (XDG base directory specification)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")


def to_come() -> list[str]:
    """What the embedded driver is going to leave outside its root, deepest first: libvirt's runtime folder is fixed.

    What is there because a campaign beside this one made it is both's, and the last one's to remove.
    """
    if os.geteuid() == 0:
        runtime = Path("/run/libvirt")
    else:
        runtime = Path(os.environ.get("XDG_RUNTIME_DIR") or cache_folder(), "libvirt")
    shared = {path for _, what in held(remove) for path in what["paths"]}
    found = [runtime / "hostdevmgr", runtime / "common/system.token", runtime / "common", runtime]
    return [str(path) for path in found if str(path) in shared or not path.exists()]


@shared
def remove(campaign: str, paths: list[str]) -> None:
    """Removes what the embedded driver made outside its root, unless another campaign or a daemon uses it by now."""
    if any(other != campaign and what["paths"] for other, what in held(remove)):
        return
    for path in map(Path, paths):
        if path.is_dir() and not any(path.iterdir()):
            path.rmdir()
        elif path.is_file() and not any(beside.is_socket() for beside in path.parents[1].iterdir()):
            path.unlink()


def remove_partition(name: str) -> None:
    """Remove a partition: its control groups, and the slice that systemd keeps in their place where machined runs."""
    cgroup.remove(f"{name}{cgroup.PARTITION}")


def end_emulators(root: str) -> None:
    """Ends every QEMU of an embedded driver that is gone: those too that it asks what they can, and nobody lists."""

    def emulators() -> list[int]:
        lines = {pid: told(pid, "cmdline") for pid in psutil.pids()}
        below = f"{root}/".encode()
        return [pid for pid, line in lines.items() if line and b"qemu" in line[0] and below in b"\0".join(line)]

    end_all(emulators)
