"""Debian packages with all that they depend on, unpacked by mmdebstrap: as root and as anybody, on Debian 12 or not.

Unpacked only: no maintainer script runs, so that neither this machine nor who runs this has a part in the content.
Source: mmdebstrap(1), the variant `extract` and the mode `chrootless`.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import unquote

from harness import command, sandbox
from harness.command import CommandFailed
from harness.errors import BadInput, Unavailable

SUITE = "bookworm"
MIRROR = "WEIGHBRIDGE_MIRROR"
"""Environment: the URL of a mirror, or the path of a sources file, to take the packages from."""
MERGED = "usr-is-merged"
"""In every bundle. Without it apt would bring usrmerge, and with that all of Perl, wherever systemd's helpers are."""
APT_OWN = ("etc/apt", "var/lib/apt", "var/lib/dpkg", "var/cache/apt", "var/log", "dev")
OF_THIS_MACHINE = ("etc/fstab", "etc/hostname", "etc/resolv.conf")


def unpack(packages: Iterable[str], into: Path) -> dict[str, str]:
    """Unpacks packages and their dependencies into a new folder; the version of each of them.

    Raises BadInput for a package that Debian does not have, Unavailable where the archive cannot be reached or there
    is no mmdebstrap.
    """
    wanted = sorted({MERGED, *packages})
    mmdebstrap = command.find("mmdebstrap", "mmdebstrap")
    options = ["--mode=chrootless", "--variant=extract", "--format=directory", "--skip=cleanup/apt"]
    try:
        argv: list[str | Path] = [mmdebstrap, *options, f"--include={','.join(wanted)}", SUITE, into, *sources()]
        sandbox.writing_only(into.parent, argv)
    except CommandFailed as error:
        told = f"{error}\n{error.log}"
        if unknown := re.search(r"Unable to locate package (\S+)|Package '?([^' ]+)'? has no installation", told):
            raise BadInput(f"Debian {SUITE} has no package {unknown[1] or unknown[2]}") from error
        reason = next(iter(re.findall(r"^E: (.+)", told, re.MULTILINE)), str(error))
        hint = f"see that the package archive can be reached, or name a mirror by {MIRROR}"
        raise Unavailable(f"Debian's packages cannot be had: {reason}", hint) from error
    versions = dict(_version(path.name) for path in sorted((into / "var/cache/apt/archives").glob("*.deb")))
    for name in APT_OWN:
        shutil.rmtree(into / name, ignore_errors=not (into / name).exists())
    for name in OF_THIS_MACHINE:
        (into / name).unlink(missing_ok=True)
    return versions


def architecture() -> str:
    """Debian's name of this machine's architecture, such as amd64. Raises Unavailable where there is no dpkg."""
    return command.run(["dpkg", "--print-architecture"]).strip()


def _version(file: str) -> tuple[str, str]:
    """Name and version of a package's file as apt calls it: python3_3.11.2-1%2bb1_amd64.deb."""
    name, version, _ = unquote(file).split("_")
    return name, version


def sources() -> list[str]:
    """Where to take the packages from: what the user said, this machine's own archives of the suite, or Debian's."""
    if told := os.environ.get(MIRROR):
        return [told]
    fields = "$(ORIGIN)|deb $(REPO_URI) $(RELEASE) $(COMPONENT)"
    try:
        listed = command.run(["apt-get", "indextargets", "--format", fields, "Created-By: Packages"])
    except (CommandFailed, Unavailable) as error:
        raise Unavailable(f"there is no apt here: {error}", "build on Debian or Ubuntu") from error
    lines = [line.removeprefix("Debian|") for line in listed.splitlines() if line.startswith("Debian|")]
    return [line for line in dict.fromkeys(lines) if line.split()[2].partition("-")[0] == SUITE]
