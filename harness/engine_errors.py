"""Classify errors of engines and of their SDKs: which are an engine's at all, and after which a second try may succeed.

No SDK is imported here: an error of an SDK exists only in a process that has imported the SDK.
Source: requests.exceptions; Docker Engine API (status codes 5xx); libvirt, virterror.h, src/rpc/virnetsocket.c.
"""

from __future__ import annotations

import errno
import sys
from collections.abc import Iterator
from http import HTTPStatus

from harness.errors import StartTimeout, TransientFailure

SDKS = ("docker", "requests", "urllib3", "libvirt")
LOST = (errno.ECONNREFUSED, errno.ECONNRESET, errno.ECONNABORTED, errno.EPIPE, errno.EIO, errno.ETIMEDOUT, errno.EAGAIN)
"""Error numbers of libvirt for a connection that its daemon refused, closed or did not serve in time."""


def is_engine_error(error: BaseException) -> bool:
    """Whether an engine or its SDK failed, and not the user's input or a disk.

    The exceptions of requests and docker.errors.APIError are OSErrors too, without an error number.
    """
    if any(kind.__module__.partition(".")[0] in SDKS for kind in type(error).__mro__):
        return True
    if isinstance(error, ConnectionError | TimeoutError):
        return True
    return isinstance(error, OSError) and error.errno is None and error.filename is None


def is_transient(error: BaseException) -> bool:
    """Whether a second try may succeed after a probe or the preparation of an image raised this error.

    The explicit causes of the error count too: an Unavailable raised from a time-out is transient.
    """
    return any(_is_transient(each) for each in _list_causes(error))


def _list_causes(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__


def _is_transient(error: BaseException) -> bool:
    if isinstance(error, ConnectionRefusedError):  # by a socket of Docker's: no engine runs
        return False
    if isinstance(error, TransientFailure | StartTimeout | ConnectionError | TimeoutError | BlockingIOError):
        return True
    return _is_transient_in_docker(error) or _is_lost_libvirt_connection(error)


def _is_transient_in_docker(error: BaseException) -> bool:
    """Whether the engine did not respond in time, closed the connection, or responded with a status code 5xx."""
    requests = sys.modules.get("requests")
    if requests is None:
        return False
    if isinstance(error, requests.HTTPError):  # docker.errors.APIError is one
        return error.response is not None and bool(error.response.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR)
    return isinstance(error, requests.Timeout | requests.ConnectionError)


def _is_lost_libvirt_connection(error: BaseException) -> bool:
    libvirt = sys.modules.get("libvirt")
    if libvirt is None or not isinstance(error, libvirt.libvirtError):
        return False
    if error.get_error_domain() not in (libvirt.VIR_FROM_RPC, libvirt.VIR_FROM_REMOTE):
        return False
    code = error.get_error_code()
    if code == libvirt.VIR_ERR_SYSTEM_ERROR:
        return error.get_int1() in LOST
    # libvirt reports a connection that was closed, or that timed out, as an internal error of its RPC.
    return code in (libvirt.VIR_ERR_RPC, libvirt.VIR_ERR_INTERNAL_ERROR, libvirt.VIR_ERR_OPERATION_TIMEOUT)
