"""libvirt: its embedded driver, which needs no daemon, or on request the user's qemu:///system or qemu:///session.

The embedded driver serves one root folder in a process's life, and libvirt must not be called from a forked child.
"""

from __future__ import annotations

import json
import os
import pwd
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import parse_qs, urlparse

from harness import cgroup, places, remedies
from harness.backends import Unseen
from harness.command import CommandFailed, run
from harness.command import find as program
from harness.decode import Undecodable, decode_json
from harness.engines import (
    SOCKET_PATH_LIMIT,
    libvirt_apparmor,
    libvirt_remedies,
    libvirt_session,
    libvirt_traces,
    serving,
)
from harness.engines import libvirt_connection as connections
from harness.errors import EngineError, Unavailable
from harness.ledger import Ledger, remove_folder
from harness.model import Plan

URIS = ("qemu:///system", "qemu:///session")
DAEMONS = ("libvirtd", "virtqemud")
SOCKETS = ("/run/libvirt/libvirt-sock", "/run/libvirt/virtqemud-sock")
QEMU_USER = "libvirt-qemu"
LONGEST_SOCKET = "lib/qemu/domain-1000-weighbridge-20261123/monitor.sock"

# stdio_handler: no virtlogd. The others: the driver is to leave our files' owners, the cached ones' too, alone.
CONFIGURATION = """\
stdio_handler = "file"
dynamic_ownership = 0
remember_owner = 0
security_driver = "none"
namespaces = []
"""

_embedded: list[Path] = []
"""The root of the embedded driver in this process, once there is one."""


