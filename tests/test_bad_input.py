"""Whatever is wrong is told in one clear line and by an exit code; never by a traceback, never by silence."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from harness import bundle, cli
from harness.backends.namespace import UsernsChroot
from harness.command import CommandFailed
from harness.errors import Unavailable
from harness.model import Run, TargetRecord
from harness.store import Result, read
from tests.ground import TIMEOUT, WORKLOADS, Ground, Said, ground

if TYPE_CHECKING:
    from tests.conftest import EngineOrSkip

BAD_INPUT, NOTHING_RAN, SOME_FAILED = 2, 3, 4
Call = Callable[..., Said]
DEEP = b"[" * 5000 + b"]" * 5000
GOLDEN = Path(__file__).parent / "golden"
NOBODY = ("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups")

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Call:
    """Calls the program within this process."""
    monkeypatch.setenv("WEIGHBRIDGE_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("WEIGHBRIDGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str | Path) -> Said:
        monkeypatch.setattr(sys, "argv", ["weighbridge", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            cli.main()
        code = end.value.code
        assert isinstance(code, int)
        return Said(code, *capfd.readouterr())

    return call


def one_line(said: Said, code: int, *words: str) -> None:
    """All that it says is one line with these words, and it ends with this code."""
    assert said.code == code, said.err
    assert said.out == ""
    assert said.err.startswith("weighbridge: ")
    assert said.err.count("\n") == 1, said.err
    for word in words:
        assert word in said.err


# What is asked for on the command line.


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["bogus"], ["bogus"]),
        (["run", "--bogus"], ["--bogus"]),
        (["run", "one.toml", "two.toml"], ["two.toml"]),
        (["report"], ["FILE"]),
        (["run", "--targets", "nope"], ["'nope'", "known:", "host"]),
        (["run", "--targets", ""], ["no target"]),
        (["run", "--targets", "host,host"], ["host", "twice"]),
        (["run", "--targets", "host/x"], ["host/x", "'x'"]),
        (["run", "--targets", "docker/runtime"], ["'runtime'", "runtime="]),
        (["run", "--targets", "libvirt"], ["libvirt/pc"]),
        (["run", "--targets", "libvirt/pc,accel=hvf"], ["accel", "kvm or tcg"]),
        (["run", "--targets", "namespace/pid,nett"], ["nett", "known:"]),
        (["run", "--workloads", "nope"], ["'nope'", "hello"]),
        (["run", "--workloads", ""], ["no workload"]),
        (["run", "--rounds", "0"], ["rounds"]),
        (["run", "--rounds", "-1"], ["rounds"]),
        (["run", "--rounds", "abc"], ["rounds", "abc"]),
        (["run", "--cpus", "0"], ["cpus"]),
        (["run", "--cpus", "nan"], ["cpus"]),
        (["run", "--cpus", "inf"], ["cpus", "inf"]),
        (["run", "--memory", "0"], ["memory"]),
        (["run", "--memory", "lots"], ["'lots'", "256M"]),
        (["run", "--memory", "-5"], ["'-5'"]),
        (["run", "--budget", "soon"], ["'soon'", "10m"]),
        (["run", "--budget", "0"], ["budget"]),
        (["run", "--timeout", "none"], ["'none'"]),
        (["run", "--seed", "x"], ["seed"]),
        (["run", "--engines", "theirs"], ["theirs", "private"]),
        (["run", "--targets", "libvirt/pc", "--kernel", "/nonexistent"], ["/nonexistent", "No such file"]),
        (["run", "--targets", "libvirt/pc", "--kernel", __file__], [__file__, "not a Linux kernel"]),
        (["run", "--targets", "libvirt/pc", "--modules", "/nonexistent"], ["modules", "kernel"]),
        (["run", "--targets", "libvirt/profile=/nonexistent.xml"], ["/nonexistent.xml", "No such file"]),
        (["run", "--targets", f"libvirt/profile={__file__}"], [__file__, "the profile"]),
        (["run", "--targets", "qemu/pc,q35"], ["q35", "known:", "micro"]),
        (["run", "absent.toml"], ["absent.toml", "No such file"]),
        (["run", "/"], ["/", "directory"]),
        (["report", "absent.jsonl", "-o", "there"], ["absent.jsonl", "No such file"]),
        (["report", "/", "-o", "there"], ["directory"]),
    ],
)
def test_what_cannot_be_meant(call: Call, arguments: list[str], words: list[str], tmp_path: Path) -> None:
    one_line(call(*arguments), BAD_INPUT, *words)
    assert not (tmp_path / "results").exists()
    assert list((tmp_path / "state").rglob("*.jsonl")) == []


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"rouns = 3", ["rouns", "known:", "rounds"]),
        (b'rounds = "many"', ["rounds", "int", "str"]),
        (b"targets = 3", ["targets"]),
        (b"this is no TOML", ["plan.toml", "line 1"]),
        (b"\x00\xff\xfe" * 100, ["plan.toml"]),
        (b"targets = " + b"[" * 5000 + b"]" * 5000, ["plan.toml", "nested deeper than"]),
        (b"base" + b".a" * 5000 + b" = 1", ["plan.toml", "nested deeper than"]),
        (b"rounds = " + b"9" * 5000, ["plan.toml", "4300 digits"]),
    ],
)
def test_a_plan_that_is_none(call: Call, tmp_path: Path, content: bytes, words: list[str]) -> None:
    (tmp_path / "plan.toml").write_bytes(content)
    one_line(call("run", "plan.toml"), BAD_INPUT, *words)


def test_two_workloads_of_one_name(call: Call, tmp_path: Path) -> None:
    for folder in ("a/dies", "b/dies"):
        shutil.copytree(WORKLOADS / "dies", tmp_path / folder)
    one_line(call("run", "--workloads", "a/dies,b/dies"), BAD_INPUT, "a/dies", "b/dies", "same name")


# Result files.


@pytest.fixture
def content() -> bytes:
    """A result as this program writes it: the golden one of the schema."""
    [golden] = GOLDEN.glob("*.jsonl")
    return golden.read_bytes()


def test_a_result_that_is_cut_short_is_reported(call: Call, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "cut.jsonl").write_bytes(content[: content.rindex(b'{"kind":"footer"') - 40])
    said = call("report", "cut.jsonl", "-o", "there", "--format", "json")
    assert said.code == 0, said.err
    assert "cut short" in " ".join(said.out.split())
    assert (tmp_path / "there/summary.json").is_file()


def change(content: bytes, kind: str, do: Callable[[dict[str, Any]], None]) -> bytes:
    """The result with the first record of that kind changed."""
    lines = content.splitlines()
    number = next(n for n, line in enumerate(lines) if json.loads(line)["kind"] == kind)
    record = json.loads(lines[number])
    do(record)
    lines[number] = json.dumps(record).encode()
    return b"\n".join(lines) + b"\n"


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda content: b"", ["is empty"]),
        (lambda content: b"\n\n", ["is empty"]),
        (lambda content: bytes(range(256)) * 20, ["not a Weighbridge result"]),
        (lambda content: b'{"rows": [1, 2]}\n', ["not a Weighbridge result"]),
        (lambda content: content[:100], ["not a Weighbridge result"]),
        (lambda content: content.replace(b"weighbridge/1", b"weighbridge/2", 1), ["newer", "weighbridge/2"]),
        (lambda content: content.replace(b"\n", b"\n\x00\xff\n", 1), ["line 2"]),
        (lambda content: change(content, "run", lambda run: run["marks"].append(["late", float("nan")])), ["line"]),
        (lambda content: change(content, "run", lambda run: run["marks"].insert(0, ["early", -1])), ["line", "0"]),
        (lambda content: change(content, "run", lambda run: run["samples"][0].update(value=-5, reason=None)), ["line"]),
        (lambda content: change(content, "run", lambda run: run.pop("marks")), ["line", "marks"]),
        (lambda content: content + content, ["second header"]),
        (lambda content: content.replace(b'"facts":{', b'"facts":{"x":' + DEEP + b",", 1), ["line", "nested"]),
        (lambda content: content.replace(b'"plan":{', b'"plan":{"x":' + DEEP + b",", 1), ["nested"]),
    ],
    ids=["empty", "blank", "binary", "other JSON", "cut in its header", "newer", "binary line", "NaN", "negative time",
         "negative memory", "a field is missing", "twice", "deep facts", "deep header"],
)  # fmt: skip
def test_a_result_that_is_none(
    call: Call, tmp_path: Path, content: bytes, spoil: Callable[[bytes], bytes], words: list[str]
) -> None:
    (tmp_path / "spoilt.jsonl").write_bytes(spoil(content))
    one_line(call("report", "spoilt.jsonl", "-o", "there"), BAD_INPUT, "spoilt.jsonl", *words)
    assert not (tmp_path / "there").exists()


@pytest.mark.parametrize("formats", ["odt", "", "md,"])
def test_a_format_that_there_is_not(call: Call, tmp_path: Path, content: bytes, formats: str) -> None:
    (tmp_path / "good.jsonl").write_bytes(content)
    one_line(call("report", "good.jsonl", "-o", "there", "--format", formats), BAD_INPUT, "format", "html")


@pytest.mark.parametrize("name", ["github-action-benchmark", "bencher", "openmetrics"])
def test_two_campaigns_whose_numbers_share_their_names(call: Call, tmp_path: Path, content: bytes, name: str) -> None:
    (tmp_path / "one.jsonl").write_bytes(content)
    (tmp_path / "two.jsonl").write_bytes(change(content, "header", lambda header: header.update(campaign="second")))
    one_line(call("report", "one.jsonl", "two.jsonl", "-o", "there", "--format", name), BAD_INPUT, name, "and second")


@pytest.mark.parametrize("where", ["good.jsonl", "/proc/there", "/dev/null/there"])
def test_a_report_has_to_go_somewhere(call: Call, tmp_path: Path, content: bytes, where: str) -> None:
    (tmp_path / "good.jsonl").write_bytes(content)
    one_line(call("report", "good.jsonl", "-o", where), BAD_INPUT, where)


@pytest.mark.parametrize("where", ["/proc/result.jsonl", "/", "/dev/null", "plain/result.jsonl"])
def test_a_result_has_to_go_somewhere(call: Call, tmp_path: Path, where: str) -> None:
    (tmp_path / "plain").touch()
    one_line(call("run", "--targets", "host", "-o", where), BAD_INPUT, where)


def test_places_that_cannot_be_made(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEIGHBRIDGE_STATE", "/dev/null/state")
    one_line(call("run", "--targets", "host"), BAD_INPUT, "/dev/null/state", "WEIGHBRIDGE_STATE")


# Whole campaigns.


@pytest.fixture(scope="module")
def place() -> Iterator[Ground]:
    with ground() as here:
        yield here


def runs(result: Result, target: str, workload: str) -> list[Run]:
    return [run for run in result.runs if (run.target, run.workload) == (target, workload)]


@pytest.mark.long
@as_root
def test_nobody_cannot_write_there(content: bytes) -> None:
    with ground(65534) as here:
        (here.folder / "locked").mkdir(mode=0o755)
        (here.folder / "good.jsonl").write_bytes(content)
        home = {"MPLCONFIGDIR": str(here.folder), "HOME": str(here.folder)}
        said = here.weighbridge("report", "good.jsonl", "-o", "locked", environment=home, prefix=NOBODY)
        one_line(said, BAD_INPUT, "locked", "Permission denied")
        said = here.weighbridge(
            "run", "--targets", "namespace", "-o", "locked/result.jsonl", environment=home, prefix=NOBODY
        )
        one_line(said, BAD_INPUT, "locked/result.jsonl", "Permission denied")


@pytest.mark.engine
def test_no_engine_at_all(place: Ground, tmp_path: Path) -> None:
    said = place.weighbridge(
        *("run", "--targets", "docker", "--engines", "user", "--progress", "none", "-o", "none.jsonl"),
        environment={"PATH": str(tmp_path), "DOCKER_HOST": f"unix://{tmp_path}/docker.sock"},
    )
    assert said.code == NOTHING_RAN
    [absent, summary, nothing] = said.told
    assert "there is no Docker socket" in absent
    assert "Try: " in absent
    assert "0 runs" in summary
    assert nothing.startswith("weighbridge: nothing was measured: no target can run here")
    [record] = read(place.folder / "none.jsonl").unavailable
    assert record.target == "docker"
    assert record.reason
    assert record.hint


BAD = ("dies", "silent", "lies", "babbles")
SHARING_THE_KERNEL = ("host", "namespace", "docker")


@pytest.fixture(scope="module")
def spoilt(place: Ground, engine_or_skip: EngineOrSkip) -> tuple[Said, Result]:
    """Workloads that end, are never ready, or lie, beside one that is as it should be. For VMs see test_libvirt."""
    named = ",".join(["hello", *(str(WORKLOADS / name) for name in BAD)])
    said = place.weighbridge(
        *("run", "--targets", ",".join(SHARING_THE_KERNEL), "--workloads", named, "--engines", "private"),
        *("--rounds", "1", "--timeout", "3s", "--progress", "none", "-o", "spoilt.jsonl"),
    )
    return said, read(place.folder / "spoilt.jsonl")


@pytest.fixture(params=SHARING_THE_KERNEL)
def target(request: pytest.FixtureRequest, engine_or_skip: EngineOrSkip, spoilt: tuple[Said, Result]) -> str:
    wanted: str = request.param
    with engine_or_skip(wanted.partition("/")[0]):
        for absent in spoilt[1].unavailable:
            if absent.target == wanted:
                raise Unavailable(absent.reason, absent.hint)
    return wanted


@pytest.mark.engine
def test_failed_runs_do_not_end_a_campaign(spoilt: tuple[Said, Result], place: Ground) -> None:
    said, result = spoilt
    assert said.code == SOME_FAILED, said.err
    assert "Traceback" not in said.err
    assert "failed" in said.out
    assert result.footer is not None
    targets = 3 - len({absent.target for absent in result.unavailable})
    assert (result.footer.complete, result.footer.runs) == (True, 2 * 5 * targets)
    assert result.footer.failed == sum(not run.ok for run in result.runs)
    assert place.left() == []


@pytest.mark.engine
@pytest.mark.parametrize(
    ("workload", "phases", "kind", "message", "log"),
    [
        ("dies", {"starting", "waiting"}, "ExitedBeforeReady", "ended before READY", "there is no database here"),
        ("silent", {"waiting"}, "StartTimeout", "no READY within 3 s", "waiting for nothing"),
        ("lies", {"weighing"}, "RunError", "FACTS are not JSON", "lies: all is well"),
    ],
)
def test_a_bad_workload_fails_with_its_reason(
    spoilt: tuple[Said, Result], target: str, workload: str, phases: set[str], kind: str, message: str, log: str
) -> None:
    mine = runs(spoilt[1], target, workload)
    assert len(mine) == 2
    for run in mine:
        assert run.error is not None
        assert run.error.phase in phases
        assert run.error.type == kind
        assert message in run.error.message
        assert log in run.error.log
        assert (run.mark("ready") is not None) == (workload == "lies")
        assert run.mark("gone") is not None
        if workload == "dies":
            assert "status 7" in run.error.message


@pytest.mark.engine
@pytest.mark.parametrize("workload", ["hello", "babbles"])
def test_the_others_are_measured_all_the_same(spoilt: tuple[Said, Result], target: str, workload: str) -> None:
    mine = runs(spoilt[1], target, workload)
    assert [run.error for run in mine] == [None, None]
    for run in mine if workload == "babbles" else ():
        names = [name for name, _ in run.marks if name not in ("created", "settled", "unsettled", "start-returned")]
        assert names == ["requested", "init", "loaded", "ready", "stopping", "gone"]


SMALL_DISK = """
    set -e
    mount -t tmpfs -o size=32k small "$1"
    shift
    code=0
    "$@" || code=$?
    cat small/result.jsonl >kept.jsonl
    exit $code
