"""libvirt through a daemon: an idle connection stays open, a dead one is reopened, a session is left unchanged.

The daemon is a real one, the session's of a user with a home of its own; its keepalive limit is 2 s in place of 30 s.
"""

from __future__ import annotations

import os
import re
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness.command import find
from harness.engines import libvirt_session
from harness.errors import Unavailable
from harness.ledger import remove_folder
from tests.ground import REPOSITORY

pytestmark = pytest.mark.engine

UID = 65534
TIMEOUT = 60.0
PONG = re.compile(r"RPC_KEEPALIVE_RECEIVED: .*proc=2")
CLOSED = "connection closed due to keepalive timeout"
PINGS_WITHIN_THE_LIMIT = 2
"""The limit is keepalive_interval x (keepalive_count + 1): a client that responds to a third ping has passed it."""

# A client that opens the connection, and then does one step for each line that it reads.
CLIENT = """
import sys, threading
from contextlib import ExitStack
from harness.engines import libvirt
from harness.ledger import Ledger
from harness.model import Plan

with Ledger() as ledger:
    with libvirt.find(Plan(engines="user"), ledger) as engine:
        print("open", flush=True)
        for step in sys.stdin:
            libvirt.destroy_domain(engine.uri, "no-such-domain")
            print("called", engine.libvirt_version, flush=True)
print("threads", *(each.name for each in threading.enumerate()))
"""


@dataclass(frozen=True)
class Session:
    """The folders of a user's session, and how a command runs in it."""

    folder: Path
    environment: dict[str, str]

    @property
    def runtime(self) -> Path:
        return self.folder / "run/libvirt"

    def argv(self, *argv: str) -> list[str]:
        if os.geteuid() != 0:
            return list(argv)
        return ["setpriv", "--reuid", str(UID), "--regid", str(UID), "--clear-groups", *argv]

    @contextmanager
    def client(self) -> Iterator[subprocess.Popen[str]]:
        argv = self.argv(sys.executable, "-c", CLIENT)
        with subprocess.Popen(
            argv, env=self.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        ) as popen:
            try:
                yield popen
            finally:
                popen.kill()

    @contextmanager
    def daemon(self) -> Iterator[Daemon]:
        """Yield a libvirtd that the user started, once it is ready."""
        ready = self.folder / "ready"
        log = "2:stderr"
        environment = {**self.environment, "NOTIFY_SOCKET": str(ready), "LIBVIRT_LOG_OUTPUTS": log}
        environment["LIBVIRT_LOG_FILTERS"] = "2:rpc.keepalive"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
            notify.bind(str(ready))
            ready.chmod(0o666)
            notify.settimeout(TIMEOUT)
            with subprocess.Popen(
                self.argv(find("libvirtd", "libvirt-daemon")), env=environment, stderr=subprocess.PIPE, text=True
            ) as popen:
                try:
                    while b"READY=1" not in notify.recv(4096):
                        pass
                    yield Daemon(popen)
                finally:
                    ready.unlink()
                    popen.terminate()
                    popen.communicate(timeout=TIMEOUT)

    def files(self) -> list[str]:
        return sorted(str(path.relative_to(self.folder)) for path in self.folder.rglob("*"))


class Daemon:
    def __init__(self, popen: subprocess.Popen[str]) -> None:
        self.popen = popen

    def until(self, *patterns: str | re.Pattern[str], count: int = 1) -> str:
        """Read the daemon's log until `count` lines matched one of the patterns; return the last of them."""
        assert self.popen.stderr is not None
        deadline = time.monotonic() + TIMEOUT
        seen = 0
        while select.select([self.popen.stderr], [], [], max(0.0, deadline - time.monotonic()))[0]:
            line = self.popen.stderr.readline()
            assert line, f"libvirtd ended with {self.popen.wait()}"
            if line.rstrip().endswith(CLOSED):
                return line
            seen += any(re.search(pattern, line) is not None for pattern in patterns)
            if seen == count:
                return line
        pytest.fail(f"libvirtd has not logged {patterns} within {TIMEOUT:g} s")


@pytest.fixture
def session() -> Iterator[Session]:
    try:
        find("libvirtd", "libvirt-daemon")
    except Unavailable as absent:
        pytest.skip(absent.reason)
    if os.geteuid() == 0 and not all(path.stat().st_mode & 0o5 == 0o5 for path in (REPOSITORY, *REPOSITORY.parents)):
        pytest.skip(f"{REPOSITORY} is not open to ordinary users")
    folder = Path(tempfile.mkdtemp(prefix="wb-", dir="/tmp"))
    try:
        folder.chmod(0o755)
        places = {"HOME": "home", "XDG_RUNTIME_DIR": "run", "XDG_CACHE_HOME": "cache", "XDG_CONFIG_HOME": "config"}
        for name in (*places.values(), "state", "config/libvirt"):
            (folder / name).mkdir()
        (folder / "config/libvirt/libvirtd.conf").write_text("keepalive_interval = 1\nkeepalive_count = 1\n")
        if os.geteuid() == 0:
            for path in (folder, *folder.rglob("*")):
                os.chown(path, UID, UID)
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("LIBVIRT_", "XDG_"))}
        environment |= {variable: str(folder / name) for variable, name in places.items()}
        environment |= {"WEIGHBRIDGE_STATE": str(folder / "state"), "PYTHONPATH": str(REPOSITORY)}
        yield Session(folder, environment)
    finally:
        remove_folder(str(folder))


def advance(popen: subprocess.Popen[str], step: str = "") -> str:
    """Have a client run its next step, and return the line that it prints."""
    assert popen.stdin is not None and popen.stdout is not None
    if step:
        popen.stdin.write(f"{step}\n")
        popen.stdin.flush()
    return popen.stdout.readline().strip()