@dataclass(frozen=True)
class LibvirtEngine:
    """A libvirt driver. label: the uid and gid that QEMU runs as, where they are not ours."""

    uri: str
    whose: Literal["private", "user"]
    label: tuple[int, int] | None
    partition: str | None = None

    @property
    def connection(self) -> Any:
        return connections.get_connection(self.uri)

    def reconnect(self) -> None:
        """Reopen the connection if its daemon has ended. Raises Unavailable if that fails."""
        connections.reopen_if_dead(self.uri)

    @property
    def version(self) -> str:
        return _version(self.connection.getVersion())

    @property
    def libvirt_version(self) -> str:
        return _version(self.connection.getLibVersion())

    def kvm_refusal(self, emulator: str | None, architecture: str, machine: str) -> str | None:
        """Why libvirt itself does not offer KVM; None where it does, which proves nothing yet."""
        sdk = connections.load_sdk()
        try:
            self.connection.getDomainCapabilities(emulator, architecture, machine, "kvm")
        except sdk.libvirtError as error:
            return f"libvirt does not offer it: {error.get_error_message()}"
        return None

    def find_kvm_remedy(self, emulator: str) -> str:
        """Return how libvirt comes to offer KVM, by its driver and the daemon that runs."""
        daemons = self.daemons()
        return libvirt_remedies.mend_missing_kvm(self.uri, emulator, [] if isinstance(daemons, Unseen) else daemons)

    def give(self, *paths: Path) -> None:
        """Let the user that QEMU runs as write these files: as root by handing them over, else by their modes."""
        if self.label is None:
            return
        for path in paths:
            if os.geteuid() == 0:
                os.chown(path, *self.label)
            elif path.is_file():
                path.chmod(path.stat().st_mode | 0o006)

    def create(self, description: str) -> Any:
        """A new domain, paused. Raises EngineError with libvirt's own words."""
        sdk = connections.load_sdk()
        # A daemon ends the domains of a client that dies; the embedded driver, which dies too, refuses to promise it.
        flags = sdk.VIR_DOMAIN_START_PAUSED | (sdk.VIR_DOMAIN_START_AUTODESTROY if self.whose == "user" else 0)
        try:
            return self.connection.createXML(description, flags)
        except sdk.libvirtError as error:
            raise EngineError(f"libvirt: {error.get_error_message()}") from error

    def save(self, name: str, memory: Path) -> str:
        """Writes a running domain's state to a new file, and ends it; its XML. Raises EngineError."""
        sdk = connections.load_sdk()
        try:
            domain = self.connection.lookupByName(name)
            description: str = domain.XMLDesc(sdk.VIR_DOMAIN_XML_MIGRATABLE | sdk.VIR_DOMAIN_XML_SECURE)
            domain.save(str(memory))
        except sdk.libvirtError as error:
            raise EngineError(f"libvirt: {error.get_error_message()}") from error
        return description

    def restore(self, memory: Path, description: str, name: str) -> Any:
        """A domain that was saved, paused. Raises EngineError with libvirt's own words."""
        sdk = connections.load_sdk()
        try:
            self.connection.restoreFlags(str(memory), description, sdk.VIR_DOMAIN_SAVE_PAUSED)
            return self.connection.lookupByName(name)
        except sdk.libvirtError as error:
            raise EngineError(f"libvirt: {error.get_error_message()}") from error

    def ask(self, name: str, command: str, **arguments: Any) -> Any:
        """What a domain's QEMU answers over QMP. Raises EngineError for what it, or libvirt, refuses."""
        sdk = connections.load_sdk()
        import libvirt_qemu

        asked = json.dumps({"execute": command, "arguments": arguments})
        try:
            answer = decode_json(libvirt_qemu.qemuMonitorCommand(self.connection.lookupByName(name), asked, 0))
        except sdk.libvirtError as error:
            raise EngineError(f"libvirt: {error.get_error_message()}") from error
        except Undecodable as error:
            raise EngineError(f"QEMU's monitor returned invalid JSON for {command}: {error}") from error
        if "error" in answer:
            raise EngineError(f"QEMU's monitor: {answer['error']['desc']}")
        return answer["return"]

    def confines(self) -> bool:
        """Whether libvirt may confine QEMU by an AppArmor profile: only the system's daemon does."""
        return self.uri.endswith("/system")

    @contextmanager
    def choose_uuid(self, name: str) -> Iterator[str | None]:
        """Yield the UUID for a domain of that name; None: libvirt chooses it, and names no file after it."""
        if not self.confines():
            yield None
        elif os.geteuid() == 0:
            yield libvirt_apparmor.compute_uuid(name)
        else:
            with libvirt_apparmor.reserve_uuid() as uuid:
                yield uuid

    def metadata(self, name: str) -> tuple[Path, ...]:
        """What the driver keeps of a domain: its state, its log, its folder."""
        return libvirt_traces.of_domain(self.uri, name, self.connection.lookupByName(name).ID())

    def daemons(self) -> list[int] | Unseen:
        """The daemon's pid; none is needed under the embedded driver."""
        if self.whose == "private":
            return []
        session = libvirt_traces.find_runtime_folder()
        local = [str(session / Path(path).name) for path in SOCKETS] if self.uri.endswith("/session") else SOCKETS
        path = next((path for path in local if Path(path).is_socket()), None)
        return serving(path, DAEMONS) if path else Unseen("the daemon's socket is not where libvirt puts it")


@contextmanager
def find(plan: Plan, ledger: Ledger) -> Iterator[LibvirtEngine]:
    """The embedded driver, or where the plan says so a daemon of the user's. Raises Unavailable."""
    if plan.engines == "user" or plan.libvirt_uri is not None:
        uri = plan.libvirt_uri or ("qemu:///system" if os.geteuid() == 0 else "qemu:///session")
        with libvirt_session.hold_session(ledger, uri), connections.open_user_connection(plan, uri) as connection:
            label = _label(connection) if uri.endswith("/system") else None
            yield LibvirtEngine(uri, "user", label)
        return
    root = _embedded[0] if _embedded else ledger.folder / "vm"
    if len(f"{root}/{LONGEST_SOCKET}") > SOCKET_PATH_LIMIT:
        raise Unavailable(
            f"the path {root} is too long for QEMU's sockets", "name a shorter folder by WEIGHBRIDGE_STATE"
        )
    with (
        libvirt_traces.hold_traces(ledger),
        ledger.holding(remove_folder, path=str(root)),
        ledger.holding(libvirt_traces.end_emulators, root=str(root)),
    ):
        places.folder(root / "etc")
        (root / "etc/qemu.conf").write_text(CONFIGURATION + _runs_as())
        uri = f"qemu:///embed?root={root}"
        with _partition(ledger) as partition, connections.open_connection(uri) as connection:
            _embedded[:] = [root]
            label = _label(connection) if os.geteuid() == 0 else None
            yield LibvirtEngine(uri, "private", label, partition)


