"""Baselines: campaigns that are kept to hold later ones against, in a folder for each kind of host."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
from collections.abc import Collection, Sequence
from pathlib import Path

from harness import comparable, store
from harness.errors import BadInput, Incomparable
from harness.store import Result
from harness.wording import Words

BASELINE = Path("results/baseline")
NEWEST = 20
ENDINGS = (".jsonl", ".jsonl.gz")


def kind(result: Result) -> str:
    """The name of this kind of host: the same where, and only where, all of its gating fields agree."""
    fields = comparable.kind_of_host(result)
    told = f"{fields.get('architecture')}-{fields.get('cores')}-{fields.get('cpu model')}"
    digest = hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:8]
    return f"{re.sub(r'[^a-z0-9]+', '-', told.lower()).strip('-')[:60]}-{digest}"


def add(files: Sequence[Path], folder: Path = BASELINE, newest: int = NEWEST) -> tuple[list[Path], list[Path]]:
    """Keeps copies of campaigns in the folder of their kind of host, and of these the newest: (added, removed).

    Raises BadInput for a campaign that is not whole, has two sides, or of which launches failed.
    """
    results = [store.read(file) for file in files]
    for result in results:
        _check_whole(result)
    added = []
    try:
        for result in results:
            place = folder / kind(result)
            place.mkdir(parents=True, exist_ok=True)
            copy = place / f"{result.header.campaign}.jsonl.gz"
            draft = copy.with_suffix(".draft")
            draft.write_bytes(gzip.compress(_content(result.path), mtime=0))
            draft.replace(copy)
            added.append(copy)
        removed = [old for place in sorted({copy.parent for copy in added}) for old in _older(place, newest)]
        for old in removed:
            old.unlink()
    except OSError as error:
        raise BadInput(f"cannot write the baseline in {folder}: {error.strerror}") from error
    return [copy for copy in added if copy not in removed], removed


def load(path: Path, head: Result | None = None, allowed: Collection[str] = ()) -> tuple[list[Result], list[str]]:
    """The campaigns of a file, of a folder, or of that baseline's part that is of the head's kind of host; notes.

    Of a baseline the campaigns with another engine than the head's are left out, which is noted. Raises BadInput for a
    folder without campaigns, Incomparable for a baseline of other hosts only.
    """
    if not path.is_dir():
        return [store.read(path)], []
    if head is None or _campaigns(path) or not any(_campaigns(place) for place in path.iterdir() if place.is_dir()):
        found = [store.read(file) for file in _campaigns(path)]
        if not found:
            raise BadInput(f"{path} holds no campaign: no file in it ends in {' or '.join(ENDINGS)}")
        return found, []
    place = path / kind(head)
    others = [] if place.is_dir() else [_campaigns(other)[-1] for other in sorted(path.iterdir()) if other.is_dir()]
    if others:
        comparable.check([store.read(others[0]), head], allowed)  # raises, with the fields by name, unless allowed
        place = others[0].parent
    kept, left_out = [], []
    for result in map(store.read, _campaigns(place)):
        try:
            comparable.check([result, head], [name for name in allowed if _differs(name, result, head)])
            kept.append(result)
        except Incomparable as error:
            left_out.append(str(error))
    if not kept:
        raise Incomparable(left_out[-1])
    notes: list[str] = []
    if left_out:
        told = "{count} campaigns of the baseline are left out, {last}"
        if len(left_out) == 1:
            told = "{count} campaign of the baseline is left out, {last}"
        notes.append(Words(told, count=len(left_out), last=left_out[-1]))
    return kept, notes


def _differs(name: str, result: Result, head: Result) -> bool:
    ours, theirs = comparable.gating(result), comparable.gating(head)
    return name in ours and name in theirs and ours[name] != theirs[name]


def _campaigns(folder: Path) -> list[Path]:
    """Oldest first: a campaign's name begins with its time."""
    try:
        return sorted(file for file in folder.iterdir() if file.name.endswith(ENDINGS) and file.is_file())
    except OSError as error:
        raise BadInput(f"cannot read {folder}: {error.strerror}") from error


def _older(place: Path, newest: int) -> list[Path]:
    return _campaigns(place)[:-newest]


def _content(path: Path) -> bytes:
    content = path.read_bytes()
    return gzip.decompress(content) if path.suffix == ".gz" else content


def _check_whole(result: Result) -> None:
    footer = result.footer
    if result.header.plan.sides:
        raise BadInput(f"{result.path} holds two sides: a baseline is made of campaigns by `weighbridge run`")
    if footer is None or not footer.complete:
        raise BadInput(f"{result.path} is not whole: {footer.stopped if footer else 'it did not come to its end'}")
    if footer.failed:
        raise BadInput(f"{result.path}: {footer.failed} of its runs failed, which is nothing to be held against")
