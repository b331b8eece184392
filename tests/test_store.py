"""Result files: what is written is read back, and what is broken is refused by name and line."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import store
from harness.errors import BadInput
from harness.model import Failure, Footer, Header, Host, Plan, Run, Sample

GOLDEN = Path(__file__).parent / "golden" / "weighbridge-1.jsonl"
HEADER = Header("weighbridge/1", "c1", "2025-06-11T08:15:02Z", ["weighbridge", "run"], None, None, Plan(), Host({}, {}))


DEEP = b'{"kind":"later","a":' + b'{"a":' * 5000 + b"1" + b"}" * 5001


def run(seq: int = 1, **fields: Any) -> Run:
    known: dict[str, Any] = {
        "id": f"c1-{seq}", "seq": seq, "target": "host", "workload": "hello", "round": seq, "phase": "measured",
        "bundle_sha256": "ab", "ok": True, "error": None, "limits": {}, "facts": {},
        "marks": [("requested", 0.0), ("created", 0.1), ("ready", 0.5), ("stopping", 0.75), ("gone", 1.0)],
        "samples": [Sample("memory.pss", "B", 4096, "workload")],
    }  # fmt: skip
    return Run(**{**known, **fields})


def write(path: Path, *records: Any) -> Path:
    with store.Writer(path) as writer:
        for record in records:
            writer.append(record)
    return path


@pytest.fixture
def result(tmp_path: Path) -> Path:
    return write(tmp_path / "r.jsonl", HEADER, run(1), run(2), Footer(True, None, 2, 0))


def test_what_was_written_is_read_back(result: Path) -> None:
    read = store.read(result)
    assert (read.header, read.runs) == (HEADER, [run(1), run(2)])
    assert read.footer == Footer(True, None, 2, 0)
    assert read.warnings == []


def test_the_golden_file_is_read_whole_though_parts_of_it_are_unknown() -> None:
    text = GOLDEN.read_text()
    assert '"kind":"prophecy"' in text and '"weather"' in text and '"energy"' in text
    read = store.read(GOLDEN)
    assert len(read.runs) == 32 and len(read.targets) == 4 and len(read.images) == 4 and len(read.hosts) == 3
    assert [len(read.bundles), len(read.unavailable)] == [1, 1]
    assert sum(not run.ok for run in read.runs) == 1
    assert read.footer is not None and read.footer.runs == 32
    assert read.warnings == []


@pytest.mark.parametrize("content", [b"", b"\n\n", b"  \n"])
def test_an_empty_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "r").write_bytes(content)
    with pytest.raises(BadInput, match="is empty"):
        store.read(tmp_path / "r")


@pytest.mark.parametrize(
    "content", [b"\x7fELF\x02\x01\x01\x00\xff\xfe", b"hello\n", b"[1]\n", b"7\n", b'{"kind":"run"}\n', b"[" * 100_000]
)
def test_what_is_no_result_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "r").write_bytes(content)
    with pytest.raises(BadInput, match="is not a Weighbridge result"):
        store.read(tmp_path / "r")


@pytest.mark.parametrize("path", ["nowhere", "."])
def test_what_cannot_be_opened_is_refused(tmp_path: Path, path: str) -> None:
    with pytest.raises(BadInput, match="cannot read"):
        store.read(tmp_path / path)


@pytest.mark.parametrize(
    ("schema", "told"),
    [("weighbridge/2", "newer Weighbridge"), ("scales/1", "is not a Weighbridge result"), (None, "is not a")],
)
def test_another_schema_is_refused_by_its_name(tmp_path: Path, schema: object, told: str) -> None:
    (tmp_path / "r").write_text(json.dumps({"kind": "header", "schema": schema}) + "\n")
    with pytest.raises(BadInput, match=told) as refused:
        store.read(tmp_path / "r")
    assert str(schema) in str(refused.value)


class EarlierPlan(Plan, frozen=True):
    """As earlier versions of this program have it."""

    timeout: float = 60.0


def test_earlier_versions_read_the_plan_of_a_campaign_without_a_timeout_of_its_own() -> None:
    assert msgspec.json.decode(msgspec.json.encode(Plan()), type=EarlierPlan).timeout == 60.0
    assert msgspec.json.decode(msgspec.json.encode(Plan(timeout=5.0)), type=EarlierPlan).timeout == 5.0


def test_a_header_with_a_field_of_the_wrong_type_is_refused(result: Path) -> None:
    result.write_bytes(result.read_bytes().replace(b'"command":["weighbridge","run"]', b'"command":7', 1))
    with pytest.raises(BadInput, match=r"line 1: .*command"):
        store.read(result)


def test_a_file_cut_anywhere_in_its_last_line_gives_all_records_before_it(result: Path) -> None:
    content = result.read_bytes()
    start = content.rstrip(b"\n").rindex(b"\n") + 1
    for end in range(start + 1, len(content)):
        result.write_bytes(content[:end])
        read = store.read(result)
        assert read.runs == [run(1), run(2)] and read.footer is None
        assert len(read.warnings) == 1 and "cut short" in read.warnings[0]


def test_a_campaign_without_an_end_is_read_with_a_warning(tmp_path: Path) -> None:
    read = store.read(write(tmp_path / "r", HEADER, run()))
    assert len(read.warnings) == 1 and "did not come to its end" in read.warnings[0]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b'"value":4096', b'"value":NaN'),
        (b'"value":4096', b'"value":1e999'),
        (b'"value":4096', b'"value":-4096'),
        (b'"value":4096', b'"value":null'),
        (b'["created",0.1]', b'["created",-0.1]'),
        (b'["created",0.1]', b'["created",0.9]'),
        (b'["created",0.1]', b'["created",null]'),
        (b'"ok":true', b'"ok":false'),
        (b'"phase":"measured"', b'"phase":"guessed"'),
        (b'"kind":"run"', b'"kind":5'),
        (b'"kind":"run"', b'"kind":"header"'),
        (b'{"kind":"run"', b'\x00\xff{"kind":"run"'),
        (b'"target":"host"', b'"target":"\xff\xfe"'),
        (b'{"kind":"run"', b'[{"kind":"run"'),
        (b'"facts":{}', b'"facts":' + DEEP),
        (b'"facts":{}', b'"facts":{},"unknown":' + DEEP),
    ],
)
def test_a_broken_line_amid_good_ones_is_refused_with_its_number(result: Path, before: bytes, after: bytes) -> None:
    lines = result.read_bytes().split(b"\n")
    assert before in lines[1]
    result.write_bytes(b"\n".join([lines[0], lines[1].replace(before, after, 1), *lines[2:]]))
    with pytest.raises(BadInput, match="line 2"):
        store.read(result)


@pytest.mark.parametrize("garbage", [b"", b"[]", b"null", b'"run"', b"{", b"{}", b"[" * 100_000, b"\xff\xfe\x00", DEEP])
def test_garbage_amid_good_lines_is_refused_with_its_number(result: Path, garbage: bytes) -> None:
    lines = result.read_bytes().split(b"\n")
    result.write_bytes(b"\n".join([*lines[:2], garbage, *lines[2:]]))
    with pytest.raises(BadInput, match="line 3"):
        store.read(result)


@given(st.binary(max_size=200))
def test_no_bytes_make_the_reader_fail_in_any_other_way(tmp_path_factory: pytest.TempPathFactory, junk: bytes) -> None:
    path = tmp_path_factory.mktemp("junk") / "r"
    path.write_bytes(msgspec.json.encode(HEADER) + b"\n" + junk)
    try:
        assert store.read(path).header == HEADER
    except BadInput as refused:
        assert "line" in str(refused)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_no_record_can_be_made_of_what_is_no_number(value: float) -> None:
    with pytest.raises(ValueError, match="is not a number"):
        Sample("startup.total", "s", value)
    with pytest.raises(ValueError, match="is not a time"):
        run(marks=[("requested", 0.0), ("ready", value)])


def test_an_existing_result_is_kept_beside_the_new_one(result: Path) -> None:
    old = result.read_bytes()
    with store.Writer(result) as writer:
        assert writer.kept is not None and writer.kept.read_bytes() == old
        writer.append(HEADER)
        with pytest.raises(BadInput, match="another campaign is writing"):
            store.Writer(result)
    with store.Writer(result) as again:
        assert again.kept is not None and again.kept.name == "r.jsonl.2"


@pytest.mark.parametrize("place", [lambda tmp: tmp, lambda tmp: tmp / "file" / "r", lambda _: Path("/proc/none/r")])
def test_an_output_that_cannot_be_written_is_refused(tmp_path: Path, place: Callable[[Path], Path]) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(BadInput, match="cannot write"):
        store.Writer(place(tmp_path))


def test_a_full_disk_leaves_what_was_recorded_readable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    really = os.write
    path = tmp_path / "r"
    with store.Writer(path) as writer:
        writer.append(HEADER)
        writer.append(run(1))
        lines: list[int] = []

        def full(fd: int, data: bytes) -> int:
            if lines:
                raise OSError(28, "No space left on device")
            lines.append(really(fd, data[:20]))
            return lines[0]

        monkeypatch.setattr(os, "write", full)
        with pytest.raises(BadInput, match="No space left on device"):
            writer.append(run(2))
        monkeypatch.undo()
    assert store.read(path).runs == [run(1)]


def test_the_intervals_of_a_start_end_at_ready() -> None:
    late = [("requested", 0.0), ("created", 0.25), ("ready", 1.0), ("start-returned", 1.5)]
    assert dict(store.startup(run(marks=late))) == {
        "startup.total": 1.0,
        "startup.created": 0.25,
        "startup.ready": 0.75,
    }
    assert list(store.startup(run(marks=[("requested", 0.0)], ok=False, error=Failure("start", "X", "y")))) == []


def test_the_frame_is_tidy_and_says_why_a_value_is_missing() -> None:
    frame = store.read(GOLDEN).frame()
    assert tuple(frame.columns) == store.FRAME_COLUMNS
    assert (frame["value"].isna() == frame["reason"].notna()).all()
    ready = frame[(frame["metric"] == "startup.total") & (frame["phase"] == "measured")]
    assert ready.groupby("target").size().to_dict() == {"host": 7, "namespace": 7, "docker": 6, "libvirt/pc": 7}
