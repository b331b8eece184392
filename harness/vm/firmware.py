"""Copy a profile's firmware to a path that libvirt's AppArmor confinement permits.

virt-aa-helper of libvirt 9.0 refuses a domain whose <loader> lies below /usr/share, except in a few folders of UEFI
images; the ROMs of SeaBIOS and qboot are in other folders. A copy in our cache is permitted.
Source: libvirt, src/security/virt-aa-helper.c (valid_path: restricted, restricted_rw).
"""

from __future__ import annotations

import hashlib
import shutil
import xml.etree.ElementTree as ET
from pathlib import Path

from harness import places
from harness.vm.profile import Profile


def copy_rom(profile: Profile) -> Path | None:
    """Return a world-readable copy of the profile's ROM; None if the profile names no ROM."""
    named = ET.fromstring(profile.domain).findtext("os/loader[@type='rom']")
    if named is None:
        return None
    rom = Path(named.strip())
    content = rom.read_bytes()

    def copy(draft: Path) -> None:
        shutil.copyfile(rom, draft)
        draft.chmod(0o644)

    return places.made_once(places.cache() / "firmware" / f"{hashlib.sha256(content).hexdigest()[:16]}.rom", copy)
