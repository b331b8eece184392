"""What libvirt keeps of a domain, and what it leaves behind: folders, logs, and the QEMUs of a driver that is gone."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from urllib.parse import parse_qs, urlparse

import psutil

from harness import cgroup
from harness.ledger import Ledger, exclusive, held, shared
from harness.process import end_all, told

MACHINE = r"(?P<machine>(?P<driver>qemu(?:-embed-[0-9a-f]+)?)-(?P<identity>\d+)-.+)"
GROUP = re.compile(rf"(?:machine-)?{MACHINE}\.(?:scope|libvirt-qemu)")
"""Name of a machine's control group: a scope of systemd-machined, or a group that libvirt created itself."""
BASE_FOLDERS = {"XDG_CACHE_HOME": ".cache", "XDG_CONFIG_HOME": ".config", "XDG_DATA_HOME": ".local/share"}
"""{variable: the folder below the home where it is not set}."""
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
        config, cache = find_base_folder("XDG_CONFIG_HOME"), find_base_folder("XDG_CACHE_HOME")
        return [config / "libvirt/qemu/lib", cache / "libvirt/qemu/log", find_runtime_folder() / "qemu/run"]
    [root] = parse_qs(urlparse(uri).query)["root"]
    return [Path(root, kind, "qemu") for kind in ("lib", "log", "run")]


def remove_log(uri: str, name: str) -> None:
    """A daemon keeps the log of a domain that is gone, for ever."""
    _, logs, _ = _folders(uri)
    with suppress(PermissionError):  # root's, for a user who may ask the system's daemon for domains
        (logs / f"{name}.log").unlink(missing_ok=True)


def find_base_folder(variable: str) -> Path:
    """Return the user's base folder for which the XDG base directory specification has this variable."""
    return Path(os.environ.get(variable) or find_home() / BASE_FOLDERS[variable])


def find_home() -> Path:
    """Return the user's home; the root folder, as GLib does, for a uid without a name and without $HOME."""
    try:
        return Path.home()
    except RuntimeError:
        return Path("/")


def find_runtime_folder() -> Path:
    """Return where libvirt has the sockets of this user's session."""
    return Path(os.environ.get("XDG_RUNTIME_DIR") or find_base_folder("XDG_CACHE_HOME"), "libvirt")


@contextmanager
def hold_traces(ledger: Ledger) -> Iterator[None]:
    """Hold the files that the embedded driver creates outside its root."""
    with ExitStack() as stack:
        with exclusive():
            stack.enter_context(ledger.holding(remove, campaign=ledger.campaign, paths=to_come()))
        yield


def to_come() -> list[str]:
    """What the embedded driver is going to leave outside its root, deepest first: libvirt's runtime folder is fixed.

    What is there because a campaign beside this one made it is both's, and the last one's to remove.
    """
    runtime = Path("/run/libvirt") if os.geteuid() == 0 else find_runtime_folder()
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
