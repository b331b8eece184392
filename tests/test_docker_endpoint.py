"""Docker: the engine that the user means, and each reason why it cannot be used, with its remedy."""

from __future__ import annotations

import hashlib
import json
import os
import pwd
import shlex
import socket
import socketserver
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from harness.engines import docker, docker_contact, docker_endpoint
from harness.engines.docker_contact import reach
from harness.engines.docker_endpoint import choose, format_address, parse_address
from harness.errors import TransientFailure, Unavailable
from harness.ledger import Ledger
from harness.model import Plan
from tests.ground import REPOSITORY, Ground, ground

NOBODY = 65534
GROUP = 12
"""The gid of the group man, which every Debian has and which has no members."""
SYSTEM = f"unix://{docker_endpoint.DOCKER_SOCKET}"
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Ground]:
    """A home without a Docker configuration."""
    with ground() as here:
        for name in ("DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_CONFIG", "DOCKER_TLS_VERIFY"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("HOME", str(here.folder))
        yield here


# The address.


@pytest.mark.parametrize(
    ("address", "url"),
    [
        (" unix:///run/docker.sock \t", "unix:///run/docker.sock"),
        ("unix://", SYSTEM),
        ("unix:///run/docker.sock/", "unix:///run/docker.sock"),
        ("unix:///", "unix:///"),
        ("tcp://localhost:2375", "tcp://localhost:2375"),
        ("tcp://127.0.0.2:1", "tcp://127.0.0.2:1"),
        ("tcp://[::1]:2375", "tcp://[::1]:2375"),
        ("tcp://localhost", "tcp://localhost:2375"),
        ("tcp://:4000", "tcp://127.0.0.1:4000"),
        ("http://127.0.0.1:2375/", "tcp://127.0.0.1:2375/"),
        ("localhost:2375", "tcp://localhost:2375"),
    ],
)
def test_an_address_on_this_machine_is_taken(address: str, url: str) -> None:
    assert parse_address(address) == url


@pytest.mark.parametrize(
    ("address", "fault"),
    [
        ("rubbish", "not a URL"),
        ("/var/run/docker.sock", "not a URL"),
        ("unix://run/docker.sock", "not absolute"),
        ("unix:///" + "x" * 200, "more than 107 bytes"),
        ("unix:///a\nb", "cannot be printed"),
        ("unix:///a\udcff", "cannot be printed"),
        ("ssh://somebody@localhost", "ssh is not supported"),
        ("npipe:////./pipe/docker_engine", "npipe:// is not supported"),
        ("fd://", "fd:// is not supported"),
        ("https://localhost:2376", "TLS is not supported"),
        ("tcp://", "names no host"),
        ("tcp://localhost:none", "port"),
        ("tcp://localhost:0", "port"),
        ("tcp://localhost:99999", "port"),
        ("tcp://[::1", "Invalid IPv6"),
        ("tcp://somebody@localhost:2375", "user name"),
        ("tcp://192.0.2.1:2375", "not on this machine's loopback"),
        ("tcp://[2001:db8::1]:2375", "not on this machine's loopback"),
        ("http://docker.invalid", "not on this machine's loopback"),
    ],
)
def test_an_address_that_cannot_be_used_is_refused_with_its_fault(
    place: Ground, monkeypatch: pytest.MonkeyPatch, address: str, fault: str
) -> None:
    with pytest.raises(ValueError, match=fault):
        parse_address(address)
    with pytest.raises(Unavailable, match=fault) as refused:
        choose(address)
    assert refused.value.reason.isprintable()
    assert json.dumps(refused.value.reason, ensure_ascii=False).encode()  # it goes into a record
    assert "remove docker_host" in refused.value.hint


@pytest.mark.parametrize(
    "address",
    ["tcp://me:secret@localhost:1", "ssh://me:sec@ret@host", "me:secret@host:1", "tcp://me:secret/x@localhost",
     "unix://me:secret@x", "tcp://a:secret://b@c"],
)  # fmt: skip
def test_a_password_is_in_no_message(place: Ground, address: str) -> None:
    with pytest.raises(Unavailable) as refused:
        choose(address)
    assert "sec" not in refused.value.reason.replace("its socket", "")
    assert format_address("tcp://[::1]:2375") == "tcp://[::1]:2375"


def test_tls_that_the_environment_asks_for_is_refused(place: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")
    assert choose("unix:///s").url == "unix:///s"
    with pytest.raises(Unavailable, match="TLS is not supported"):
        choose("tcp://localhost:2376")


# Contexts.


def make_context(folder: Path, name: str, content: str) -> None:
    meta = folder / "contexts/meta" / hashlib.sha256(name.encode()).hexdigest()
    meta.mkdir(parents=True)
    (meta / "meta.json").write_text(content)


def described(host: Any) -> str:
    return json.dumps({"Name": "n", "Metadata": {}, "Endpoints": {"docker": {"Host": host, "SkipTLSVerify": False}}})


def test_the_order_of_precedence_is_that_of_the_docker_command(place: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (choose(None).url, choose(None).choice) == (SYSTEM, None)
    folder = place.folder / ".docker"
    make_context(folder, "rootless", described("unix:///run/user/1/docker.sock"))
    (folder / "config.json").write_text(json.dumps({"currentContext": "rootless"}))
    assert (choose(None).url, choose(None).context) == ("unix:///run/user/1/docker.sock", "rootless")
    monkeypatch.setenv("DOCKER_CONTEXT", "other")
    make_context(folder, "other", described("unix:///other.sock"))
    assert (choose(None).url, choose(None).context) == ("unix:///other.sock", "other")
    monkeypatch.setenv("DOCKER_HOST", "unix:///host.sock")
    assert (choose(None).url, choose(None).context) == ("unix:///host.sock", None)
    assert choose("unix:///plan.sock").url == "unix:///plan.sock"
    for unset in ("", "  "):
        monkeypatch.setenv("DOCKER_HOST", unset)
        assert choose("").context == "other"
    monkeypatch.setenv("DOCKER_CONTEXT", "default")
    assert (choose(None).url, choose(None).choice) == (SYSTEM, None)
    monkeypatch.setenv("DOCKER_CONTEXT", "")
    assert choose(None).context == "rootless"


def test_contexts_are_read_from_docker_config_alone(place: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder without config.json may have contexts; the configuration in the home folder is not used instead."""
    make_context(place.folder / ".docker", "mine", described("unix:///home.sock"))
    (place.folder / ".docker/config.json").write_text('{"currentContext": "mine"}')
    monkeypatch.setenv("DOCKER_CONFIG", str(place.folder / "elsewhere"))
    assert choose(None).url == SYSTEM
    make_context(place.folder / "elsewhere", "mine", described("unix:///elsewhere.sock"))
    monkeypatch.setenv("DOCKER_CONTEXT", "mine")
    assert choose(None).url == "unix:///elsewhere.sock"


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (None, "there is no such context"),
        ("", "not JSON"),
        ("{", "not JSON"),
        ("[]", "not a JSON object"),
        ("[" * 100_000, "nested too deeply|not JSON"),
        ("{}", "describes no Docker endpoint"),
        ('{"Endpoints": {}}', "describes no Docker endpoint"),
        ('{"Endpoints": []}', "describes no Docker endpoint"),
        ('{"Endpoints": {"docker": "x"}}', "describes no Docker endpoint"),
        ('{"Endpoints": {"docker": {"Host": 5}}}', "describes no Docker endpoint"),
        (described("ssh://me@elsewhere"), "ssh is not supported"),
        (described("tcp://192.0.2.1:2375"), "not on this machine's loopback"),
        (described("nonsense"), "not a URL"),
    ],
)
def test_a_context_that_cannot_be_used_is_refused_in_one_line(
    place: Ground, monkeypatch: pytest.MonkeyPatch, content: str | None, fault: str
) -> None:
    folder = place.folder / ".docker"
    folder.mkdir()
    if content is not None:
        make_context(folder, "there", content)
    (folder / "config.json").write_text('{"currentContext": "there"}')
    with pytest.raises(Unavailable, match=f"Docker context 'there'.*({fault})") as refused:
        choose(None)
    assert "docker context use default" in refused.value.hint
    monkeypatch.setenv("DOCKER_CONTEXT", "there")
    with pytest.raises(Unavailable, match=fault) as refused:
        choose(None)
    assert "unset DOCKER_CONTEXT" in refused.value.hint
    assert refused.value.reason.isprintable()


def test_a_context_with_certificates_is_refused(place: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    make_context(place.folder / ".docker", "tls", described("tcp://127.0.0.1:2376"))
    (place.folder / ".docker/contexts/tls" / hashlib.sha256(b"tls").hexdigest() / "docker").mkdir(parents=True)
    monkeypatch.setenv("DOCKER_CONTEXT", "tls")
    with pytest.raises(Unavailable, match="TLS is not supported"):
        choose(None)


@pytest.mark.parametrize("content", ["{", "[]", '{"currentContext": 5}'])
def test_a_broken_configuration_is_ignored_and_named_in_the_reason(
    place: Ground, monkeypatch: pytest.MonkeyPatch, content: str
) -> None:
    (place.folder / ".docker").mkdir()
    (place.folder / ".docker/config.json").write_text(content)
    assert choose(None).url == SYSTEM
    monkeypatch.setattr(docker_endpoint, "DOCKER_SOCKET", f"{place.folder}/none.sock")
    with pytest.raises(Unavailable, match=r"none\.sock.*config\.json was ignored"):
        reach(choose(None))


# The socket.


def refused_by(address: str | None) -> Unavailable:
    with pytest.raises(Unavailable) as refused:
        reach(choose(address))
    assert refused.value.reason.isprintable()
    return refused.value


@contextmanager
def listening(path: Path, kind: int = socket.SOCK_STREAM) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, kind) as bound:
        bound.bind(str(path))
        if kind == socket.SOCK_STREAM:
            bound.listen(1)
        yield bound


def test_each_fault_of_the_systems_socket_has_its_own_reason(place: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    path = place.folder / "docker.sock"
    monkeypatch.setattr(docker_endpoint, "DOCKER_SOCKET", str(path))
    missing = refused_by(None)
    assert f"there is no Docker socket {path}" in missing.reason
    assert missing.hint.endswith(("systemctl start docker", "service docker start", "apt-get install docker.io"))
    path.mkdir()
    folder = refused_by(None)
    assert "is not a socket" in folder.reason and f"rmdir {path}" in folder.hint
    path.rmdir()
    with listening(path):
        pass
    stale = refused_by(None)
    assert "Connection refused" in stale.reason
    assert stale.hint.endswith(("systemctl start docker", "service docker start"))
    path.unlink()
    with listening(path, socket.SOCK_DGRAM):
        assert "cannot connect" in refused_by(None).reason
    path.unlink()
    monkeypatch.setattr(docker_contact, "ANSWER_FLOOR", 0.2)
    monkeypatch.setattr(docker_contact, "ANSWER_FACTOR", 0.0)
    with listening(path):
        silent = refused_by(None)
    assert "does not answer within 0.2 s" in silent.reason
    assert silent.hint.endswith(("systemctl restart docker", "service docker restart"))


def test_no_engine_on_a_port(place: Ground) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        refused = refused_by(f"tcp://127.0.0.1:{bound.getsockname()[1]}")
    assert "no engine listens at this address (Connection refused)" in refused.reason
    assert "remove docker_host" in refused.hint


@contextmanager
def answering(path: Path, status: int, body: str) -> Iterator[None]:
    """A server on a Unix socket that sends this response to every request."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        def address_string(self) -> str:
            return "client"

        def log_message(self, format: str, *args: Any) -> None:
            return

    with socketserver.ThreadingUnixStreamServer(str(path), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(
    ("status", "body", "reason"),
    [
        (500, '{"message": "out of order"}', "HTTP 500: out of order"),
        (500, '{"error": "out of order"}', 'HTTP 500: {"error": "out of order"}'),
        (500, '["out of order"]', 'HTTP 500: ["out of order"]'),
        (500, '"out of order"', 'HTTP 500: "out of order"'),
        (500, "[" * 200_000, "HTTP 500: [["),
        (500, "", "HTTP 500: Internal Server Error"),
        (302, "{}", "HTTP 302"),
        (403, "no", "HTTP 403"),
        (200, "[" * 200_000, "not a Docker engine"),
        (200, '{"ApiVersion": "1.24"}', "API version is 1.24, but 1.30 or newer is needed"),
        (200, '{"ApiVersion": "1.9"}', "API version is 1.9, but 1.30 or newer is needed"),
        (200, "<html>", "not a Docker engine"),
        (200, "{}", "not a Docker engine"),
        (200, "[]", "not a Docker engine"),
        (200, '{"ApiVersion": "new"}', "not a Docker engine"),
        (200, '{"ApiVersion": 2}', "not a Docker engine"),
    ],
)
def test_an_engine_whose_answer_cannot_be_used(place: Ground, status: int, body: str, reason: str) -> None:
    path = place.folder / "docker.sock"
    with answering(path, status, body):
        refused = refused_by(f"unix://{path}")
    assert reason in refused.reason
    assert len(refused.reason) < 500
    assert str(path) in refused.reason
    assert "remove docker_host" in refused.hint


def test_an_engine_of_a_newer_version_is_reached(place: Ground) -> None:
    with answering(place.folder / "docker.sock", 200, '{"ApiVersion": "1.52", "MinAPIVersion": "1.44"}'):
        reach(choose(f"unix://{place.folder}/docker.sock"))


def test_a_configuration_that_the_sdk_cannot_use_is_named(place: Ground) -> None:
    (place.folder / ".docker").mkdir()
    (place.folder / ".docker/config.json").write_text("[]")
    with answering(place.folder / "docker.sock", 200, '{"ApiVersion": "1.41"}'):
        refused = refused_by(f"unix://{place.folder}/docker.sock")
    assert "config.json" in refused.reason and "config.json" in refused.hint


# Permission, which root always has.

ASK = """
import json, sys
from harness.engines import docker_endpoint
from harness.engines.docker import _users_docker
from harness.errors import Unavailable
from harness.model import Plan
docker_endpoint.DOCKER_SOCKET = sys.argv[1]
try:
    print(json.dumps({"whose": _users_docker(Plan(engines=sys.argv[2])).whose}))
except Unavailable as error:
    print(json.dumps({"reason": error.reason, "hint": error.hint}))
"""


AS_ROOT = f"sudo {shlex.quote(str(Path(sys.executable).with_name('weighbridge')))} run"


def asked_as_nobody(
    place: Ground, path: Path, engines: str = "auto", groups: str = "--clear-groups", prefix: tuple[str, ...] = ()
) -> Mapping[str, str]:
    """Return the owner or the error that `_users_docker` has for an ordinary user if `path` is the system's socket."""
    if not all(folder.stat().st_mode & 0o5 == 0o5 for folder in (REPOSITORY, *REPOSITORY.parents)):
        pytest.skip(f"{REPOSITORY} is not open to ordinary users")
    become = [*prefix, "setpriv", "--reuid", str(NOBODY), "--regid", str(NOBODY), groups]
    argv = [*become, sys.executable, "-P", "-c", ASK, str(path), engines]
    done = subprocess.run(argv, cwd=place.folder, capture_output=True, text=True, check=True, timeout=60)
    return dict(json.loads(done.stdout))


@pytest.mark.long
@root_only
def test_no_permission_names_the_group_that_has_it(place: Ground) -> None:
    path = place.folder / "docker.sock"
    with answering(path, 200, '{"ApiVersion": "1.41"}'):
        os.chown(path, 0, GROUP)
        path.chmod(0o660)
        told = asked_as_nobody(place, path)
        assert (
            f"no permission to use the Docker socket {path}: only members of the group man may use it" in told["reason"]
        )
        assert told["reason"].endswith("a private engine needs root")
        assert told["hint"] == f"run `sudo usermod -aG man {pwd.getpwuid(NOBODY).pw_name}`, then log in again"
        assert "private" not in asked_as_nobody(place, path, "user")["reason"]
        assert asked_as_nobody(place, path, groups=f"--groups={GROUP}") == {"whose": "user"}
        path.chmod(0o600)
        closed = asked_as_nobody(place, path, groups=f"--groups={GROUP}")
        assert "no permission to use" in closed["reason"] and closed["hint"] == AS_ROOT
        place.folder.chmod(0o700)
        hidden = asked_as_nobody(place, path)
        assert "no permission to look for the socket" in hidden["reason"] and hidden["hint"] == AS_ROOT


@root_only
def test_a_member_whose_session_is_older_is_sent_to_log_in_again(place: Ground) -> None:
    path, groups = place.folder / "docker.sock", place.folder / "group"
    groups.write_text(f"man:x:{GROUP}:nobody\nnogroup:x:{NOBODY}:\n")
    bound = f'mount --bind {groups} /etc/group && exec "$@"'
    with listening(path):
        os.chown(path, 0, GROUP)
        path.chmod(0o660)
        told = asked_as_nobody(place, path, prefix=("unshare", "--mount", "sh", "-c", bound, "sh"))
    assert "you are in the group man, but this session is older" in told["reason"]
    assert told["hint"].startswith("log in again, or run `newgrp man`")


@root_only
def test_a_folder_that_an_ordinary_user_cannot_look_into(place: Ground) -> None:
    (place.folder / "closed").mkdir(mode=0o700)
    with listening(place.folder / "closed/docker.sock"):
        told = asked_as_nobody(place, place.folder / "closed/docker.sock")
    assert "no permission to look for the socket" in told["reason"]


@root_only
def test_an_ordinary_user_without_a_socket_is_given_both_reasons(place: Ground) -> None:
    told = asked_as_nobody(place, place.folder / "none.sock")
    assert "there is no Docker socket" in told["reason"] and "a private engine needs root" in told["reason"]
    assert told["hint"].startswith("sudo ")


def test_a_private_engine_for_an_ordinary_user_names_the_option_in_the_reason(
    place: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(docker, "_users_docker", lambda plan: pytest.fail("it was asked"))
    with (
        Ledger() as ledger,
        pytest.raises(Unavailable) as refused,
        docker.find(Plan(engines="private"), ledger, {}),
    ):
        pass
    assert "needs root" in refused.value.reason
    assert "--engines private excludes" in refused.value.reason
    assert "leave out --engines private" in refused.value.hint


def test_root_gets_a_private_engine_unless_another_was_named(place: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(docker_endpoint, "DOCKER_SOCKET", f"{place.folder}/none.sock")
    assert docker._users_docker(Plan()) is None
    with pytest.raises(Unavailable, match=r"none\.sock"):
        docker._users_docker(Plan(engines="user"))
    monkeypatch.setenv("DOCKER_CONTEXT", "there is none")
    with pytest.raises(Unavailable, match="there is no such context"):
        docker._users_docker(Plan())


# The start of a private engine.


@pytest.mark.parametrize(
    ("said", "transient"),
    [
        ("failed to start containerd: timeout waiting for containerd to start", True),
        ("failed to start daemon: Error initializing network controller: iptables not found", False),
    ],
)
def test_transient_start_failure_has_its_own_type(
    place: Ground, monkeypatch: pytest.MonkeyPatch, said: str, transient: bool
) -> None:
    monkeypatch.setenv("WEIGHBRIDGE_STATE", str(place.folder / "state"))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(docker, "find_program", lambda program, package: program)
    monkeypatch.setattr(docker, "_dockerd", lambda folder, group: ["sh", "-c", 'echo "$0" >&2; exit 1', said])
    with Ledger() as ledger, pytest.raises(Unavailable) as refused, docker._private_docker(ledger, {}):
        pass
    assert said in refused.value.reason
    assert isinstance(refused.value, TransientFailure) == transient
    assert refused.value.hint.endswith(("systemctl start docker", "service docker start"))
    assert "doctor" not in refused.value.hint


def test_a_start_that_takes_too_long_has_a_deadline_of_this_machine(
    place: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WEIGHBRIDGE_STATE", str(place.folder / "state"))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(docker, "find_program", lambda program, package: program)
    monkeypatch.setattr(docker, "_dockerd", lambda folder, group: ["sleep", "600"])
    monkeypatch.setattr(docker, "START_FLOOR", 0.1)
    monkeypatch.setattr(docker, "START_FACTOR", 0.0)
    with (
        Ledger() as ledger,
        pytest.raises(TransientFailure, match="was not ready within"),
        docker._private_docker(ledger, {}),
    ):
        pass
