"""AppArmor under libvirt's system daemon: a profile for each domain, in /etc, named after the domain's UUID.

When a domain ends libvirt unloads the profile and removes libvirt-UUID.files, but never removes the file libvirt-UUID.
The UUID of a domain is therefore computed here from its name, so that a reaper can compute it too.
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


def compute_uuid(name: str) -> str:
    """Return the UUID for a domain of that name; it differs for every name."""
    return str(uuid.uuid5(NAMESPACE, name))


@contextmanager
def reserve_uuid() -> Iterator[str]:
    """Yield the first of this user's fixed UUIDs that no other launch uses, in any of the user's processes.

    An ordinary user cannot remove the profiles that libvirt leaves; fixed UUIDs limit their number to the machines that
    ever ran at the same time. An abstract socket (unix(7)) holds the reservation; the kernel ends it with our process.
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
            yield compute_uuid(name)
            return


def remove_profile(uuid: str) -> None:
    """Remove the files of an ended domain's profile. Does nothing unless this process is root's."""
    if os.geteuid() == 0:
        for suffix in ("", ".files"):
            (PROFILES / f"libvirt-{uuid}{suffix}").unlink(missing_ok=True)
