"""Connections to libvirt, one for each URI and process: shared, kept alive, and reopened when their daemon has ended.

A daemon pings its clients and closes the connection of a client that does not answer, after 30 s by default
(keepalive_interval and keepalive_count in libvirtd.conf). libvirt's client library answers from its event loop only,
so a thread runs the loop while a connection to a daemon is open. The embedded driver runs in our own process.

libvirt must not be called from a forked child.
Source: libvirt, src/rpc/virkeepalive.c; libvirt-host.html (virConnectSetKeepAlive, virConnectIsAlive).
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Self

from harness import remedies
from harness.errors import Unavailable

LOG_VARIABLE = "LIBVIRT_LOG_OUTPUTS"

_connections: dict[str, Any] = {}


def sdk() -> Any:
    """The module libvirt, ready for a connection of any kind. Raises Unavailable where it is not installed."""
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
def opened(uri: str) -> Iterator[Any]:
    """The connection to a URI: the one that is open, reopened if its daemon has ended; else a new one for the block.

    Raises Unavailable where libvirt does not answer at that URI.
    """
    if uri in _connections:
        yield alive(uri)
        return
    with ExitStack() as stack:
        libvirt = sdk()
        if not is_embedded(uri):
            stack.enter_context(_events)
        _connections[uri] = _open(libvirt, uri)
        try:
            yield _connections[uri]
        finally:
            _connections.pop(uri).close()


def current(uri: str) -> Any:
    """The connection of an `opened` block, as it is. It may be dead; a call then raises libvirtError.

    A launch uses this one: a reopened connection would add its own time to the launch.
    """
    return _connections[uri]


def alive(uri: str) -> Any:
    """The connection of an `opened` block, reopened if its daemon has ended. Raises Unavailable where none answers."""
    libvirt = sdk()
    before = _connections[uri]
    if not _answers(libvirt, before):
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
        hint = "start it, or leave out --engines user for the embedded driver"
        if not is_embedded(uri) and re.search("Permission denied|authentication|access denied", str(error)):
            hint = remedies.join_group("libvirt")
        if is_embedded(uri):
            hint = remedies.install("libvirt-daemon-system", "qemu-system-x86")
        raise Unavailable(f"libvirt at {uri.partition('?')[0]}: {error.get_error_message()}", hint) from error


def _answers(libvirt: Any, connection: Any) -> bool:
    """Whether a connection is of use. A daemon that has just ended is noticed by a call, not yet by isAlive()."""
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
        # The loop waits for the next event: a timer that is due at once is one.
        timer = sdk().virEventAddTimeout(0, lambda *_: None, None)
        self._thread.join()
        sdk().virEventRemoveTimeout(timer)


def _run(over: threading.Event) -> None:
    libvirt = sdk()
    while not over.is_set():
        libvirt.virEventRunDefaultImpl()


_events = EventLoop()
