"""Release what the Docker backend makes, by name: used at the end of a run, and by the reaper after a crash."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import docker as sdk
import requests

from harness import pace

CALL_FLOOR = 60.0
CALL_FACTOR = 1500.0
"""Of the deadline of a call to an engine: see pace.deadline."""


def remove_container(url: str, name: str, private: bool) -> None:
    """Removes a container by name; none there is fine, and so is a private engine that is gone with all it had."""
    with _reached(url, private) as client:
        if client is not None:
            try:
                client.api.remove_container(name, force=True, v=True)
            except sdk.errors.NotFound:
                return


def remove_image(url: str, name: str, private: bool) -> None:
    """Removes an image by name, under the same conditions as remove_container."""
    with _reached(url, private) as client:
        if client is not None:
            try:
                client.api.remove_image(name, force=True)
            except sdk.errors.NotFound:
                return


@contextmanager
def connect(url: str) -> Iterator[sdk.DockerClient]:
    client = sdk.DockerClient(base_url=url, timeout=round(pace.deadline(CALL_FLOOR, CALL_FACTOR)))
    try:
        yield client
    finally:
        client.close()


@contextmanager
def _reached(url: str, private: bool) -> Iterator[sdk.DockerClient | None]:
    """A client; None where a private engine is gone, or goes while it is asked."""
    with ExitStack() as stack:
        try:
            client = stack.enter_context(connect(url))
        except sdk.errors.DockerException:
            if not private:
                raise
            client = None
        try:
            yield client
        except requests.ConnectionError:
            if not private:
                raise
