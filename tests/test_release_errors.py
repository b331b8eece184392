"""Errors of an engine while it releases what was prepared: nothing recorded is lost, and the other targets go on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import docker as sdk
import msgspec
import pytest
import requests

from harness import backends, bundle, campaign, doctor, engine_errors, facts
from harness.backends import Backend, Image, Options
from harness.bundle import Bundle
from harness.errors import EngineError
from harness.ledger import Ledger
from harness.measure import Cell
from harness.meters import isolation
from harness.meters.isolation import Isolation
from harness.model import Phase, Run, TargetRecord
from harness.signals import Interrupted
from harness.store import read

if TYPE_CHECKING:
    from tests.conftest import Call

BUILT = Bundle("hello", "0" * 64, 2**21, {}, Path("/nonexistent"))
RUN = Run(
    id="run", seq=0, target="fake", workload="hello", round=0, phase="warmup", bundle_sha256="0" * 64, ok=True,
    error=None, marks=[("requested", 0.0), ("ready", 0.25)], samples=[], limits={}, facts={},
)  # fmt: skip
ERRORS: list[Exception] = [
    sdk.errors.APIError("500 Server Error: the image is in use"),
    requests.ConnectionError("Connection aborted."),
    requests.ReadTimeout("Read timed out. (read timeout=60)"),
    sdk.errors.DockerException("Error while fetching server API version"),
    OSError(16, "Device or resource busy"),
    EngineError("libvirt: client socket is closed"),
    RuntimeError("an SDK may raise anything"),
]

each_error = pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)


class Fake(Backend):
    """An engine whose release of an image, or whose own, fails for the target `bad`."""

    name = "fake"
    of_image: Exception | None = None
    of_engine: Exception | None = None
    unreachable = False

    def probe(self) -> TargetRecord:
        return TargetRecord(self.options.target, "Fake", "1", "private")

    @contextmanager
    def prepare(self, bundle: Bundle, limits: object) -> Iterator[Image]:
        yield Image(bundle, self.plan.limits, ())
        if self.of_image and self.options.target == "bad":
            raise self.of_image

    def close(self) -> None:
        if self.of_engine and self.options.target == "bad":
            raise self.of_engine

    def daemons(self) -> list[int]:
        if self.unreachable:
            raise ConnectionRefusedError(111, "Connection refused")
        return []

    launch = cast(Any, None)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> type[Fake]:
    return install(monkeypatch, tmp_path)


def install(monkeypatch: pytest.MonkeyPatch, folder: Path) -> type[Fake]:
    """Make Fake the engine of every target; a launch succeeds, and measures start-up only."""
    monkeypatch.setenv("WEIGHBRIDGE_STATE", str(folder / "state"))
    monkeypatch.setenv("WEIGHBRIDGE_CACHE", str(folder / "cache"))
    monkeypatch.chdir(folder)

    class Mine(Fake):
        pass

    def measure(cell: Cell, ledger: Ledger, timeout: float, seq: int, number: int, phase: Phase, *_: object) -> Run:
        return msgspec.structs.replace(RUN, id=f"run-{seq}", seq=seq, target=cell.target, round=number, phase=phase)

    monkeypatch.setattr(backends, "create", lambda target, ledger, plan: Mine(Options(target), ledger, plan))
    for module in (campaign, doctor, facts):
        monkeypatch.setattr(module, "measure", measure)
    monkeypatch.setattr(bundle, "build", lambda workload: BUILT)
    return Mine


@pytest.mark.parametrize("where", ["of_image", "of_engine"])
@each_error
def test_run_after_an_error_of_a_release_writes_footer_and_table_and_exits_4(
    fake: type[Fake], call: Call, capsys: pytest.CaptureFixture[str], error: Exception, where: str
) -> None:
    setattr(fake, where, error)
    assert call("run", "--targets", "bad,good", "--rounds", "1", "-o", "r.jsonl") == 4
    out, err = capsys.readouterr()
    assert "Start-up" in out and "Traceback" not in err
    result = read(Path("r.jsonl"))
    assert result.footer is not None and not result.footer.complete and result.footer.runs == len(result.runs) == 4
    assert "while releasing: " in str(result.footer.stopped) and str(error) in str(result.footer.stopped)
    assert f"weighbridge: stopped early: {result.footer.stopped}\n" in err


def test_run_with_report_after_an_error_of_a_release_writes_the_report(fake: type[Fake], call: Call) -> None:
    fake.of_image = ERRORS[0]
    assert call("run", "--targets", "bad", "--rounds", "1", "-o", "r.jsonl", "--report", "rep") == 4
    assert Path("rep/index.html").exists()


def test_run_that_is_interrupted_keeps_its_exit_code_after_an_error_of_a_release(
    fake: type[Fake], call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> Run:
        raise Interrupted(2)

    monkeypatch.setattr(campaign, "measure", interrupt)
    fake.of_engine = ERRORS[0]
    assert call("run", "--targets", "bad", "-o", "r.jsonl") == 130
    footer = read(Path("r.jsonl")).footer
    assert footer is not None and str(footer.stopped).startswith("interrupted by SIGINT; while releasing: ")


def test_run_whose_daemons_cannot_be_found_records_the_reason(fake: type[Fake], call: Call) -> None:
    fake.unreachable = True
    assert call("run", "--targets", "good", "--rounds", "1", "-o", "r.jsonl") == 0
    samples = [sample for host in read(Path("r.jsonl")).hosts for sample in host.samples if sample.group == "daemon"]
    assert samples and all("Connection refused" in str(sample.reason) for sample in samples)


@pytest.mark.parametrize("where", ["of_image", "of_engine"])
@each_error
def test_doctor_after_an_error_of_a_release_checks_the_other_targets(
    fake: type[Fake], call: Call, capsys: pytest.CaptureFixture[str], error: Exception, where: str
) -> None:
    setattr(fake, where, error)
    assert call("doctor", "--targets", "bad,good") == 0
    first, second = capsys.readouterr().out.split("\ngood")
    assert "launch: ready after 250 ms" in first and f"{error}. Try: run `weighbridge clean`" in first
    assert "  release: no: " in first and "launch: ready after 250 ms" in second and "release" not in second


def test_doctor_with_something_left_behind_shows_every_target_and_exits_4(
    fake: type[Fake], call: Call, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def prepare(self: Fake, built: Bundle, limits: object) -> Any:
        return self.ledger.holding(refuse, name=self.options.target)

    with monkeypatch.context() as patched:
        patched.setattr(fake, "prepare", prepare)
        patched.setattr(doctor._Examination, "_launch", lambda *_: None)
        assert call("doctor", "--targets", "one,two", "--json") == 4
    out, err = capsys.readouterr()
    assert [found["target"] for found in msgspec.json.decode(out)] == ["one", "two"]
    assert err.count("left behind") == 2


def refuse(name: str) -> None:
    raise EngineError(f"{name} is in use")


def test_facts_after_an_error_of_a_release_are_shown_and_exit_4(
    fake: type[Fake], call: Call, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.of_image = ERRORS[0]
    monkeypatch.setattr(isolation, "read", lambda *_: cast(Isolation, {"kernel": "shared"}))
    assert call("facts", "bad", "--json") == 4
    out, err = capsys.readouterr()
    assert msgspec.json.decode(out)["isolation"] == {"kernel": "shared"}
    assert err.startswith("weighbridge: bad: while releasing: APIError: 500 Server Error")


# The exit code of an error that no command handles.


@pytest.mark.parametrize(
    ("error", "code"),
    [
        *((error, 4) for error in ERRORS[:4]),
        (ConnectionRefusedError(111, "Connection refused"), 4),
        (TimeoutError("timed out"), 4),
        (OSError(28, "No space left on device"), 2),
        (PermissionError(13, "Permission denied", "/a/file"), 2),
    ],
)
def test_error_of_an_engine_exits_4_and_one_of_the_system_2(
    call: Call, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: Exception, code: int
) -> None:
    def fail() -> None:
        raise error

    monkeypatch.setattr("harness.ledger.reap", fail)
    assert call("clean") == code
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("weighbridge: ") and err.count("\n") == 1


def test_error_of_the_program_itself_shows_its_traceback_and_does_not_exit_1(
    call: Call, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("harness.ledger.reap", lambda: 1 // 0)
    assert call("clean") == 70
    assert "ZeroDivisionError" in capsys.readouterr().err
    assert not engine_errors.is_engine_error(ZeroDivisionError())
