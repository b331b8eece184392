"""Remove the Docker backend's containers and images by name, at the end of a run or in the reaper after a crash."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import docker as sdk
import requests

from harness import pace

CALL_FLOOR = 60.0
CALL_FACTOR = 1500.0
"""Floor in seconds and factor of pace.deadline, for a call to an engine."""


def remove_container(url: str, name: str, private: bool) -> None:
    """Remove a container by name. Does nothing if it does not exist, or if its private engine is gone."""
    with _try_connect(url, private) as client:
        if client is not None:
            try:
                client.api.remove_container(name, force=True, v=True)
            except sdk.errors.NotFound:
                return


def remove_image(url: str, name: str, private: bool) -> None:
    """Remove an image by name, under the same conditions as remove_container."""
    with _try_connect(url, private) as client:
        if client is not None:
            try:
                client.api.remove_image(name, force=True)
            except sdk.errors.NotFound:
                return


@contextmanager
def connect(url: str) -> Iterator[sdk.DockerClient]:
    """Yield a client of the engine at a URL and close it afterwards."""
    client = sdk.DockerClient(base_url=url, timeout=round(pace.deadline(CALL_FLOOR, CALL_FACTOR)))
    try:
        yield client
    finally:
        client.close()


@contextmanager
def _try_connect(url: str, private: bool) -> Iterator[sdk.DockerClient | None]:
    """Yield a client; None if a private engine is gone. Also ignores the end of a private engine inside the block."""
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
