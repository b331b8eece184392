"""doctor checks targets completely, prints each as soon as it is checked, and shows the same remedies as `run`."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import msgspec
import pytest
from rich.console import Console

from harness import backends, bundle, doctor
from harness.backends import Backend, Image, Options
from harness.bundle import Bundle
from harness.doctor import Check, Finding
from harness.errors import Unavailable
from harness.model import Applied, Failure, Plan, Run, Sample, TargetRecord
from harness.report import formats, terminal
from harness.report.markdown import escape
from harness.report.summary import summarize
from harness.store import read
from harness.vm import kvm
from harness.wording import not_here
from tests.ground import lasting

if TYPE_CHECKING:
    from tests.conftest import Call

DETAIL = "$ mmdebstrap bookworm root\nE: refused\nexit status 25"
NO_BUNDLE = Unavailable("mmdebstrap 1.5.7 could not unpack Debian's packages: refused", "`df -h /cache`", DETAIL)
JOIN = "run `sudo usermod -aG kvm alice`, then log in again"
BUILT = Bundle("hello", "0" * 64, 2**21, {}, Path("/nonexistent"))
RUN = Run(
    id="run", seq=0, target="fake", workload="hello", round=0, phase="warmup", bundle_sha256="0" * 64, ok=True,
    error=None, marks=[("requested", 0.0), ("ready", 0.25)], samples=[], limits={}, facts={},
)  # fmt: skip


class Fake(Backend):
    """An engine of a virtual machine without KVM, whose requirements may be missing."""

    name = "fake"
    absent: str | None = None
    remedy = JOIN

    def requirements(self) -> dict[str, Callable[[], str]]:
        return {"guest kernel": lambda: self._give("guest kernel") or "6.1"}

    def probe(self) -> TargetRecord:
        self._give("engine")
        return TargetRecord("fake", "Fake", "1", "private", "tcg", "not permitted to open /dev/kvm")

    @contextmanager
    def prepare(self, bundle: Bundle, limits: object) -> Iterator[Image]:
        self._give("image")
        yield Image(bundle, self.plan.limits, ())

    def _give(self, name: str) -> str:
        if self.absent == name:
            raise Unavailable(f"no {name}", f"get a {name}", DETAIL)
        return ""

    launch = cast(Any, None)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> type[Fake]:
    """The engine of every target, with a bundle that exists; a launch succeeds and measures nothing."""
    monkeypatch.setenv("WEIGHBRIDGE_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("WEIGHBRIDGE_CACHE", str(tmp_path / "cache"))

    class Mine(Fake):
        pass

    monkeypatch.setattr(backends, "create", lambda target, ledger, plan: Mine(Options(target), ledger, plan))
    monkeypatch.setattr(doctor, "measure", lambda *arguments: RUN)
    monkeypatch.setattr(bundle, "build", lambda workload: BUILT)
    return Mine


def examine(targets: str = "fake") -> list[Finding]:
    return list(doctor.examine(Plan(targets=tuple(targets.split(",")))))


def checks(finding: Finding) -> dict[str, bool]:
    return {check.name: check.works for check in finding.checks}


def test_examine_checks_everything_that_a_target_needs(fake: type[Fake]) -> None:
    [found] = examine()
    assert found.record is not None and found.record.remedy == found.hint == JOIN
    assert checks(found) == {
        "bundle": True, "guest kernel": True, "engine": True, "KVM": False, "image": True, "launch": True,
        "readings": True,
    }  # fmt: skip
    assert Check("KVM", False, "not permitted to open /dev/kvm", JOIN) in found.checks


def test_examine_without_a_bundle_nothing_can_run(monkeypatch: pytest.MonkeyPatch, fake: type[Fake]) -> None:
    def build(workload: object) -> Bundle:
        raise NO_BUNDLE

    monkeypatch.setattr(bundle, "build", build)
    for found in examine("one,two"):
        assert found.record is None and found.hint == "`df -h /cache`" and found.detail == DETAIL
        assert found.reason == f"workload hello: {NO_BUNDLE.reason}"


@pytest.mark.parametrize("name", ["guest kernel", "engine", "image"])
def test_examine_a_missing_part_is_named_with_its_remedy(fake: type[Fake], name: str) -> None:
    fake.absent = name
    [found] = examine()
    assert (found.record, found.reason, found.hint, found.detail) == (None, f"no {name}", f"get a {name}", DETAIL)
    assert found.checks[-1] == Check(name, False, f"no {name}", f"get a {name}")


def test_examine_failed_launch_makes_the_target_unavailable(monkeypatch: pytest.MonkeyPatch, fake: type[Fake]) -> None:
    failed = msgspec.structs.replace(RUN, ok=False, error=Failure("waiting", "StartTimeout", "not ready", "a log"))
    monkeypatch.setattr(doctor, "measure", lambda *arguments: failed)
    [found] = examine()
    assert found.record is None and found.reason == "an instance failed while waiting: not ready"
    assert found.detail == "a log" and "weighbridge facts fake" in (found.hint or "")


def test_examine_shows_limits_and_readings_that_this_user_does_not_get(
    monkeypatch: pytest.MonkeyPatch, fake: type[Fake]
) -> None:
    refused = "nothing is delegated to alice. Try: sudo loginctl enable-linger alice"
    samples = [
        Sample("memory.pss", "B", None, "workload", reason="not permitted to read /proc/7/smaps_rollup"),
        Sample("memory.pss", "B", 4096, "supervisor"),
        Sample("memory.charged", "B", None, reason=f"it has no control group of its own: {refused}"),
        Sample("cpu.rest", "1", None, reason="the kernel tells no such thing"),
    ]
    limits = {"cpus": Applied(1, "cfs quota"), "memory": Applied(2**28, None, reason=refused)}
    monkeypatch.setattr(doctor, "measure", lambda *_: msgspec.structs.replace(RUN, samples=samples, limits=limits))
    [found] = examine()
    shown = {check.name: check for check in found.checks}
    assert shown["limit cpus"] == Check("limit cpus", True, "1 by cfs quota")
    linger = "sudo loginctl enable-linger alice"
    assert shown["limit memory"] == Check("limit memory", False, "nothing is delegated to alice", linger)
    assert shown["reading memory.charged"].remedy == linger
    pss = shown["reading memory.pss"]
    assert "smaps_rollup" in pss.finding and pss.remedy is not None and pss.remedy.split()[0] in ("sudo", "docker")
    assert "reading cpu.rest" not in shown and "readings" not in shown


def test_examine_yields_each_target_before_the_next_is_checked(fake: type[Fake]) -> None:
    begun: list[str] = []
    examined = doctor.examine(Plan(targets=("one", "two")), begun.append)
    assert next(examined).target == "one"
    assert [name for name in begun if name.startswith("two")] == []
    assert next(examined).target == "two"
    assert begun[0] == "bundle hello" and "two: engine" in begun and "two: launch" in begun


def no_bundle(workload: object) -> Bundle:
    raise NO_BUNDLE


def test_doctor_prints_a_target_as_soon_as_it_is_known(
    monkeypatch: pytest.MonkeyPatch, call: Call, fake: type[Fake], capsys: pytest.CaptureFixture[str]
) -> None:
    printed: list[str] = []

    def slowly(plan: Plan, progress: object) -> Generator[Finding]:
        for target in plan.targets:
            printed.append(capsys.readouterr().out)
            yield Finding(target, reason="not installed", hint="sudo apt-get install it")

    monkeypatch.setattr(doctor, "examine", slowly)
    assert call("doctor", "--targets", "host,docker") == 3
    assert printed == ["", "host: not here: not installed. Try: sudo apt-get install it\n"]


def test_doctor_shows_every_failed_check_with_its_remedy(
    call: Call, fake: type[Fake], capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("doctor", "--targets", "fake") == 0
    out, err = capsys.readouterr()
    assert f"\n  KVM: no: not permitted to open /dev/kvm. Try: {JOIN}\n" in out
    assert "\n  launch: ready after 250 ms\n" in out
    assert err == ""  # progress is for a terminal
    fake.absent = "engine"
    assert call("doctor", "--targets", "one,two") == 3
    out = capsys.readouterr().out
    assert out.count("not here: no engine. Try: get a engine") == 2
    assert out.count("  $ mmdebstrap bookworm root\n  E: refused\n  exit status 25\n") == 1


def test_examine_software_emulation_that_is_asked_for_is_no_failure(
    monkeypatch: pytest.MonkeyPatch, call: Call, fake: type[Fake], capsys: pytest.CaptureFixture[str]
) -> None:
    """The reason and the remedy are those of `kvm.decide`, which every engine of virtual machines uses."""

    def probe(self: Backend) -> TargetRecord:
        found = kvm.decide(self.options.get("accel"), lambda: pytest.fail("no guest is booted"))
        self.remedy = found.hint
        return TargetRecord(self.options.target, "QEMU", "7.2", "private", "tcg", found.reason)

    monkeypatch.setattr(fake, "check", staticmethod(lambda options: None))
    monkeypatch.setattr(fake, "probe", probe)
    monkeypatch.setattr(backends, "create", lambda target, ledger, plan: fake(backends.parse(target)[1], ledger, plan))
    assert call("doctor", "--targets", "qemu/pc,accel=tcg") == 0
    out = capsys.readouterr().out
    assert "\n  KVM: not used, as the target asks by accel=tcg\n" in out and ": no: " not in out
    monkeypatch.setattr(kvm, "DEVICE", Path("/nonexistent/kvm"))
    assert call("doctor", "--targets", "qemu/pc") == 0
    assert "\n  KVM: no: there is no /nonexistent/kvm. Try: " in capsys.readouterr().out


def test_remedy_of_a_target_that_is_no_machine_is_not_about_kvm(
    monkeypatch: pytest.MonkeyPatch, call: Call, fake: type[Fake], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(fake, "probe", lambda self: TargetRecord("fake", "Fake", "1", "private"))
    assert call("doctor", "--targets", "fake") == 0
    sentence = f"fake: it runs, and can be improved. Try: {JOIN}\n"
    assert sentence in capsys.readouterr().out
    monkeypatch.setattr(bundle, "build", no_bundle)
    call("run", "--targets", "fake", "--progress", "none", "-o", str(tmp_path / "r.jsonl"))
    err = capsys.readouterr().err
    assert sentence in err and "KVM" not in err


@pytest.mark.parametrize(
    ("accelerator", "sentence"),
    [(None, "it runs, and can be improved"), ("kvm", "it runs, and can"), ("tcg", "not under KVM")],
)
def test_reports_announce_missing_kvm_only_of_a_machine_in_software(
    tmp_path: Path, accelerator: str | None, sentence: str
) -> None:
    golden = read(Path(__file__).parent / "golden/weighbridge-1.jsonl")
    first, *others = golden.targets
    first = msgspec.structs.replace(first, accelerator=accelerator, accelerator_reason=None, remedy=JOIN)
    others = [msgspec.structs.replace(each, remedy=None) for each in others]
    result = replace(golden, targets=[first, *others])
    console = Console(file=io.StringIO(), width=200, color_system=None)
    terminal.show(summarize([result]), console)
    assert isinstance(console.file, io.StringIO)
    assert f"{first.target}: {sentence}" in console.file.getvalue()
    written = {
        lang: "".join(p.read_text() for p in formats.write([result], tmp_path / lang, ["html"], lang))
        for lang in ("en", "zh")
    }
    assert (f"{first.target} under KVM" in written["en"]) == (accelerator == "tcg")
    if accelerator != "tcg":
        assert f"{first.target}, improved" in written["en"] and f"{first.target}\uff08改进后\uff09" in written["zh"]


def test_doctor_json_is_one_document(call: Call, fake: type[Fake], capsys: pytest.CaptureFixture[str]) -> None:
    assert call("doctor", "--targets", "one,two", "--json") == 0
    first, second = json.loads(capsys.readouterr().out)
    assert (first["target"], second["target"]) == ("one", "two")
    assert first["record"]["remedy"] == JOIN and {"name", "works", "finding", "remedy"} == set(first["checks"][0])


def test_doctor_shows_progress_on_a_terminal(
    monkeypatch: pytest.MonkeyPatch, call: Call, fake: type[Fake], capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    call("doctor", "--targets", "fake")
    assert "checking bundle hello ..." in capsys.readouterr().err


# The same remedies in `run`, the table and the report.


def test_run_prints_remedies_and_a_failed_command_once(
    monkeypatch: pytest.MonkeyPatch, call: Call, fake: type[Fake], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def build(workload: object) -> Bundle:
        raise NO_BUNDLE

    monkeypatch.setattr(bundle, "build", build)
    assert call("run", "--targets", "one,two", "--progress", "none", "-o", str(tmp_path / "r.jsonl")) == 3
    err = capsys.readouterr().err
    for target in ("one", "two"):
        assert f"weighbridge: {not_here(target, f'workload hello: {NO_BUNDLE.reason}', NO_BUNDLE.hint)}\n" in err
    assert err.count("  $ mmdebstrap bookworm root\n  E: refused\n  exit status 25\n") == 1
    assert f"not under KVM: not permitted to open /dev/kvm. Try: {JOIN}\n" in err
    result = read(tmp_path / "r.jsonl")
    assert [record.detail for record in result.unavailable] == [DETAIL, DETAIL]
    assert {record.remedy for record in result.targets} == {JOIN}


def test_reports_show_the_remedy_of_a_machine_without_kvm(tmp_path: Path) -> None:
    golden = read(Path(__file__).parent / "golden/weighbridge-1.jsonl")
    targets = [msgspec.structs.replace(t, remedy=JOIN if t.accelerator == "tcg" else None) for t in golden.targets]
    result = replace(golden, targets=targets)
    reason = next(t.accelerator_reason for t in targets if t.remedy) or ""
    paths = formats.write([result], tmp_path, ["html", "md", "json"])
    written = {path.suffix: path.read_text() for path in paths if path.suffix != ".png"}
    assert f"| libvirt/pc under KVM | {escape(reason)} | {escape(JOIN)} |" in written[".md"]
    assert "libvirt/pc under KVM" in written[".html"] and JOIN in written[".html"]
    [campaign] = json.loads(written[".json"])["campaigns"]
    assert JOIN in [configuration["remedy"] for configuration in campaign["configurations"]]
    console = Console(file=io.StringIO(), width=200, color_system=None)
    terminal.show(summarize([result]), console)
    assert isinstance(console.file, io.StringIO)
    assert f"libvirt/pc: not under KVM: {reason}. Try: {JOIN}\n" in console.file.getvalue()


@pytest.mark.engine
def test_doctor_of_a_real_target() -> None:
    """Builds the bundle and launches an instance; without a delegated control group limits have a remedy."""
    done = lasting().weighbridge("doctor", "--targets", "namespace")
    lines = done.out.splitlines()
    assert done.code == 0 and lines[0].startswith("namespace: util-linux unshare"), done.err
    assert [line.partition(":")[0] for line in lines[1:4]] == ["  bundle", "  image", "  launch"]
    assert "ready after" in lines[3]
    for line in lines[4:]:
        assert ": no: " not in line or ". Try: " in line, line
