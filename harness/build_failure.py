"""Explain a failed command that makes something ready: its tool, version and cause, and the remedy that fits.

The texts of packages are those of mmdebstrap 1.3.5 with apt 2.6 (Debian 12), 1.4.3 with apt 2.7 (Ubuntu 24.04) and
1.5.7 with apt 3.0 (Debian 13), in English, which `command.run` asks for.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Collection
from dataclasses import dataclass
from itertools import dropwhile
from pathlib import Path

from harness import command, pace, places, remedies
from harness.command import CommandFailed
from harness.errors import BadInput, Unavailable, WeighbridgeError

MIRROR = "WEIGHBRIDGE_MIRROR"
"""Environment: the URL of a mirror, or the path of a sources file, to take the packages from."""
NEW_MIRROR = f"name a mirror by {MIRROR}, as in {MIRROR}=http://deb.debian.org/debian"
RELEASES = "mmdebstrap 1.3.5 (Debian 12), 1.4.3 (Ubuntu 24.04) and 1.5.7 (Debian 13)"
UNKNOWN_PACKAGE = r"Unable to locate package (\S+)|Package '?([^' ]+)'? has no installation"
TASKS = {"mmdebstrap": "could not unpack Debian's packages", "apt-get": "could not list this machine's archives"}
"""The task of a tool, for the sentence about its failure."""
VERSION_FLAGS = {"busybox": ("--help",)}
"""The flags by which a tool prints its version, where they are not --version, or -V as mke2fs and debugfs have it."""
VERSION_FLOOR, VERSION_FACTOR = 10.0, 250.0
"""Of pace.deadline: for a tool to print its version."""


@dataclass(frozen=True)
class Cause:
    """A kind of failure: the pattern of the line that shows it, and its remedy, whose fields `explain` fills.

    archive: only mmdebstrap and apt fail so. below: the line has to name a path below a folder of this program.
    """

    pattern: str
    remedy: str
    archive: bool = False
    below: bool = False


CAUSES = (  # the first match counts: a full disk also makes downloads fail
    Cause(
        r"No space left on device|Disk quota exceeded|don't have enough free space",
        "free some space (`df -h {folder}` shows how much is left), or set {variable} to another folder",
    ),
    Cause(
        r"running chrootless mode|invalid mode|^Unknown option|unknown (?:mode|variant|format|option)",
        f"install a tested release of mmdebstrap: {RELEASES}",
        archive=True,
    ),
    Cause(remedies.USER_NAMESPACE_REFUSED, "{namespaces}"),
    Cause(
        r"is not valid yet|Not live until|not yet valid",
        "set the clock: `{sudo}timedatectl set-ntp true` (`date` shows the time)",
        archive=True,
    ),
    Cause(
        r"is expired|EXPKEYSIG|EXPSIG|is not valid anymore|[Ee]xpired on|no longer valid",
        "if `date` is wrong, set the clock: `{sudo}timedatectl set-ntp true`; if not, the mirror is old: " + NEW_MIRROR,
        archive=True,
    ),
    Cause(
        r"certificate (?:verify|verification) failed|Certificate verification failed|handshake",
        "install the certificates: `{sudo}apt-get install ca-certificates`",
        archive=True,
    ),
    Cause(
        r"Hash Sum mismatch|File has unexpected size|Mirror sync in progress|Clearsigned file isn't valid",
        f"try again later, when the mirror is complete, or {NEW_MIRROR}",
        archive=True,
    ),
    Cause(
        r"\b40[04]  (?:Not Found|Bad Request)|does not have a Release file|\b410  Gone|\b403  Forbidden",
        f"the archive does not have this suite or file: {NEW_MIRROR}",
        archive=True,
    ),
    Cause(r"\b407 ", "set http_proxy to a proxy URL with a valid user name and password", archive=True),
    Cause(
        r"NO_PUBKEY|BADSIG|signatures? (?:couldn't be verified|were invalid)|[Ff]ailed to parse keyring|Missing key"
        r"|signature verification failed|is not signed|no keyring|gpgv, ?gpgv2|gpgv or sqv",
        "install Debian's keys: `{sudo}apt-get install debian-archive-keyring gpgv`",
        archive=True,
    ),
    Cause(
        r"Could not resolve|Temporary failure resolving|Could not connect|Unable to connect|Connection (?:failed"
        r"|refused|timed out|reset)|Network is unreachable|No route to host|Failed to fetch|\b50\d  ",
        "check that the package archive can be reached: run `{sudo}apt-get update`; behind a proxy set http_proxy, "
        f"because mmdebstrap ignores apt's own proxy settings; or {NEW_MIRROR}",
        archive=True,
    ),
    Cause(UNKNOWN_PACKAGE, f"the archive does not have this package: {NEW_MIRROR}", archive=True),
    Cause(
        r"Permission denied|Operation not permitted|Read-only file system",
        "make {folder} writable (`ls -ld {folder}` shows its owner), or set {variable} to another folder",
        below=True,
    ),
    Cause(
        r"Cannot allocate memory|Out of memory|Memory allocation failed|[Mm]emory exhausted|^Killed",
        "free some memory (`free -h` shows how much is left), and try again",
    ),
    Cause(
        r"execvp .*No such file|error while loading shared libraries|(?:command )?not found$",
        "install the package of {tool} again (`dpkg -S '*/{tool}'` shows its name)",
    ),
)
HARMLESS = (
    r"I: |Get:|Hit:|Fetched |main\(\) received signal PIPE"
    r"|W: (?:running chrootless mode|Download is performed unsandboxed|gpg --version failed|hooklistener errored out)"
)
"""Beginnings of lines that also appear on success or as a result of another failure; some mention permissions."""
UNKNOWN = "run the command shown below by itself and read its complete output"


AGAIN = (
    "try the same command again; if it fails in the same way, report this line with the version that "
    "`weighbridge --version` prints"
)
SLOW = "try again while this machine does nothing else"


def find_unknown_packages(error: CommandFailed) -> set[str]:
    """Return the packages that apt does not know, where mmdebstrap failed because of them and of nothing else."""
    cause, _ = _find_cause(error.output, archive=True)
    if cause is None or cause.pattern != UNKNOWN_PACKAGE:
        return set()
    return {located or candidate for located, candidate in re.findall(UNKNOWN_PACKAGE, error.output)}


def explain_any(error: Exception) -> Unavailable:
    """Return any failure of making something ready as the reason why it is not here, with a remedy."""
    if isinstance(error, CommandFailed):
        return explain(error)
    reason = str(error) if isinstance(error, WeighbridgeError) else f"{type(error).__name__}: {error}"
    cause, line = _find_cause(reason, archive=False) if isinstance(error, OSError) else (None, "")
    hint = _fill(cause.remedy, line, (), "python3") if cause else AGAIN
    return Unavailable(reason, hint, getattr(error, "detail", "") or getattr(error, "log", ""))


def explain(error: CommandFailed, program: str | None = None) -> Unavailable:
    """Return why a command failed: tool, version, cause, remedy; detail: the complete command and its output.

    program: the tool, where `error.argv` begins with other programs than unshare and bwrap.
    """
    inside, tool = ((), program) if program else _find_tool(error)
    name = Path(tool).name
    archive = name in TASKS
    reason, remedy = _explain_ending(error, archive)
    line = ""
    if not reason:
        cause, line = _find_cause(error.output, archive)
        reason = f"{_shorten(line) or 'no output'} (exit status {error.status})"
        remedy = cause.remedy if cause else UNKNOWN
    hint = _fill(remedy, line, error.argv, name)
    return Unavailable(f"{_describe_version(inside, tool)} {TASKS.get(name, 'failed')}: {reason}", hint, error.detail)


def _find_tool(error: CommandFailed) -> tuple[tuple[str, ...], str]:
    """Return the program that failed, and the command around it where it runs in another root folder.

    That is the one which unshare or bwrap start, unless they themselves print an error.
    """
    words = [str(word) for word in error.argv]
    inside: tuple[str, ...] = ()
    while (name := Path(words[0]).name) in ("unshare", "bwrap"):
        if re.search(rf"^{name}: (?!execvp )", error.output, re.MULTILINE):
            break
        first = words.index("--") + 1 if "--" in words else 1
        inner = list(dropwhile(lambda word: word.startswith("-"), words[first:]))
        if not inner:
            break
        if name == "bwrap" and "--ro-bind" not in words[:first]:
            inside = (*inside, *words[:first])
        words = inner
    return inside, words[0]


def _explain_ending(error: CommandFailed, archive: bool) -> tuple[str, str]:
    """Return the reason and remedy of a program that did not end by itself; "" where it did."""
    if error.status is None:
        after = f"it did not end within {error.timeout:g} s" if error.timeout else "it did not end in time"
        return after, f"try again, or {NEW_MIRROR}" if archive else SLOW
    number = error.status - 128 if error.status == 137 and not error.output.strip() else -error.status  # as shells do
    if number > 0:
        hint = "try again; if memory ran out, `{sudo}dmesg` shows that the kernel killed it"
        return f"it was killed by {command.signal_name(number)}", hint
    return "", ""


def _find_cause(output: str, archive: bool) -> tuple[Cause | None, str]:
    """Return the cause and the line that shows it; without a known cause, the first error or the last line."""
    lines = [line.strip() for line in output.splitlines() if line.strip() and not re.match(HARMLESS, line)]
    for cause in CAUSES:
        matching = [line for line in lines if re.search(cause.pattern, line) and (archive or not cause.archive)]
        if cause.below:
            matching = [line for line in matching if _find_folder(line)]
        if matching:
            return cause, next((line for line in matching if line.startswith("E: ")), matching[0])
    errors = [line for line in lines if line.startswith("E: ")]
    return None, (errors or lines[-1:] or [""])[0]


def _fill(remedy: str, line: str, argv: Collection[str | Path], tool: str) -> str:
    """Fill in a remedy. The folder is the one that the line names, else that of the last path of the command."""
    named = _find_folder(line)
    for word in reversed([str(word) for word in argv]):
        named = named or _find_folder(word)
    folder, variable = named or (places.cache(), "WEIGHBRIDGE_CACHE") if "{folder}" in remedy else (Path(), "")
    return remedy.format(
        folder=folder,
        variable=variable,
        tool=tool,
        namespaces=remedies.allow_user_namespaces(),
        sudo=remedies.prefix_sudo(""),
    )


def _find_folder(text: str) -> tuple[Path, str] | None:
    """Return the folder of this program that a text names a path in, and the variable that names another one.

    A draft in it is removed with the failure, so no remedy names the draft.
    """
    for variable, find in (("WEIGHBRIDGE_CACHE", places.cache), ("WEIGHBRIDGE_STATE", places.state)):
        try:
            folder = find()
        except BadInput:  # the folder cannot be used, so that nothing failed in it
            continue
        if re.search(rf"(?<![\w.-]){re.escape(str(folder))}(?![\w.-])", text):
            return folder, variable
    return None


def _shorten(line: str) -> str:
    plain = re.sub(r"^[EW]: ", "", line)
    return plain if len(plain) <= 240 else f"{plain[:239]}…"


def _describe_version(inside: tuple[str, ...], tool: str) -> str:
    """Return what a tool prints about its version, in one line."""
    name = Path(tool).name
    for flag in VERSION_FLAGS.get(name, ("--version", "-V")):
        try:
            done = subprocess.run(
                [*inside, tool, flag],
                env={**os.environ, "LC_ALL": "C.UTF-8", "LANGUAGE": ""},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=pace.deadline(VERSION_FLOOR, VERSION_FACTOR),
                encoding="utf-8",
                errors="replace",
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired):
            break
        if done.returncode == 0 and (lines := done.stdout.strip().splitlines()):
            return lines[0].strip().removesuffix(".")
    return f"{name} of unknown version"