def test_idle_connection_outlives_the_keepalive_limit(session: Session) -> None:
    with session.daemon() as daemon, session.client() as client:
        assert advance(client) == "open"
        daemon.until(PONG, count=PINGS_WITHIN_THE_LIMIT + 1)
        assert advance(client, "call").startswith("called")
        rest, _ = client.communicate(timeout=TIMEOUT)
        assert rest.split() == ["threads", "MainThread"]
        assert client.returncode == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_connection_of_a_restarted_daemon_is_reopened(session: Session, number: signal.Signals) -> None:
    with session.client() as client:
        with session.daemon() as daemon:
            assert advance(client) == "open"
            assert advance(client, "call").startswith("called")
            daemon.popen.send_signal(number)
            daemon.popen.wait(TIMEOUT)
        with session.daemon():
            assert advance(client, "call").startswith("called")
            assert advance(client, "call").startswith("called")
            client.communicate(timeout=TIMEOUT)
            assert client.returncode == 0


REAP = "from harness import ledger; print(*ledger.reap().values())"


@pytest.mark.parametrize("killed", [False, True])
def test_daemon_that_the_client_started_is_ended_with_its_folders(session: Session, killed: bool) -> None:
    (session.folder / "config/libvirt/libvirtd.conf").unlink()
    (session.folder / "config/libvirt").rmdir()
    (session.folder / "config").rmdir()
    (session.folder / "cache/theirs").mkdir()
    before = session.files()
    with session.client() as client:
        assert advance(client) == "open"
        pid = int((session.runtime / "libvirtd.pid").read_text())
        daemon = os.pidfd_open(pid)
        if killed:
            client.kill()
        client.communicate(timeout=TIMEOUT)
    if killed:
        assert reap(session) == "None"
    assert select.select([daemon], [], [], 0)[0], "the daemon that libvirt started for us still runs"
    os.close(daemon)
    assert session.files() == sorted([*before, "state/ledgers"])


def reap(session: Session) -> str:
    argv = session.argv(sys.executable, "-c", REAP)
    return subprocess.check_output(argv, env=session.environment, text=True, timeout=TIMEOUT).strip()


@pytest.mark.parametrize("first", ["leaves", "is killed", "is killed and reaped"])
def test_overlapping_campaigns_leave_nothing_of_the_session(session: Session, first: str) -> None:
    """The daemon and its folders, which the first campaign's connection created, go with the last campaign."""
    (session.folder / "config/libvirt/libvirtd.conf").unlink()
    (session.folder / "config/libvirt").rmdir()
    (session.folder / "config").rmdir()
    before = session.files()
    with session.client() as one:
        assert advance(one) == "open"
        daemon = os.pidfd_open(int((session.runtime / "libvirtd.pid").read_text()))
        with session.client() as two:
            assert advance(two) == "open"
            if first != "leaves":
                one.kill()
            one.communicate(timeout=TIMEOUT)
            if first == "is killed and reaped":
                assert reap(session) == "None"
            assert advance(two, "call").startswith("called")
            two.communicate(timeout=TIMEOUT)
            assert two.returncode == 0
    if first == "is killed":
        assert reap(session) == "None"
    assert select.select([daemon], [], [], 0)[0], "the daemon that libvirt started for us still runs"
    os.close(daemon)
    assert session.files() == sorted([*before, "state/ledgers"])


def test_daemon_of_the_user_is_left_running(session: Session) -> None:
    with session.daemon() as daemon, session.client() as client:
        assert advance(client) == "open"
        client.communicate(timeout=TIMEOUT)
        assert daemon.popen.poll() is None


def test_session_that_another_client_uses_is_left_running(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libvirt_session, "CLOSING_TIMEOUT", 0.0)
    with session.client() as other:
        assert advance(other) == "open"
        libvirt_session.release(str(session.runtime), [str(session.runtime)], [])
        assert advance(other, "call").startswith("called")
        other.communicate(timeout=TIMEOUT)
    assert not session.runtime.exists()


UNUSABLE = """
from harness.engines import libvirt
from harness.errors import Unavailable
from harness.ledger import Ledger
from harness.model import Plan

with Ledger() as ledger:
    try:
        with libvirt.find(Plan(engines="user", libvirt_uri="qemu:///session"), ledger):
            print("open")
    except Unavailable as error:
        print(error.hint)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize(
    ("uid", "closed", "remedy"),
    [
        (UID, "config", "run `export XDG_CONFIG_HOME=$(mktemp -d)`"),
        (UID, "cache", "run `export XDG_CACHE_HOME=$(mktemp -d)`"),
        (UID, "run", "run `export XDG_RUNTIME_DIR=$(mktemp -d)`"),
        (54321, None, "run `sudo useradd --uid 54321 weighbridge`"),
    ],
)
def test_session_that_cannot_be_used_has_the_remedy_of_its_cause(
    session: Session, uid: int, closed: str | None, remedy: str
) -> None:
    (session.folder / "config/libvirt/libvirtd.conf").unlink()
    (session.folder / "config/libvirt").rmdir()
    for path in session.folder.iterdir():
        os.chown(path, uid, uid)
    if closed:
        os.chown(session.folder / closed, 0, 0)
    argv = ["setpriv", "--reuid", str(uid), "--regid", str(uid), "--clear-groups", sys.executable, "-c", UNUSABLE]
    hint = subprocess.check_output(argv, env=session.environment, text=True, timeout=TIMEOUT)
    assert hint.startswith(remedy)
    assert hint.endswith(", or leave out --libvirt-uri and --engines user to use the embedded driver\n")
