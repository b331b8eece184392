"""Map the failures of mmdebstrap and apt to their causes and remedies.

The texts are those of mmdebstrap 1.3.5 with apt 2.6 (Debian 12), 1.4.3 with apt 2.7 (Ubuntu 24.04) and 1.5.7 with
apt 3.0 (Debian 13), in English, which `command.run` asks for.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from harness import command, remedies
from harness.command import CommandFailed
from harness.errors import Unavailable

MIRROR = "WEIGHBRIDGE_MIRROR"
"""Environment: the URL of a mirror, or the path of a sources file, to take the packages from."""
NEW_MIRROR = f"name a mirror by {MIRROR}, as in {MIRROR}=http://deb.debian.org/debian"
RELEASES = "mmdebstrap 1.3.5 (Debian 12), 1.4.3 (Ubuntu 24.04) and 1.5.7 (Debian 13)"


@dataclass(frozen=True)
class Cause:
    """A kind of failure: the pattern of the line that shows it, and its remedy. `explain` fills its placeholders."""

    pattern: str
    remedy: str


CAUSES = (  # the first match counts: a full disk also makes downloads fail
    Cause(
        r"No space left on device|Disk quota exceeded|don't have enough free space",
        "free some space (`df -h {folder}` shows how much is left), or set WEIGHBRIDGE_CACHE to another folder",
    ),
    Cause(
        r"running chrootless mode|invalid mode|^Unknown option|unknown (?:mode|variant|format|option)",
        f"install a tested release of mmdebstrap: {RELEASES}",
    ),
    Cause(remedies.USER_NAMESPACE_REFUSED, "{namespaces}"),
    Cause(
        r"is not valid yet|Not live until|not yet valid",
        "set the clock: `{sudo}timedatectl set-ntp true` (`date` shows the time)",
    ),
    Cause(
        r"is expired|EXPKEYSIG|EXPSIG|is not valid anymore|[Ee]xpired on|no longer valid",
        "if `date` is wrong, set the clock: `{sudo}timedatectl set-ntp true`; if not, the mirror is old: " + NEW_MIRROR,
    ),
    Cause(
        r"certificate (?:verify|verification) failed|Certificate verification failed|handshake",
        "install the certificates: `{sudo}apt-get install ca-certificates`",
    ),
    Cause(
        r"Hash Sum mismatch|File has unexpected size|Mirror sync in progress|Clearsigned file isn't valid",
        f"try again later, when the mirror is complete, or {NEW_MIRROR}",
    ),
    Cause(
        r"\b40[04]  (?:Not Found|Bad Request)|does not have a Release file|\b410  Gone|\b403  Forbidden",
        f"the archive does not have this suite or file: {NEW_MIRROR}",
    ),
    Cause(r"\b407 ", "set http_proxy to a proxy URL with a valid user name and password"),
    Cause(
        r"NO_PUBKEY|BADSIG|signatures? (?:couldn't be verified|were invalid)|[Ff]ailed to parse keyring|Missing key"
        r"|signature verification failed|is not signed|no keyring|gpgv, ?gpgv2|gpgv or sqv",
        "install Debian's keys: `{sudo}apt-get install debian-archive-keyring gpgv`",
    ),
    Cause(
        r"Could not resolve|Temporary failure resolving|Could not connect|Unable to connect|Connection (?:failed"
        r"|refused|timed out|reset)|Network is unreachable|No route to host|Failed to fetch|\b50\d  ",
        "check that the package archive can be reached: run `{sudo}apt-get update`; behind a proxy set http_proxy, "
        f"because mmdebstrap ignores apt's own proxy settings; or {NEW_MIRROR}",
    ),
    Cause(
        r"Permission denied|Operation not permitted|Read-only file system|cannot create |Cannot mkdir",
        "make {folder} writable (`ls -ld {folder}` shows its owner), or set WEIGHBRIDGE_CACHE to another folder",
    ),
    Cause(
        r"Cannot allocate memory|Out of memory|Killed",
        "free some memory (`free -h` shows how much is left), and try again",
    ),
)
HARMLESS = (
    r"I: |Get:|Hit:|Fetched |main\(\) received signal PIPE"
    r"|W: (?:running chrootless mode|Download is performed unsandboxed|gpg --version failed|hooklistener errored out)"
)
"""Beginnings of lines that also appear on success or as a result of another failure; some mention permissions."""
UNKNOWN = "run the command shown below by itself and read its complete output"


def find_unknown_package(error: CommandFailed) -> str | None:
    """Return the package that apt does not know; None if mmdebstrap failed for another reason."""
    found = re.search(r"Unable to locate package (\S+)|Package '?([^' ]+)'? has no installation", error.output)
    return (found[1] or found[2]) if found else None


def explain(error: CommandFailed, mmdebstrap: str, folder: Path) -> Unavailable:
    """Return the error for a failed mmdebstrap: tool, version, cause, remedy, and the command's output.

    folder: where the packages were to be unpacked.
    """
    told, remedy = _explain_ending(error)
    if told is None:
        line, remedy = _find_cause(error.output)
        told = f"{line} (exit status {error.status})"
    namespaces, sudo = remedies.allow_user_namespaces(), remedies.prefix_sudo("")
    remedy = remedy.format(folder=folder, namespaces=namespaces, sudo=sudo)
    return Unavailable(
        f"{_describe_version(mmdebstrap)} could not unpack Debian's packages: {told}", remedy, error.detail
    )


def _explain_ending(error: CommandFailed) -> tuple[str | None, str]:
    """Return the reason and remedy for a program that a timeout or a signal ended; else (None, "")."""
    if error.status is None:
        return f"it did not end within {error.timeout:g} s", f"try again, or {NEW_MIRROR}"
    if error.status < 0:
        hint = "try again; if memory ran out, `{sudo}dmesg` shows that the kernel killed it"
        return f"it was killed by {command.signal_name(-error.status)}", hint
    return None, ""


def _find_cause(output: str) -> tuple[str, str]:
    """Return the line that shows the cause, and its remedy; else the first error and the remedy UNKNOWN."""
    lines = [line.strip() for line in output.splitlines() if line.strip() and not re.match(HARMLESS, line)]
    for cause in CAUSES:
        matching = [line for line in lines if re.search(cause.pattern, line)]
        if matching:
            return _shorten(next((line for line in matching if line.startswith("E: ")), matching[0])), cause.remedy
    errors = [line for line in lines if line.startswith("E: ")]
    return _shorten((errors or lines[-1:] or ["no output"])[0]), UNKNOWN


def _shorten(line: str) -> str:
    plain = re.sub(r"^[EW]: ", "", line)
    return plain if len(plain) <= 240 else f"{plain[:239]}…"


def _describe_version(mmdebstrap: str) -> str:
    try:
        return command.version_of(mmdebstrap)
    except CommandFailed:
        return f"{mmdebstrap} of unknown version"
