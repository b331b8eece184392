"""Choose the Docker engine that the user means: the plan's, DOCKER_HOST's, or a Docker context's, as docker(1) does.

Source: docker/cli: cli/command/cli.go (resolveContextName: order of precedence), opts/hosts.go (forms of an address),
cli/context/store (contexts/meta/ID and contexts/tls/ID, where ID is the SHA-256 of the name). The SDK's ContextAPI is
not used: it ignores DOCKER_CONTEXT, and without a config.json it looks for contexts in the working directory.
"""

from __future__ import annotations

import hashlib
import ipaddress
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from harness.decode import Undecodable, decode_json
from harness.engines import SOCKET_PATH_LIMIT
from harness.errors import Unavailable
from harness.wording import line

DOCKER_SOCKET = "/var/run/docker.sock"
DEFAULT_CONTEXT = "default"
TCP_PORT = 2375
NO_TLS = "TLS is not supported: the engine must be reached by its Unix socket, or by TCP without TLS"


@dataclass(frozen=True)
class Choice:
    """The user's choice of an engine. text: for messages, without secrets. undo: how to remove the choice."""

    text: str
    undo: str


@dataclass(frozen=True)
class Endpoint:
    """The address of an engine on this machine, as the SDK takes it.

    choice: None for the default socket. context: the Docker context that has the address. note: why the user's Docker
    configuration was not used.
    """

    url: str
    choice: Choice | None = None
    context: str | None = None
    note: str | None = None

    @property
    def socket(self) -> str | None:
        """The path of its Unix socket; None for TCP."""
        return self.url.removeprefix("unix://") if self.url.startswith("unix://") else None


def choose(docker_host: str | None) -> Endpoint:
    """Return the engine that the user means. docker_host: the plan's. Raises Unavailable for an unusable address."""
    for text, name, undo in (
        (docker_host, "docker_host", "remove docker_host from the plan"),
        (os.environ.get("DOCKER_HOST"), "DOCKER_HOST", "unset DOCKER_HOST"),
    ):
        if text and text.strip():
            choice = Choice(f"{name}={format_address(text)}", undo)
            return Endpoint(_parse_choice(text, choice, tls=bool(os.environ.get("DOCKER_TLS_VERIFY"))), choice)
    current, note = _read_current_context()
    asked = os.environ.get("DOCKER_CONTEXT")
    context = asked or current or DEFAULT_CONTEXT
    if context == DEFAULT_CONTEXT:
        return Endpoint(f"unix://{DOCKER_SOCKET}", note=note)
    return _read_context(context, "unset DOCKER_CONTEXT" if asked else f"docker context use {DEFAULT_CONTEXT}")


def unusable(choice: Choice, why: str) -> Unavailable:
    """Return the error for an engine that the user named and that cannot be used."""
    return Unavailable(
        f"{choice.text}: {why}", f"{choice.undo}, or give --engines private" if os.geteuid() == 0 else choice.undo
    )


def format_address(address: str) -> str:
    """Return an address as one line of Unicode, with its password replaced by asterisks."""
    scheme, separator, rest = _to_line(address).partition("://")
    if not separator:
        scheme, rest = "", scheme
    user, at, host = rest.rpartition("@")
    if at and ":" in user:
        rest = f"{user.partition(':')[0]}:***@{host}"
    return f"{scheme}{separator}{rest}"


def parse_address(address: str, tls: bool = False) -> str:
    """Return the address of an engine on this machine, as the SDK takes it. Raises ValueError with the fault.

    tls: whether a TCP connection has to use TLS.
    """
    address = address.strip()
    if not address.isprintable():
        raise ValueError("the address has a character that cannot be printed")
    if re.fullmatch(r"[^/]+:\d+", address):
        address = f"tcp://{address}"
    scheme, separator, rest = address.partition("://")
    if not separator:
        raise ValueError(f"it is not a URL, such as unix://{DOCKER_SOCKET}")
    match scheme.lower():
        case "unix" | "http+unix":
            return f"unix://{_parse_socket_path(rest)}"
        case "https":
            raise ValueError(NO_TLS)
        case "tcp" | "http":
            return _parse_tcp_address(f"tcp://{rest}", tls)
        case "ssh":
            raise ValueError("ssh is not supported: the engine must run on this machine to share the doorbell's file")
        case other:
            raise ValueError(f"the scheme {other}:// is not supported, only unix:// and tcp://")