"""


@as_root
@pytest.mark.engine
def test_a_full_disk(place: Ground) -> None:
    """The one line, no run is half written, and all is released."""
    small = place.folder / "small"
    small.mkdir()
    said = place.weighbridge(
        *("run", "--targets", "namespace", "--rounds", "200", "--progress", "none", "-o", "small/result.jsonl"),
        prefix=("unshare", "--mount", "--propagation", "private", "sh", "-c", SMALL_DISK, "sh", str(small)),
    )
    one_line(said, BAD_INPUT, "small/result.jsonl", "No space left on device")
    result = read(place.folder / "kept.jsonl")
    assert len(result.runs) > 5
    assert all(run.ok for run in result.runs)
    assert place.left() == []


@as_root
@pytest.mark.engine
def test_a_full_disk_below_the_program(place: Ground) -> None:
    folder = place.folder / "full"
    folder.mkdir()
    prepare = 'mount -t tmpfs -o size=16k full "$1"; head -c 1M /dev/zero >"$1/filler" 2>/dev/null; shift; exec "$@"'
    said = place.weighbridge(
        *("run", "--targets", "namespace", "--rounds", "1", "--progress", "none", "-o", "never.jsonl"),
        environment={"WEIGHBRIDGE_STATE": str(folder)},
        prefix=("unshare", "--mount", "--propagation", "private", "sh", "-c", prepare, "sh", str(folder)),
    )
    one_line(said, BAD_INPUT, "No space left on device")


def test_a_bundle_that_cannot_be_built(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a full disk dpkg-deb fails: that is told of every target, and is nobody's traceback."""

    def build(_: object) -> bundle.Bundle:
        raise CommandFailed(["dpkg-deb"], 2, "error: cannot copy: No space left on device")

    monkeypatch.setattr(bundle, "build", build)
    monkeypatch.setattr(UsernsChroot, "probe", lambda self: TargetRecord("userns-chroot", "Linux", "1", "system"))
    said = call("run", "--targets", "userns-chroot", "--progress", "none", "-o", "result.jsonl")
    assert said.code == NOTHING_RAN
    assert "userns-chroot" in said.told[0]
    assert "No space left on device" in said.told[0]
    assert "Traceback" not in said.err


