"""Connections to libvirt, one for each URI and process: shared, kept alive, and reopened when their daemon has ended.

A daemon pings its clients and closes the connection of a client that does not respond, after 30 s by default
(keepalive_interval and keepalive_count in libvirtd.conf). libvirt's client library responds from its event loop only,
so a thread runs the loop while a connection to a daemon is open. The embedded driver runs in our own process.

libvirt must not be called from a forked child.
Source: libvirt, src/rpc/virkeepalive.c; libvirt-host.html (virConnectSetKeepAlive, virConnectIsAlive).
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Self

from harness import remedies
from harness.engines import libvirt_remedies
from harness.errors import Unavailable
from harness.model import Plan

LOG_VARIABLE = "LIBVIRT_LOG_OUTPUTS"

_connections: dict[str, Any] = {}


def load_sdk() -> Any:
    """Import the module libvirt and prepare it for connections. Raises Unavailable if it is not installed."""
    # The embedded driver logs in our own process: its warnings would end up on the user's terminal. It reads the
    # variable when it is loaded; no program that we start must inherit it.
    unset = LOG_VARIABLE not in os.environ
    os.environ.setdefault(LOG_VARIABLE, "4:file:/dev/null")
    try:
        import libvirt
    except ImportError as error:
        raise Unavailable(
            f"libvirt-python is not installed: {error}",
            f"{remedies.install('libvirt-dev', 'pkg-config', 'gcc', 'python3-dev')}, then install the extra `libvirt`",
        ) from error
    finally:
        if unset:
            del os.environ[LOG_VARIABLE]
    if not _connections:
        # The event loop must be registered before a connection opens, for the embedded driver too.
        libvirt.virEventRegisterDefaultImpl()
        # libvirt prints each error to stderr unless it has a handler; the errors are raised anyway.
        libvirt.registerErrorHandler(lambda _context, _error: None, None)
    return libvirt


@contextmanager
def open_connection(uri: str) -> Iterator[Any]:
    """Yield the connection to a URI: the open one, reopened if its daemon has ended; else a new one for the block.

    Raises Unavailable if libvirt cannot be reached at that URI.
    """
    if uri in _connections:
        yield reopen_if_dead(uri)
        return
    with ExitStack() as stack:
        libvirt = load_sdk()
        if not is_embedded(uri):
            stack.enter_context(_events)
        _connections[uri] = _open(libvirt, uri)
        try:
            yield _connections[uri]
        finally:
            _connections.pop(uri).close()


@contextmanager
def open_user_connection(plan: Plan, uri: str) -> Iterator[Any]:
    """Yield the connection to a daemon that the plan asks for. Raises Unavailable with the options to leave out."""
    load_sdk()  # its absence is not changed by leaving out an option
    options = {"--libvirt-uri": plan.libvirt_uri is not None, "--engines user": plan.engines == "user"}
    named = " and ".join(option for option, given in options.items() if given)
    with ExitStack() as stack:
        try:
            connection = stack.enter_context(open_connection(uri))
        except Unavailable as error:
            hint = f"{error.hint}, or leave out {named} to use the embedded driver"
            raise Unavailable(error.reason, hint, error.detail) from error
        yield connection


def get_connection(uri: str) -> Any:
    """Return the connection of an `open_connection` block unchecked. It may be dead; a call then raises libvirtError.

    A launch uses this one: a reopened connection would add its own time to the launch.
    """
    return _connections[uri]


def reopen_if_dead(uri: str) -> Any:
    """Return the connection of an `open_connection` block, reopened if its daemon has ended. Raises Unavailable."""
    libvirt = load_sdk()
    before = _connections[uri]
    if not _is_usable(libvirt, before):
        _connections[uri] = _open(libvirt, uri)
        before.close()
    return _connections[uri]


def is_embedded(uri: str) -> bool:
    """Whether the driver of this URI runs in our own process, without a daemon."""
    return uri.startswith("qemu:///embed")


def _open(libvirt: Any, uri: str) -> Any:
    try:
        return libvirt.open(uri)
    except libvirt.libvirtError as error:
        raise libvirt_remedies.explain_refusal(uri, error) from error


def _is_usable(libvirt: Any, connection: Any) -> bool:
    """Whether a connection is usable. A call notices that the daemon has just ended before isAlive() does."""
    try:
        connection.getLibVersion()
    except libvirt.libvirtError:
        return False
    return bool(connection.isAlive() == 1)


class EventLoop:
    """libvirt's default event loop, run by a thread as long as at least one `with` block of it is entered.

    libvirt waits in it without Python's global lock. A call over a connection wakes it, which adds about 50 us to the
    call; a launch has three calls.
    """

    def __init__(self) -> None:
        self._blocks = 0
        self._over = threading.Event()
        self._thread = threading.Thread()

    def __enter__(self) -> Self:
        self._blocks += 1
        if self._blocks == 1:
            self._over = threading.Event()
            self._thread = threading.Thread(target=_run, args=(self._over,), name="libvirt-events", daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._blocks -= 1
        if self._blocks:
            return
        self._over.set()
        # The loop waits for the next event: a timer that is due at once provides it.
        timer = load_sdk().virEventAddTimeout(0, lambda *_: None, None)
        self._thread.join()
        load_sdk().virEventRemoveTimeout(timer)


def _run(over: threading.Event) -> None:
    libvirt = load_sdk()
    while not over.is_set():
        libvirt.virEventRunDefaultImpl()


_events = EventLoop()
