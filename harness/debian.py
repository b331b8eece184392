"""Debian packages with all that they depend on, unpacked by mmdebstrap: as root and as anybody, on Debian 12 or not.

Unpacked only: no maintainer script runs, so that neither this machine nor who runs this has a part in the content.
Source: mmdebstrap(1), the variant `extract` and the mode `chrootless`. From 1.4.1 on mmdebstrap refuses that mode as
root, because of maintainer scripts; `check/chrootless` skips the check, which older releases do not have.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Collection, Iterable
from pathlib import Path
from urllib.parse import unquote

from harness import build_failure, command, remedies, sandbox
from harness.build_failure import MIRROR, NEW_MIRROR
from harness.command import CommandFailed
from harness.errors import Unavailable

SUITE = "bookworm"
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
OPTIONS = ("--mode=chrootless", "--variant=extract", "--format=directory", "--skip=cleanup/apt,check/chrootless")
LONGEST = 3600.0
"""Deadline of mmdebstrap in seconds, for slow connections. On a dead connection apt itself gives up after 30 s."""
ARCHIVES = (
    ("", "http://deb.debian.org/debian"),
    ("-updates", "http://deb.debian.org/debian"),
    ("-security", "http://deb.debian.org/debian-security"),
)
"""Debian's own archives as (suffix of the suite, URL), for machines whose apt does not have the suite."""
ACCESS = re.compile(
    r'Acquire::((https?|ftp|tor|socks)(::[^ "]+)? "[^"]|(Retries|ForceIPv[46]|Queue-Mode) )', re.IGNORECASE
)
"""apt's settings for reaching a mirror: proxies, certificates, time-outs, tries."""
MERGED = "usr-is-merged"
"""In every bundle. Without it apt would bring usrmerge, and with that all of Perl, wherever systemd's helpers are."""
APT_OWN = ("etc/apt", "var/lib/apt", "var/lib/dpkg", "var/cache/apt", "var/log", "dev")
OF_THIS_MACHINE = ("etc/fstab", "etc/hostname", "etc/resolv.conf")


class UnknownPackages(Unavailable):
    """The archive does not have these packages, and nothing else explains the failure."""

    def __init__(self, packages: Collection[str], explained: Unavailable) -> None:
        super().__init__(explained.reason, explained.hint, explained.detail)
        self.packages = frozenset(packages)


def unpack(packages: Iterable[str], into: Path) -> dict[str, str]:
    """Unpack packages and their dependencies into a new folder. Return the version of each of them.

    Raises UnknownPackages for packages that Debian does not have, Unavailable where the archive cannot be reached or
    there is no mmdebstrap.
    """
    wanted = sorted({MERGED, *packages})
    mmdebstrap = command.find("mmdebstrap", "mmdebstrap")
    archives = sources()
    options = [*OPTIONS, f"--include={','.join(wanted)}", *(f"--aptopt={option}" for option in access_options())]
    argv: list[str | Path] = [mmdebstrap, *options, SUITE, into, *archives]
    try:
        sandbox.writing_only(into.parent, argv, LONGEST)
    except CommandFailed as error:
        found = build_failure.explain(error, mmdebstrap)
        unknown = build_failure.find_unknown_packages(error)
        raise (UnknownPackages(unknown, found) if unknown else found) from error
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
    """Return the package sources: the user's mirror, this machine's own archives of the suite, or Debian's archives.

    Each line names the archive's signing key, because a system other than Debian 12 may not trust that key by default.
    Raises Unavailable where there is no apt, or where apt fails, such as by a malformed sources.list.
    """
    if named := os.environ.get(MIRROR):
        return [named]
    fields = "$(ORIGIN)|$(REPO_URI) $(RELEASE) $(COMPONENT)|$(SIGNED_BY)"
    try:
        listed = command.run(["apt-get", "indextargets", "--format", fields, "Created-By: Packages"])
    except CommandFailed as error:
        explained = build_failure.explain(error)
        raise Unavailable(explained.reason, _correct_apt(error.output), explained.detail) from error
    except Unavailable as error:
        raise Unavailable(f"there is no apt here: {error}", "build on Debian or Ubuntu") from error
    targets = [line.split("|")[1:] for line in listed.splitlines() if line.startswith("Debian|")]
    lines = [_format_source(archive, key) for archive, key in targets if archive.split()[1].partition("-")[0] == SUITE]
    key = str(KEYRING) if KEYRING.exists() else ""
    found = list(dict.fromkeys(lines))
    return found or [_format_source(f"{url} {SUITE}{pocket} main", key) for pocket, url in ARCHIVES]


def access_options() -> list[str]:
    """Return this machine's settings of apt for how to reach a mirror, such as a proxy, in apt.conf(5) form.

    mmdebstrap does not read /etc/apt. Returns [] if there is no apt, or if apt cannot read its settings either.
    """
    try:
        listed = command.run(["apt-config", "dump", "Acquire"])
    except (CommandFailed, Unavailable):
        return []
    return [line for line in listed.splitlines() if ACCESS.match(line)]


def _correct_apt(output: str) -> str:
    """Return how to correct apt's configuration, whose errors name the file."""
    named = re.search(r"/etc/apt/[\w./+-]*\w", output)
    file = named[0] if named else "/etc/apt/sources.list"
    return f"correct {file} (`{remedies.prefix_sudo('apt-get update')}` shows the line), or {NEW_MIRROR}"


def _format_source(archive: str, key: str) -> str:
    """Return a line of sources.list(5). key: apt's Signed-By; used only if it is the path of a file."""
    return f"deb [signed-by={key}] {archive}" if key.startswith("/") else f"deb {archive}"
