"""The second try after a transient failure of an engine: which errors get one, for each engine, and its record."""

from __future__ import annotations

import json
import socket
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import docker as sdk
import pytest
import requests

from harness import cli, pace, preparation
from harness.backends import Image, docker_release
from harness.bundle import Bundle
from harness.engine_errors import is_transient
from harness.engines import docker_contact
from harness.engines import libvirt_connection as connections
from harness.errors import EngineError, StartTimeout, TransientFailure, Unavailable
from harness.ledger import Ledger
from harness.model import Plan
from harness.store import read
from tests import test_release_errors as fakes
from tests.ground import ground

VERSION = {"ApiVersion": "1.41", "Version": "20.10"}
INFO = {
    "Driver": "overlay2", "CgroupDriver": "cgroupfs", "CgroupVersion": "1", "SecurityOptions": [], "Runtimes": {},
    "DefaultRuntime": "runc", "DriverStatus": [],
}  # fmt: skip


def api_error(status: int) -> Exception:
    response = requests.Response()
    response.status_code = status
    return sdk.errors.APIError(f"{status} Error", response=response)


# Docker: an engine on a socket that fails once.


@contextmanager
def failing_once(path: Path, request: str, fault: str) -> Iterator[list[str]]:
    """Serve an engine whose first response to `request` is a fault: none ("silent"), a closed connection or a status.

    Yield the requests that it receives.
    """
    received: list[str] = []
    over = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name = self.path.rpartition("/")[2]
            received.append(name)
            if received.count(name) == 1 and name == request and fault != "status":
                if fault == "silent":
                    over.wait()
                self.close_connection = True
                return
            broken = received.count(name) == 1 and name == request
            body = json.dumps({"message": "restarting"} if broken else VERSION if name == "version" else INFO).encode()
            self.send_response(503 if broken else 200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Print nothing."""

        def address_string(self) -> str:
            return "a client"

    class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
        daemon_threads = True

    with Server(str(path), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield received
        finally:
            over.set()
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(
    ("request_name", "fault", "reason"),
    [
        ("version", "silent", "the engine does not answer within 0.3 s"),
        ("version", "closed", "Remote end closed connection"),
        ("version", "status", "503"),
        ("info", "silent", "ReadTimeout: "),
        ("info", "closed", "ConnectionError: "),
        ("info", "status", "APIError: 503"),
    ],
)
def test_probe_of_docker_that_fails_once_succeeds_and_is_recorded(
    monkeypatch: pytest.MonkeyPatch, request_name: str, fault: str, reason: str
) -> None:
    for module, floor, seconds in ((docker_contact, "ANSWER", 0.3), (docker_release, "CALL", 1.0)):
        monkeypatch.setattr(module, f"{floor}_FLOOR", seconds)
        monkeypatch.setattr(module, f"{floor}_FACTOR", 0.0)
    monkeypatch.setattr(pace, "_slowest", 0.001)
    with ground() as place:
        for name, value in place.environment.items():
            monkeypatch.setenv(name, value)
        path = place.folder / "docker.sock"
        plan = Plan(docker_host=f"unix://{path}", engines="user")
        with failing_once(path, request_name, fault), Ledger() as ledger, ExitStack() as stack:
            _, record = preparation.start_engine("docker", ledger, plan, stack)
    assert record.retried is not None and reason in record.retried
    assert (record.engine, record.version) == ("Docker", "20.10")


def test_probe_of_docker_that_is_not_there_is_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    with ground() as place:
        for name, value in place.environment.items():
            monkeypatch.setenv(name, value)
        plan = Plan(docker_host=f"unix://{place.folder}/docker.sock", engines="user")
        with Ledger() as ledger, ExitStack() as stack, pytest.raises(Unavailable) as absent:
            preparation.start_engine("docker", ledger, plan, stack)
    assert "tried twice" not in absent.value.reason


# The preparation of an image, of whichever engine.


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[list[Exception]], int]:
    """`weighbridge run` of one target whose preparation raises these errors, one each time."""

    def call(errors: list[Exception]) -> int:
        fake = fakes.install(monkeypatch, tmp_path)

        @contextmanager
        def prepare(self: fakes.Fake, built: Bundle, limits: object) -> Iterator[Image]:
            if errors:
                raise errors.pop(0)
            yield Image(built, self.plan.limits, ())

        monkeypatch.setattr(fake, "prepare", prepare)
        monkeypatch.setattr("sys.argv", ["weighbridge", "run", "--targets", "good", "--rounds", "1", "-o", "r.jsonl"])
        with pytest.raises(SystemExit) as end:
            cli.main()
        assert isinstance(end.value.code, int)
        return end.value.code

    return call


@pytest.mark.parametrize(
    "error",
    [
        requests.ReadTimeout("Read timed out."),
        requests.ConnectionError("Connection aborted."),
        api_error(500),
        StartTimeout("no READY within 180 s"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_preparation_that_fails_once_succeeds_and_is_recorded(
    call: Callable[[list[Exception]], int], error: Exception
) -> None:
    assert call([error]) == 0
    [image] = read(Path("r.jsonl")).images
    assert image.retried is not None and str(error) in image.retried


def test_preparation_that_fails_twice_is_recorded_with_both_reasons(call: Callable[[list[Exception]], int]) -> None:
    assert call([requests.ReadTimeout("Read timed out."), api_error(502), api_error(503)]) == 3
    [absent] = read(Path("r.jsonl")).unavailable
    assert (
        absent.reason
        == "APIError: 502 Server Error for None: None; at first: ReadTimeout: Read timed out. (tried twice)"
    )


def test_preparation_with_a_definite_error_is_not_repeated(call: Callable[[list[Exception]], int]) -> None:
    errors = [api_error(404), api_error(404)]
    assert call(errors) == 3 and len(errors) == 1


# The classification.


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "transient"),
    [
        (TransientFailure("no containerd", ""), True),
        (caused(Unavailable("does not answer within 10 s", ""), TimeoutError("timed out")), True),
        (caused(Unavailable("does not answer within 10 s", ""), BlockingIOError(11, "try again")), True),
        (caused(sdk.errors.DockerException("no API version"), requests.ReadTimeout("Read timed out.")), True),
        (ConnectionResetError(104, "Connection reset by peer"), True),
        (caused(Unavailable("no engine listens", ""), ConnectionRefusedError(111, "Connection refused")), False),
        (caused(Unavailable("no permission", ""), PermissionError(13, "Permission denied")), False),
        (Unavailable("not installed", "install it"), False),
        (api_error(409), False),
        (OSError(28, "No space left on device"), False),
        (EngineError("the engine imported nothing"), False),
        (ValueError("a bug"), False),
    ],
    ids=str,
)
def test_is_transient_classifies_errors_of_sockets_and_of_docker(error: Exception, transient: bool) -> None:
    assert is_transient(error) is transient


@pytest.mark.parametrize(
    ("daemon", "transient"), [("refuses", True), ("closes", True), ("is absent", False), ("answers with rubbish", True)]
)
def test_is_transient_classifies_errors_of_a_libvirt_connection(tmp_path: Path, daemon: str, transient: bool) -> None:
    pytest.importorskip("libvirt")
    libvirt = connections.load_sdk()
    path = tmp_path / "libvirt-sock"
    with socket.socket(socket.AF_UNIX) as server, ExitStack() as stack:
        if daemon != "is absent":
            server.bind(str(path))
        if daemon in ("closes", "answers with rubbish"):
            server.listen()
            reply = b"\xff" * 64 if daemon == "answers with rubbish" else b""
            thread = threading.Thread(target=serve_one, args=(server, reply))
            thread.start()
            stack.callback(thread.join)
        with pytest.raises(libvirt.libvirtError) as raised:
            libvirt.open(f"qemu+unix:///system?socket={path}")
    assert is_transient(raised.value) is transient
    assert is_transient(caused(Unavailable("libvirt at qemu:///system", ""), raised.value)) is transient


def serve_one(server: socket.socket, reply: bytes) -> None:
    connection, _ = server.accept()
    with connection:
        connection.recv(1)
        connection.sendall(reply)


def test_is_transient_does_not_take_an_error_of_a_domain_for_a_lost_connection() -> None:
    libvirt: Any = pytest.importorskip("libvirt")
    error = libvirt.libvirtError("internal error: process exited while connecting to monitor")
    error.err = (libvirt.VIR_ERR_INTERNAL_ERROR, libvirt.VIR_FROM_QEMU, str(error), 2, None, None, None, -1, -1)
    assert not is_transient(error)
    error.err = (
        libvirt.VIR_ERR_INTERNAL_ERROR,
        libvirt.VIR_FROM_RPC,
        "client socket is closed",
        2,
        *[None] * 3,
        -1,
        -1,
    )
    assert is_transient(error)
