"""Contact the user's Docker engine. Each way in which it cannot be used has a reason and a remedy of its own.

Source: unix(7) and connect(2) for the errors of a socket; Docker Engine API, /version.
"""

from __future__ import annotations

import errno
import grp
import os
import shutil
import socket
import stat
from http import HTTPStatus
from pathlib import Path
from urllib.parse import urlsplit

import docker as sdk
import requests
from docker.utils import version_lt

from harness import limiting, pace, remedies
from harness.decode import Undecodable, decode_json
from harness.engines import last_cause
from harness.engines.docker_endpoint import DOCKER_SOCKET, Endpoint, unusable
from harness.errors import Unavailable
from harness.wording import line

OLDEST_API = "1.30"
"""The first API version with the mounts that the doorbell needs: Docker 17.06."""
ANSWER_FLOOR = 10.0
ANSWER_FACTOR = 250.0
"""Floor in seconds and factor of pace.deadline, for the response to /version."""
LONGEST_MESSAGE = 200
"""Characters of an engine's error message that are shown."""
SYSTEM_SOCKETS = (DOCKER_SOCKET, "/run/docker.sock")


def reach(endpoint: Endpoint) -> None:
    """Check that a usable engine listens at the endpoint. Raises Unavailable with the reason and a remedy."""
    timeout = pace.deadline(ANSWER_FLOOR, ANSWER_FACTOR)
    try:
        if endpoint.socket:
            _connect_unix(endpoint, endpoint.socket, timeout)
        else:
            _connect_tcp(endpoint, timeout)
        _check_answer(endpoint, timeout)
    except Unavailable as error:
        if endpoint.note is None:
            raise
        raise Unavailable(f"{error.reason} ({endpoint.note})", error.hint) from error


def _connect_unix(endpoint: Endpoint, path: str, timeout: float) -> None:
    try:
        about = Path(path).stat()
    except PermissionError as error:
        raise _unusable(
            endpoint, f"no permission to look for the socket {path}", limiting.format_root_command()
        ) from error
    except (FileNotFoundError, NotADirectoryError) as error:
        why = f"there is no Docker socket {path} ({error.strerror})"
        raise _unusable(endpoint, why, _suggest_start(endpoint)) from error
    except OSError as error:
        raise _unusable(endpoint, f"{path}: {error.strerror}", _format_service_command("restart", endpoint)) from error
    if not stat.S_ISSOCK(about.st_mode):
        remedy = remedies.prefix_sudo(f"{'rmdir' if stat.S_ISDIR(about.st_mode) else 'rm'} {path}")
        restart = _format_service_command("restart", endpoint)
        raise _unusable(endpoint, f"{path} is not a socket", f"{remedy} && {restart}")
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(timeout)
            connection.connect(path)
    except PermissionError as error:
        raise _forbidden(endpoint, path, about) from error
    except ConnectionRefusedError as error:
        why = f"no engine listens on the socket {path} (Connection refused)"
        raise _unusable(endpoint, why, _format_service_command("start", endpoint)) from error
    except (TimeoutError, BlockingIOError) as error:  # EAGAIN: the queue of connections is full
        raise _silent(endpoint, timeout) from error
    except OSError as error:
        why = f"cannot connect to {path}: {error.strerror}"
        raise _unusable(endpoint, why, _format_service_command("restart", endpoint)) from error


def _connect_tcp(endpoint: Endpoint, timeout: float) -> None:
    address = urlsplit(endpoint.url)
    try:
        socket.create_connection((address.hostname, address.port), timeout).close()
    except TimeoutError as error:
        raise _silent(endpoint, timeout) from error
    except OSError as error:
        why = (
            f"no engine listens at this address ({error.strerror})"
            if error.errno == errno.ECONNREFUSED
            else error.strerror
        )
        raise _unusable(endpoint, f"{why}", _format_service_command("start", endpoint)) from error


