"""Reading and writing result files. What was written once is never changed, moved aside rather than overwritten."""

from __future__ import annotations

import fcntl
import gzip
import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

import msgspec

from harness import metrics
from harness.decode import RECORD_LEVELS, Undecodable, check_levels, decode_json
from harness.errors import BadInput
from harness.model import (
    SCHEMA,
    BundleRecord,
    Footer,
    Header,
    HostRecord,
    ImageRecord,
    Record,
    Run,
    TargetRecord,
    UnavailableRecord,
    headline,
)

if TYPE_CHECKING:
    import pandas as pd

FRAME_COLUMNS = (
    "campaign", "target", "workload", "round", "phase", "ok", "run", "metric", "group", "part", "unit", "value",
    "reason",
)  # fmt: skip

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Record)
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, Undecodable)
_KINDS = {"header", "bundle", "target", "unavailable", "image", "host", "run", "footer"}


class Writer:
    """Appends records to a result file, each flushed before the next run starts.

    An earlier file of that name is kept as `<name>.1`, `.2`, ...; one that a campaign beside this one is writing
    is refused. A record that no longer fits on the disk is taken back, so that the file stays readable.
    """

    def __init__(self, path: Path) -> None:
        """Raises BadInput where the file cannot be written."""
        self.path = path
        self.kept: Path | None = None
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self.kept = _set_aside(path)
            self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o644)
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise BadInput(f"cannot write {path}: {error.strerror}") from error

    def append(self, record: Record) -> None:
        """Writes one record. Raises BadInput on a full disk (what was recorded before stays) and ValueError on NaN."""
        line = _encoder.encode(record) + b"\n"
        before = os.fstat(self._fd).st_size
        try:
            written = os.write(self._fd, line)
            if written < len(line):
                os.write(self._fd, line[written:])
        except OSError as error:
            os.ftruncate(self._fd, before)
            raise BadInput(f"cannot write to {self.path}: {error.strerror}; what it holds is complete") from error

    def close(self) -> None:
        os.close(self._fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _set_aside(path: Path) -> Path | None:
    """Renames an existing result to the first free `<name>.<n>`."""
    if not path.exists():
        return None
    if not path.is_file():
        raise BadInput(f"cannot write {path}: it is not a file")
    if path.stat().st_size == 0:
        path.unlink()
        return None
    with path.open("rb") as existing:
        try:
            fcntl.flock(existing, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BadInput(f"another campaign is writing {path}") from error
    number = 1
    while (aside := path.with_name(f"{path.name}.{number}")).exists():
        number += 1
    return path.rename(aside)


@dataclass(frozen=True)
class Result:
    """One campaign as it was read. `warnings`: what a reader should be told about the file."""

    path: Path
    header: Header
    bundles: list[BundleRecord] = field(default_factory=list)
    targets: list[TargetRecord] = field(default_factory=list)
    unavailable: list[UnavailableRecord] = field(default_factory=list)
    images: list[ImageRecord] = field(default_factory=list)
    hosts: list[HostRecord] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)
    footer: Footer | None = None
    warnings: list[str] = field(default_factory=list)

    def frame(self) -> pd.DataFrame:
        """Everything that was sampled, tidy: a row a value, columns FRAME_COLUMNS. Start-up phases are among it."""
        import pandas as pd  # here: it has no business in a process that measures

        rows = [row for run in self.runs for row in _rows(self.header.campaign, run)]
        for image in self.images:
            known = (self.header.campaign, image.target, image.workload, None, None, True, None)
            rows += [(*known, s.metric, s.group, s.part, s.unit, s.value, s.reason) for s in image.samples]
        return pd.DataFrame(rows, columns=list(FRAME_COLUMNS))


def _rows(campaign: str, run: Run) -> Iterator[tuple[object, ...]]:
    known = (campaign, run.target, run.workload, run.round, run.phase, run.ok, run.id)
    for name, value in startup(run):
        yield (*known, name, None, None, "s", value, None)
    for s in run.samples:
        yield (*known, s.metric, s.group, s.part, s.unit, s.value, s.reason)


def startup(run: Run) -> Iterator[tuple[str, float]]:
    """The intervals of one run in seconds: startup.total, startup.<mark> for each mark to ready, shutdown.total."""
    marks = dict(reversed(run.marks))  # of two of a name the first counts
    ready, stopping, gone = marks.get("ready"), marks.get("stopping"), marks.get("gone")
    if ready is not None:
        yield "startup.total", ready
        before = 0.0
        for name, at in run.marks:
            if name != "requested" and at <= ready:
                yield metrics.STARTUP_PHASE + name, at - before
                before = at
    if stopping is not None and gone is not None:
        yield "shutdown.total", gone - stopping


def amount(run: Run, metric: str) -> float | None:
    """What one run came to in a metric, in its unit; None where it failed or that could not be read."""
    if not run.ok:
        return None
    return dict(startup(run)).get(metric, headline(run.samples, metric))


def read(path: Path) -> Result:
    """Reads one result file, which may be compressed (`.gz`).

    Raises BadInput with the line that is wrong; a last line cut short is a warning.
    """
    try:
        content = path.read_bytes()
        if path.suffix == ".gz":
            content = gzip.decompress(content)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise BadInput(f"cannot read {path}: it is no whole gzip file") from error
    except OSError as error:
        raise BadInput(f"cannot read {path}: {error.strerror}") from error
    if not content.strip():
        raise BadInput(f"{path} is empty")
    *lines, tail = content.split(b"\n")
    header = _header(path, lines[0] if lines else tail)
    result = Result(path, header)
    for number, line in enumerate(lines[1:], start=2):
        _add(result, line, number)
    if tail:
        result.warnings.append(f"{path}: the last line is cut short and left out; all records before it were read")
    elif result.footer is None:
        result.warnings.append(f"{path}: the campaign did not come to its end; what it recorded was read")
    return result


def _header(path: Path, line: bytes) -> Header:
    try:
        raw = decode_json(line, RECORD_LEVELS)
        schema = raw["schema"] if raw["kind"] == "header" else None
    except Undecodable as error:
        raise BadInput(f"{path} is not a Weighbridge result: its first line is no header: {error}") from error
    except (KeyError, TypeError) as error:
        raise BadInput(f"{path} is not a Weighbridge result: its first line is no header") from error
    if schema != SCHEMA:
        name, _, version = str(schema).rpartition("/")
        newer = name == "weighbridge" and version.isdigit() and int(version) > int(SCHEMA.rpartition("/")[2])
        told = "was written by a newer Weighbridge" if newer else "is not a Weighbridge result"
        raise BadInput(f"{path} {told}: its schema is {schema}, this program reads {SCHEMA}")
    try:
        return msgspec.json.decode(line, type=Header)
    except _UNREADABLE as error:
        raise BadInput(f"{path}, line 1: {error}") from error


def _add(result: Result, line: bytes, number: int) -> None:
    try:
        check_levels(line, RECORD_LEVELS)
        record = _decoder.decode(line)
    except _UNREADABLE as error:
        if _unknown_kind(line):
            return
        raise BadInput(f"{result.path}, line {number}: {error}") from error
    match record:
        case BundleRecord():
            result.bundles.append(record)
        case TargetRecord():
            result.targets.append(record)
        case UnavailableRecord():
            result.unavailable.append(record)
        case ImageRecord():
            result.images.append(record)
        case HostRecord():
            result.hosts.append(record)
        case Run():
            result.runs.append(record)
        case Footer():
            object.__setattr__(result, "footer", record)
        case Header():
            raise BadInput(f"{result.path}, line {number}: a second header")


def _unknown_kind(line: bytes) -> bool:
    """True for a record that only a later program knows; False for what is no record at all."""
    try:
        raw = decode_json(line, RECORD_LEVELS)
    except Undecodable:
        return False
    kind = raw.get("kind") if isinstance(raw, dict) else None
    return isinstance(kind, str) and kind not in _KINDS
