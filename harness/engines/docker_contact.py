"""Contact a Docker engine of the user's, and tell each way in which it cannot be used from the others, with a remedy.

Source: unix(7) and connect(2) for the errors of a socket; Docker Engine API, /version.
"""

from __future__ import annotations

import errno
import grp
import os
import shutil
import socket
import stat
from pathlib import Path
from urllib.parse import urlsplit

import docker as sdk
import requests
from docker.utils import version_lt

from harness import pace, remedies
from harness.engines import last_cause
from harness.engines.docker_endpoint import DOCKER_SOCKET, Endpoint, unusable
from harness.errors import Unavailable
from harness.wording import line

OLDEST_API = "1.30"
"""The first with the mounts that bind the doorbell: Docker 17.06."""
ANSWER_FLOOR = 10.0
ANSWER_FACTOR = 250.0
"""Of the deadline of an answer to /version: see pace.deadline."""
SYSTEM_SOCKETS = (DOCKER_SOCKET, "/run/docker.sock")


def reach(endpoint: Endpoint) -> None:
    """Return where an engine answers that can be used. Raises Unavailable with the reason and a remedy."""
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
        raise _unusable(endpoint, f"no permission to look for the socket {path}", "run as root") from error
    except (FileNotFoundError, NotADirectoryError) as error:
        why = f"there is no Docker socket {path} ({error.strerror})"
        raise _unusable(endpoint, why, _start(endpoint)) from error
    except OSError as error:
        raise _unusable(endpoint, f"{path}: {error.strerror}", _service("restart", endpoint)) from error
    if not stat.S_ISSOCK(about.st_mode):
        remedy = remedies.privileged(f"{'rmdir' if stat.S_ISDIR(about.st_mode) else 'rm'} {path}")
        raise _unusable(endpoint, f"{path} is not a socket", f"{remedy} && {_service('restart', endpoint)}")
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(timeout)
            connection.connect(path)
    except PermissionError as error:
        raise _forbidden(endpoint, path, about) from error
    except ConnectionRefusedError as error:
        why = f"no engine listens on the socket {path} (Connection refused)"
        raise _unusable(endpoint, why, _service("start", endpoint)) from error
    except (TimeoutError, BlockingIOError) as error:  # EAGAIN: the queue of connections is full
        raise _silent(endpoint, timeout) from error
    except OSError as error:
        why = f"cannot connect to {path}: {error.strerror}"
        raise _unusable(endpoint, why, _service("restart", endpoint)) from error


def _connect_tcp(endpoint: Endpoint, timeout: float) -> None:
    address = urlsplit(endpoint.url)
    try:
        socket.create_connection((address.hostname, address.port), timeout).close()
    except TimeoutError as error:
        raise _silent(endpoint, timeout) from error
    except OSError as error:
        why = f"no engine listens there ({error.strerror})" if error.errno == errno.ECONNREFUSED else error.strerror
        raise _unusable(endpoint, f"{why}", _service("start", endpoint)) from error


def _check_answer(endpoint: Endpoint, timeout: float) -> None:
    try:
        client = sdk.APIClient(base_url=endpoint.url, version=OLDEST_API, timeout=timeout)  # type: ignore[arg-type]
    except sdk.errors.DockerException as error:
        raise _unusable(
            endpoint, f"the address cannot be used: {last_cause(error)}", _service("restart", endpoint)
        ) from error
    except Exception as error:  # of whatever kind: the SDK reads the user's config.json without checking it
        why = f"the Docker SDK cannot use config.json of your Docker configuration ({type(error).__name__}: {error})"
        raise Unavailable(why, "correct ~/.docker/config.json, or point DOCKER_CONFIG to an empty folder") from error
    try:
        spoken = client.version(api_version=False)["ApiVersion"]
        too_old = version_lt(spoken, OLDEST_API)
    except (sdk.errors.APIError, requests.HTTPError) as error:
        told = getattr(error, "explanation", None) or str(error)
        status = getattr(error, "status_code", None)
        why = f"the engine answers with HTTP {status}: {line(str(told))}"
        raise _unusable(endpoint, why, _service("restart", endpoint)) from error
    except requests.Timeout as error:
        raise _silent(endpoint, timeout) from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        why = "what listens there is not a Docker engine: its /version has no ApiVersion"
        raise _unusable(endpoint, why, _service("restart", endpoint)) from error
    except requests.RequestException as error:
        why = f"what listens there does not answer as an engine does: {line(last_cause(error))}"
        raise _unusable(endpoint, why, _service("restart", endpoint)) from error
    finally:
        client.close()
    if too_old:
        why = f"the engine speaks version {spoken} of Docker's API, and {OLDEST_API} is the oldest that can be used"
        raise _unusable(endpoint, why, remedies.privileged("apt-get install docker.io"))


def _unusable(endpoint: Endpoint, why: str, remedy: str) -> Unavailable:
    """The error. remedy: for an engine that a service manager runs; one elsewhere is no longer to be named."""
    if endpoint.choice is None:
        return Unavailable(why, remedy)
    if endpoint.socket in SYSTEM_SOCKETS or _is_rootless(endpoint):
        return Unavailable(f"{endpoint.choice.text}: {why}", remedy)
    return unusable(endpoint.choice, why)


def _silent(endpoint: Endpoint, timeout: float) -> Unavailable:
    why = f"the engine does not answer within {timeout:.3g} s"
    return _unusable(endpoint, why, _service("restart", endpoint))


def _forbidden(endpoint: Endpoint, path: str, about: os.stat_result) -> Unavailable:
    """No permission to connect. The remedy depends on whether a group may, and on who is in it."""
    prefix = f"{endpoint.choice.text}: " if endpoint.choice else ""
    reason = f"{prefix}no permission to use the Docker socket {path}"
    name = _group_name(about.st_gid)
    if name is None or about.st_gid == 0 or not about.st_mode & stat.S_IWGRP or _is_in_session(about.st_gid):
        return Unavailable(reason, "run as root")
    if _is_member(about.st_gid):
        why = f"{reason}: you are in the group {name}, but this session began before you were"
        return Unavailable(why, remedies.join_group(name))
    return Unavailable(f"{reason}, which is for the group {name}", remedies.join_group(name))


def _group_name(gid: int) -> str | None:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return None


def _is_in_session(gid: int) -> bool:
    return gid in (os.getegid(), *os.getgroups())


def _is_member(gid: int) -> bool:
    """Whether the group database has this user in a group, whatever this session has."""
    return remedies.has_member(grp.getgrgid(gid).gr_name, remedies.user_name())


def _is_rootless(endpoint: Endpoint) -> bool:
    """Whether the socket is where this user's own engine has it."""
    return (endpoint.socket or "").startswith(f"/run/user/{os.geteuid()}/")


def _start(endpoint: Endpoint) -> str:
    """The command by which there is an engine."""
    there = shutil.which("dockerd", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")
    return _service("start", endpoint) if there else remedies.privileged("apt-get install docker.io")


def _service(verb: str, endpoint: Endpoint) -> str:
    """The command that starts or restarts the engine."""
    return f"systemctl --user {verb} docker" if _is_rootless(endpoint) else service(verb)


def service(verb: str) -> str:
    """The command that starts or restarts the system's engine."""
    systemd = Path("/run/systemd/system").is_dir()
    return remedies.privileged(f"systemctl {verb} docker" if systemd else f"service docker {verb}")