@pytest.mark.engine
def test_two_campaigns_cannot_write_one_file(place: Ground) -> None:
    argv = [sys.executable, "-c", "from harness.cli import main; main()", "run", "--targets", "namespace"]
    argv += ["--workloads", str(WORKLOADS / "silent"), "--rounds", "1", "--progress", "lines", "-o", "shared.jsonl"]
    with subprocess.Popen(
        argv, cwd=place.folder, env={**os.environ, **place.environment}, stderr=subprocess.PIPE, text=True
    ) as first:
        guard = threading.Timer(TIMEOUT, first.kill)
        guard.start()
        assert first.stderr is not None
        assert first.stderr.readline().startswith("preparing")
        said = place.weighbridge("run", "--targets", "namespace", "--progress", "none", "-o", "shared.jsonl")
        first.terminate()
        first.stderr.read()
        guard.cancel()
    one_line(said, BAD_INPUT, "shared.jsonl", "another campaign")
    assert read(place.folder / "shared.jsonl").footer is not None


@pytest.mark.engine
def test_an_earlier_result_is_kept(call: Call, place: Ground, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, value in place.environment.items():
        monkeypatch.setenv(name, value)
    contents = []
    for _ in range(3):
        said = call("run", "--targets", "namespace", "--rounds", "1", "--progress", "none", "-o", "again.jsonl")
        assert said.code == 0, said.err
        contents.append((tmp_path / "again.jsonl").read_bytes())
    assert (tmp_path / "again.jsonl.1").read_bytes() == contents[0]
    assert (tmp_path / "again.jsonl.2").read_bytes() == contents[1]
    assert "again.jsonl.2" in said.told[-1]
