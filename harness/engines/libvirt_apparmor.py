"""AppArmor under libvirt's system daemon: a profile for each domain, in /etc, named after the domain's UUID.

When a domain ends libvirt unloads the profile and removes libvirt-UUID.files, but keeps the file libvirt-UUID for ever.
So the UUID of a domain is chosen here, in a way that a reaper can repeat.
Source: libvirt, src/security/security_apparmor.c (remove_profile), src/security/virt-aa-helper.c (option -D).
"""

from __future__ import annotations

import errno
import itertools
import os
import socket
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PROFILES = Path("/etc/apparmor.d/libvirt")
NAMESPACE = uuid.UUID("b1f7f4f2-6f0c-5d7b-9d1c-5a0e6a3c2d14")


def uuid_of(name: str) -> str:
    """The UUID for a domain of that name, which no other domain has."""
    return str(uuid.uuid5(NAMESPACE, name))


@contextmanager
def reserved_uuid() -> Iterator[str]:
    """One of this user's fixed UUIDs, the first that no other launch has, in any process of the user's.

    An ordinary user cannot remove the profile that libvirt leaves: there are as many as machines ever ran at once.
    An abstract socket (unix(7)) holds the reservation, which the kernel ends with our process.
    """
    for number in itertools.count():
        name = f"weighbridge-uid-{os.geteuid()}-{number}"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as reservation:
            try:
                reservation.bind(f"\0{name}")
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
                continue
            yield uuid_of(name)
            return


def remove_profile(uuid: str) -> None:
    """Remove the files of an ended domain's profile. Only root may; for others nothing happens."""
    if os.geteuid() == 0:
        for suffix in ("", ".files"):
            (PROFILES / f"libvirt-{uuid}{suffix}").unlink(missing_ok=True)
