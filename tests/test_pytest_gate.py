"""`pytest --benchmark-only` that fails on memory and disk too: against campaigns of a base, which are made here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from harness.model import Record, Run
from harness.store import Writer, read
from tests.conftest import EngineOrSkip
from tests.ground import Ground, ground
from tests.test_pytest_plugin import ZERO, run, suite

pytestmark = pytest.mark.long


@pytest.fixture
def place() -> Iterator[Ground]:
    with ground() as made:
        yield made


def scaled(run: Run, factor: float) -> Run:
    """The same launch, with so much memory."""
    samples = [
        msgspec.structs.replace(sample, value=sample.value * factor)
        if sample.metric == "memory.pss" and sample.value is not None
        else sample
        for sample in run.samples
    ]
    return msgspec.structs.replace(run, samples=samples)


def base(measured: Path, folder: Path, factor: float) -> Path:
    """Five campaigns of the same host and engine, with so much of the memory that was measured, give or take 1 %."""
    result = read(measured)
    folder.mkdir()
    for number in range(5):
        name = f"base-{number}"
        with Writer(folder / f"{name}.jsonl") as writer:
            writer.append(msgspec.structs.replace(result.header, campaign=name))
            records: tuple[Record, ...] = (*result.targets, *result.bundles, *result.images)
            for record in records:
                writer.append(record)
            for each in result.runs:
                writer.append(scaled(each, factor * (1 + (number - 2) / 200)))
            assert result.footer is not None
            writer.append(result.footer)
    return folder


@pytest.mark.engine
def test_a_session_fails_on_memory(place: Ground, engine_or_skip: EngineOrSkip) -> None:
    suite(place)
    common = (f"--weighbridge-targets={ZERO}", "--weighbridge-rounds=3", "--benchmark-only")
    first = run(place, *common, "--weighbridge-output=first.jsonl")
    with engine_or_skip("host"):
        assert first.code == 0, first.out
    half = base(place.folder / "first.jsonl", place.folder / "half", 0.5)
    same = base(place.folder / "first.jsonl", place.folder / "same", 1.0)

    worse = run(place, *common, f"--weighbridge-compare={half}", "--weighbridge-fail=memory.pss:5%,disk.instance:2%")
    assert worse.code == 1
    assert "1 passed" in worse.out
    assert f"Regressed: memory.pss of {ZERO} with hello +" in worse.out
    shown = run(place, *common, f"--weighbridge-compare={half}")
    assert shown.code == 0
    assert "Regressed: memory.pss" in shown.out, shown.out
    calm = run(place, *common, f"--weighbridge-compare={same}", "--weighbridge-fail=memory.pss:5%,disk.instance:2%")
    assert calm.code == 0, calm.out
    assert "Nothing regressed: 2 unchanged" in calm.out


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--weighbridge-fail=memory.pss:5%"], "needs --weighbridge-compare"),
        (["--weighbridge-compare=nowhere"], "there is no nowhere"),
        (["--weighbridge-compare=.", "--weighbridge-fail=speed:5%"], "unknown metric 'speed'"),
        (["--weighbridge-compare=.", "--weighbridge-fail=memory.pss"], "is no threshold"),
    ],
)
def test_bad_input_is_one_line_before_anything_is_measured(place: Ground, arguments: list[str], told: str) -> None:
    suite(place)
    done = run(place, *arguments)
    assert done.code == 4
    assert told in done.err
    assert done.err.count("weighbridge") <= 3
    assert not (place.folder / "results").exists()