def _check_answer(endpoint: Endpoint, timeout: float) -> None:
    try:
        client = sdk.APIClient(base_url=endpoint.url, version=OLDEST_API, timeout=timeout)  # type: ignore[arg-type]
    except sdk.errors.DockerException as error:
        raise _unusable(
            endpoint, f"the address cannot be used: {last_cause(error)}", _format_service_command("restart", endpoint)
        ) from error
    except Exception as error:  # any type: the SDK reads the user's config.json without checking it
        why = f"the Docker SDK cannot use config.json of your Docker configuration ({type(error).__name__}: {error})"
        raise Unavailable(why, "correct ~/.docker/config.json, or point DOCKER_CONFIG to an empty folder") from error
    client.hooks["response"] = [_check_response]
    try:
        spoken = client.version(api_version=False)["ApiVersion"]
        too_old = version_lt(spoken, OLDEST_API)
    except requests.HTTPError as error:
        raise _unusable(
            endpoint, f"the engine answers with {error}", _format_service_command("restart", endpoint)
        ) from error
    except requests.Timeout as error:
        raise _silent(endpoint, timeout) from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        why = "the server at this address is not a Docker engine: its /version has no ApiVersion"
        raise _unusable(endpoint, why, _format_service_command("restart", endpoint)) from error
    except requests.RequestException as error:
        why = f"the server at this address does not respond like a Docker engine: {line(last_cause(error))}"
        raise _unusable(endpoint, why, _format_service_command("restart", endpoint)) from error
    finally:
        client.close()
    if too_old:
        why = f"the engine's API version is {spoken}, but {OLDEST_API} or newer is needed"
        raise _unusable(endpoint, why, remedies.prefix_sudo("apt-get install docker.io"))


def _check_response(response: requests.Response, **_: object) -> None:
    """Raise HTTPError for a status other than 200, and Undecodable for a body that is not JSON or nests too deeply.

    The SDK would decode the body of an error before it looks at the status, and at any depth.
    """
    if response.status_code == HTTPStatus.OK:
        decode_json(response.content)
        return
    try:
        message = decode_json(response.content)["message"]
    except (Undecodable, KeyError, TypeError, IndexError):
        message = response.content.decode(errors="replace")
    shown = line(str(message)) or response.reason
    excerpt = shown if len(shown) <= LONGEST_MESSAGE else f"{shown[:LONGEST_MESSAGE]}..."
    raise requests.HTTPError(f"HTTP {response.status_code}: {excerpt}", response=response)


def _unusable(endpoint: Endpoint, why: str, remedy: str) -> Unavailable:
    """Return the error. remedy: for an engine that a service manager runs; others must no longer be named."""
    if endpoint.choice is None:
        return Unavailable(why, remedy)
    if endpoint.socket in SYSTEM_SOCKETS or _is_rootless(endpoint):
        return Unavailable(f"{endpoint.choice.text}: {why}", remedy)
    return unusable(endpoint.choice, why)


def _silent(endpoint: Endpoint, timeout: float) -> Unavailable:
    why = f"the engine does not answer within {timeout:.3g} s"
    return _unusable(endpoint, why, _format_service_command("restart", endpoint))


def _forbidden(endpoint: Endpoint, path: str, about: os.stat_result) -> Unavailable:
    """Return the error for a forbidden socket. The remedy depends on the socket's group and its members."""
    prefix = f"{endpoint.choice.text}: " if endpoint.choice else ""
    reason = f"{prefix}no permission to use the Docker socket {path}"
    name = _find_group_name(about.st_gid)
    if name is None or about.st_gid == 0 or not about.st_mode & stat.S_IWGRP or _is_in_session(about.st_gid):
        return Unavailable(reason, limiting.format_root_command())
    if _is_member(about.st_gid):
        why = f"{reason}: you are in the group {name}, but this session is older than your membership"
        return Unavailable(why, remedies.join_group(name))
    return Unavailable(f"{reason}: only members of the group {name} may use it", remedies.join_group(name))


def _find_group_name(gid: int) -> str | None:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return None


def _is_in_session(gid: int) -> bool:
    return gid in (os.getegid(), *os.getgroups())


def _is_member(gid: int) -> bool:
    """Whether the user is in the group by the user database, regardless of this session's groups."""
    return remedies.has_member(grp.getgrgid(gid).gr_name, remedies.get_user_name())


def _is_rootless(endpoint: Endpoint) -> bool:
    """Whether the socket is in the folder of this user's own (rootless) engine."""
    return (endpoint.socket or "").startswith(f"/run/user/{os.geteuid()}/")


def _suggest_start(endpoint: Endpoint) -> str:
    """Return the command that starts the engine, or that installs it if there is no dockerd."""
    there = shutil.which("dockerd", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")
    return _format_service_command("start", endpoint) if there else remedies.prefix_sudo("apt-get install docker.io")


def _format_service_command(verb: str, endpoint: Endpoint) -> str:
    """Return the command that starts or restarts the engine."""
    return f"systemctl --user {verb} docker" if _is_rootless(endpoint) else format_service_command(verb)


def format_service_command(verb: str) -> str:
    """Return the command that starts or restarts the system's engine."""
    systemd = Path("/run/systemd/system").is_dir()
    return remedies.prefix_sudo(f"systemctl {verb} docker" if systemd else f"service docker {verb}")
