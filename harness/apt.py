"""Debian packages by apt, without installing them and without root."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from harness import command
from harness.command import CommandFailed
from harness.errors import BadInput, Unavailable


def candidates(packages: Iterable[str]) -> dict[str, str]:
    """The version of each package that apt would install now.

    Raises BadInput for one that apt does not know, Unavailable where there is no apt or it knows no archive at all.
    """
    wanted = list(packages)
    versions: dict[str, str] = {}
    name = ""
    for text in _apt("apt-cache", "policy", "--", *wanted).splitlines():
        if text and not text[0].isspace():
            name = text.rstrip(":")
        elif (told := re.match(r"\s+Candidate: (\S+)", text)) and told[1] != "(none)":
            versions[name] = told[1]
    for package in wanted:
        if package not in versions:
            _require_archives()
            raise BadInput(f"apt knows no package {package}")
    return {package: versions[package] for package in wanted}


def unpack(versions: Mapping[str, str], into: Path) -> None:
    """Download the packages in these versions, and unpack them into a folder that exists.

    Raises Unavailable where apt cannot get them or there is no apt.
    """
    with tempfile.TemporaryDirectory(dir=into.parent, prefix=".debs-") as folder:
        # As root apt steps down to the user _apt, who cannot write in a folder of ours.
        sandbox = ["-o", "APT::Sandbox::User=root"] if os.geteuid() == 0 else []
        exact = [f"{package}={version}" for package, version in versions.items()]
        _apt("apt-get", "-q", *sandbox, "download", "--", *exact, cwd=Path(folder))
        for package in sorted(Path(folder).glob("*.deb")):
            command.run([command.find("dpkg-deb", "dpkg"), "-x", package, into])


def depends(package: str) -> list[str]:
    """The names of the packages that a package depends on, alternatives and virtual ones left out."""
    told = _apt("apt-cache", "depends", "--", package)
    return re.findall(r"^\s+Depends: ([^<\s]+)$", told, re.MULTILINE)


def architecture() -> str:
    """Debian's name of this machine's architecture, such as amd64. Raises Unavailable where there is no dpkg."""
    return _apt("dpkg", "--print-architecture").strip()


def _apt(program: str, *arguments: str, cwd: Path | None = None) -> str:
    try:
        path = command.find(program, "apt")
    except Unavailable as error:
        raise Unavailable(f"there is no {program} here, and bundles are made of Debian packages",
                          "build on Debian or Ubuntu, or bring a cache by WEIGHBRIDGE_CACHE") from error  # fmt: skip
    try:
        return command.run([path, *arguments], cwd=cwd)
    except CommandFailed as error:
        raise Unavailable(str(error), "apt-get update, and see that the package archive can be reached") from error


def _require_archives() -> None:
    """Raises Unavailable where apt has no list of packages: then it cannot be told whether one exists."""
    if not re.search(r"^\s*-?\d+ [a-z+]+:/", _apt("apt-cache", "policy"), re.MULTILINE):
        raise Unavailable("apt has no lists of packages", "apt-get update")
