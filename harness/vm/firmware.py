"""A profile's firmware, where libvirt's AppArmor confinement would not let a machine have it from.

virt-aa-helper of libvirt 9.0 refuses a domain whose <loader> lies below /usr/share, unless it is one of a few folders
of UEFI images: SeaBIOS's and qboot's ROMs are not among them. A copy in our cache is a file as any other.
Source: libvirt, src/security/virt-aa-helper.c (valid_path: restricted, restricted_rw).
"""

from __future__ import annotations

import hashlib
import shutil
import xml.etree.ElementTree as ET
from pathlib import Path

from harness import places
from harness.vm.profile import Profile


def copy_of_rom(profile: Profile) -> Path | None:
    """A copy of the ROM that a domain is started by, readable by all; None where the profile names none."""
    named = ET.fromstring(profile.domain).findtext("os/loader[@type='rom']")
    if named is None:
        return None
    rom = Path(named.strip())
    content = rom.read_bytes()

    def copy(draft: Path) -> None:
        shutil.copyfile(rom, draft)
        draft.chmod(0o644)

    return places.made_once(places.cache() / "firmware" / f"{hashlib.sha256(content).hexdigest()[:16]}.rom", copy)