def _parse_socket_path(text: str) -> str:
    path = text or DOCKER_SOCKET
    if not path.startswith("/"):
        raise ValueError(f"the path of the socket is not absolute: unix:///{path} would be")
    if len(os.fsencode(path)) > SOCKET_PATH_LIMIT:
        raise ValueError(f"the path of the socket has more than {SOCKET_PATH_LIMIT} bytes")
    return path.rstrip("/") or "/"


def _parse_tcp_address(address: str, tls: bool) -> str:
    parts = urlsplit(address)
    if not parts.netloc:
        raise ValueError("it names no host")
    if "@" in parts.netloc:
        raise ValueError("it has a user name, which Docker engines do not accept")
    host = parts.hostname or "127.0.0.1"
    try:
        port = TCP_PORT if parts.port is None else parts.port
    except ValueError:
        port = 0
    if port == 0:
        raise ValueError("its port is not a number from 1 to 65535")
    if not _is_loopback(host):
        raise ValueError("it is not on this machine's loopback: an engine on another machine cannot share the doorbell")
    if tls:
        raise ValueError(NO_TLS)
    return f"tcp://{f'[{host}]' if ':' in host else host}:{port}{parts.path}"


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _parse_choice(address: str, choice: Choice, tls: bool) -> str:
    try:
        return parse_address(address, tls)
    except ValueError as error:
        raise unusable(choice, format_address(str(error))) from error


def _find_folder() -> Path | None:
    """Return the folder of the user's Docker configuration; None if the user has no home."""
    folder = os.environ.get("DOCKER_CONFIG") or os.path.expanduser("~/.docker")  # noqa: PTH111 Path's raises
    return None if folder.startswith("~") else Path(folder)


def _read_current_context() -> tuple[str | None, str | None]:
    """Return config.json's current context, and a note if that file was ignored (docker(1) ignores a broken one)."""
    folder = _find_folder()
    if folder is None:
        return None, None
    file = folder / "config.json"
    try:
        name = _read_object(file).get("currentContext")
    except (FileNotFoundError, NotADirectoryError):
        return None, None
    except (OSError, ValueError) as error:
        return None, f"{file} was ignored: {_describe_fault(error)}"
    if name is not None and not isinstance(name, str):
        return None, f"{file} was ignored: its currentContext is not a string"
    return name, None


def _read_context(name: str, undo: str) -> Endpoint:
    choice = Choice(f"Docker context {_to_line(name)!r}", undo)
    folder = (_find_folder() or Path("/nonexistent")) / "contexts"
    identity = hashlib.sha256(os.fsencode(name)).hexdigest()
    file = folder / "meta" / identity / "meta.json"
    try:
        host = _read_object(file)["Endpoints"]["docker"].get("Host") or f"unix://{DOCKER_SOCKET}"
        if not isinstance(host, str):
            raise TypeError
    except (FileNotFoundError, NotADirectoryError) as error:
        raise unusable(choice, f"there is no such context in {folder}") from error
    except (KeyError, TypeError, AttributeError) as error:
        raise unusable(choice, f"{file} describes no Docker endpoint") from error
    except (OSError, ValueError) as error:
        raise unusable(choice, f"{file} cannot be read: {_describe_fault(error)}") from error
    choice = Choice(f"{choice.text} ({format_address(host)})", undo)
    return Endpoint(
        _parse_choice(host, choice, tls=(folder / "tls" / identity / "docker").is_dir()), choice, context=_to_line(name)
    )


def _read_object(file: Path) -> dict[str, Any]:
    """Return the JSON object in a file. Raises OSError, or ValueError for any other content."""
    found = decode_json(file.read_text("utf-8"))
    if not isinstance(found, dict):
        raise ValueError("it is not a JSON object")
    return found


def _to_line(foreign: str) -> str:
    """Return text from outside as one line of Unicode: an environment variable may contain invalid UTF-8."""
    return line(foreign.encode("utf-8", "replace").decode())


def _describe_fault(error: OSError | ValueError) -> str:
    if isinstance(error, Undecodable | UnicodeDecodeError):
        return f"it is not JSON ({error})"
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