def _runs_as() -> str:
    """As root QEMU runs as the user that Debian made for it, or as root where that user may not open /dev/kvm.

    libvirt would then find KVM when it looks for it as root, miss it for the domain, and look anew, for a minute,
    at every start.
    """
    kvm = Path("/dev/kvm")
    if os.geteuid() != 0 or not kvm.exists():
        return ""
    try:
        user = pwd.getpwnam(QEMU_USER)
        argv = [program("setpriv", "util-linux"), "--reuid", str(user.pw_uid), "--regid", str(user.pw_gid)]
        run([*argv, "--init-groups", program("test", "coreutils"), "-r", kvm, "-a", "-w", kvm])
    except KeyError:
        raise Unavailable(
            f"there is no user {QEMU_USER}, whom libvirt looks up before it reads its configuration",
            remedies.install("libvirt-daemon-system"),
        ) from None
    except CommandFailed:
        return 'user = "root"\ngroup = "root"\n'
    return ""


@contextmanager
def _partition(ledger: Ledger) -> Iterator[str | None]:
    """Yield a partition of our own for the domains' control groups: libvirt's default, /machine, would stay behind.

    Its name has no dash: systemd names a slice after it, and a dash separates levels of the slice hierarchy.
    """
    if os.geteuid() != 0:
        yield None
        return
    name = ledger.name().replace("-", "_")
    with ledger.holding(libvirt_traces.remove_partition, name=name):
        cgroup.make_partition(f"{name}.partition")
        yield f"/{name}"


def destroy_domain(uri: str, name: str) -> None:
    """Destroys a domain by name; none there is fine, and so is an embedded driver's root that is gone."""
    roots = parse_qs(urlparse(uri).query).get("root", [])
    if roots and not Path(roots[0]).exists():
        return
    sdk = connections.load_sdk()
    with connections.open_connection(uri) as connection:
        try:
            connection.lookupByName(name).destroy()
        except sdk.libvirtError as error:
            if error.get_error_code() not in (sdk.VIR_ERR_NO_DOMAIN, sdk.VIR_ERR_OPERATION_INVALID):
                raise EngineError(f"libvirt: {error.get_error_message()}") from error
    if not roots:
        libvirt_traces.remove_log(uri, name)
        libvirt_apparmor.remove_profile(libvirt_apparmor.compute_uuid(name))


def resume(domain: Any) -> None:
    """Lets a paused domain run. Raises EngineError with libvirt's own words."""
    sdk = connections.load_sdk()
    try:
        domain.resume()
    except sdk.libvirtError as error:
        raise EngineError(f"libvirt: {error.get_error_message()}") from error


def _label(connection: Any) -> tuple[int, int] | None:
    """The uid and gid that QEMU runs as, from the driver's capabilities (secmodel dac, "+uid:+gid")."""
    for model in ET.fromstring(connection.getCapabilities()).iterfind("./host/secmodel"):
        if model.findtext("model") == "dac":
            uid, gid = (model.findtext("baselabel") or "+0:+0").split(":")
            return int(uid), int(gid)
    return None


def _version(number: int) -> str:
    return f"{number // 1_000_000}.{number // 1000 % 1000}.{number % 1000}"
