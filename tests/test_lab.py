"""The lab: what came out proves KVM, its numbers are marked wherever they are shown, and nothing outlives it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

import msgspec
import psutil
import pytest
from matplotlib.text import Text

from harness import bundle, comparable, host, workloads
from harness.errors import BadInput, Incomparable, RunError, StartTimeout
from harness.ledger import Ledger
from harness.report import charts, ci, html, markdown, pictures
from harness.report.summary import summarize
from harness.store import Result
from harness.vm import guest
from lab import machine, proof
from lab.inside import KVM, TCG
from lab.system import System
from tests.ground import REPOSITORY, lasting
from tests.weighing import full

if TYPE_CHECKING:
    from tests.conftest import EngineOrSkip

RESULTS = REPOSITORY / "results/lab"
MARK = "lab: nested under emulation"


# What came out of the lab, and what would prove nothing.


def test_the_committed_lab_proves_that_kvm_ran_its_guests() -> None:
    proven = proof.of(RESULTS, machine.NAMED)
    told = json.loads((RESULTS / "lab.json").read_text())["proof"]
    assert told == json.loads(msgspec.json.encode(proven))
    assert proven.runs == 8 and proven.exits[0] > 1000
    assert proven.ratio > 3


Change = Callable[[dict[str, Any]], None]


def no_kvm(record: dict[str, Any]) -> None:
    if record.get("accelerated"):
        record["accelerated"]["enabled"] = False


def no_exits(record: dict[str, Any]) -> None:
    if record.get("accelerated"):
        record["accelerated"]["counters"] = {}


def not_asked(record: dict[str, Any]) -> None:
    record.pop("accelerated", None)


def by_tcg(record: dict[str, Any]) -> None:
    if record.get("accelerator"):
        record["accelerator"] = "tcg"


def a_machine_that_is_none(record: dict[str, Any]) -> None:
    if record.get("target") == "libvirt/direct":
        record.pop("accelerated", None)
        if record["kind"] == "target":
            record["accelerator"] = None


def one_round_less(record: dict[str, Any]) -> None:
    if record["kind"] == "run" and record["target"] == "libvirt/direct" and record["round"] == 3:
        record["target"] = "libvirt/pc"


def unmarked(record: dict[str, Any]) -> None:
    if record["kind"] == "header":
        record["host"]["gating"].pop("lab")


def failed(record: dict[str, Any]) -> None:
    if record["kind"] == "run" and record["target"] == "docker":
        record |= {"ok": False, "error": {"phase": "waiting", "type": "StartTimeout", "message": "too late", "log": ""}}


def cut_short(record: dict[str, Any]) -> None:
    if record["kind"] == "footer":
        record |= {"complete": False, "stopped": "interrupted by SIGTERM"}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (no_kvm, "QEMU says that KVM is not enabled"),
        (no_exits, "KVM has counted 0 exits"),
        (not_asked, "QEMU says nothing"),
        (by_tcg, "ran by tcg, not kvm"),
        (a_machine_that_is_none, "libvirt/direct ran by None, not kvm"),
        (one_round_less, "has not run once in each round"),
        (unmarked, "marked None, and it was on nested under emulation"),
        (failed, "docker failed while waiting: too late"),
        (cut_short, "did not come to its end"),
    ],
)
def test_what_proves_nothing_is_refused(change: Change, told: str, tmp_path: Path) -> None:
    records = [json.loads(line) for line in (RESULTS / KVM).read_text().splitlines()]
    for record in records:
        change(record)
    (tmp_path / KVM).write_text("".join(f"{json.dumps(record)}\n" for record in records))
    shutil.copy(RESULTS / TCG, tmp_path)
    with pytest.raises(RunError, match=told):
        proof.of(tmp_path, machine.NAMED)


def test_a_kvm_that_is_no_faster_than_software_is_none(tmp_path: Path) -> None:
    shutil.copy(RESULTS / KVM, tmp_path)
    records = [json.loads(line) for line in (RESULTS / TCG).read_text().splitlines()]
    for record in records:
        if record["kind"] == "run":
            record["marks"] = [[name, at / 50] for name, at in record["marks"]]
    (tmp_path / TCG).write_text("".join(f"{json.dumps(record)}\n" for record in records))
    with pytest.raises(RunError, match="what was called KVM is none"):
        proof.of(tmp_path, machine.NAMED)


def test_a_lab_out_of_which_nothing_came_is_told(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=KVM):
        proof.of(tmp_path, machine.NAMED)


# Its numbers are marked.


@pytest.fixture(scope="module")
def marked() -> Result:
    """A full weighing, as if a lab had made it."""
    result = full()
    gating = {**result.header.host.gating, "lab": machine.NAMED}
    known = msgspec.structs.replace(result.header.host, gating=gating)
    return replace(result, header=msgspec.structs.replace(result.header, host=known))


def test_a_machine_says_of_itself_that_it_is_a_lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    product = tmp_path / "product_name"
    monkeypatch.setattr(host, "PRODUCT", product)
    assert host.lab() is None and "lab" not in host.describe().gating
    product.write_text("Standard PC (Q35 + ICH9, 2009)\n")
    assert host.lab() is None and host.describe().lab is None
    product.write_text(f"{host.LAB}{machine.NAMED}\n")
    assert host.describe().lab == MARK


def test_every_table_marks_every_target(marked: Result) -> None:
    """Of tables: each row that is about a target, and each column of a matrix."""
    summary = summarize([marked])
    lines = markdown.render(summary).splitlines()
    rows = [line.split(" | ") for line in lines if line.startswith("| ")]
    named = [cell.strip("| ") for row in rows for cell in row if cell.strip("| ").split(" · ")[0] in targets(marked)]
    assert len(named) > 100
    assert {cell for cell in named if MARK not in cell} == set()


def targets(result: Result) -> set[str]:
    return {target.target for target in result.targets}


def test_every_picture_marks_every_row(marked: Result) -> None:
    summary = summarize([marked])
    for picture in pictures.draw(summary):
        told = [text.get_text() for text in picture.figure.findobj(Text) if isinstance(text, Text)]
        names = [text for text in told if text in targets(marked)]
        assert len(names) >= len(marked.targets)
        assert " ".join(told).count("nested under") == len(names)


def test_every_chart_of_a_page_marks_every_line(marked: Result) -> None:
    summary = summarize([marked])
    drawn = [*charts.strips(summary, "startup.total"), *charts.stacks(summary, "memory.pss")]
    drawn += charts.waterfalls(summary)
    lines = [line for chart in drawn for line in chart.lines]
    assert {line.ran for line in lines if MARK not in line.ran} == set()
    machines = {line.ran for line in lines if line.target == "libvirt/pc"}
    assert machines == {f"QEMU TCG (no KVM: /dev/kvm is not there) · {MARK}"}
    assert f"({MARK})" in html.render(summary, [marked])


def test_the_first_sentence_says_that_it_is_of_a_lab(marked: Result) -> None:
    page = html.render(summarize([marked]), [marked])
    assert f"<h1>{MARK}. These numbers compare its targets with each other" in page
    assert f"<p>On this machine ({MARK}) a Docker container" in page


def test_for_ci_a_lab_is_another_series(marked: Result) -> None:
    names = {number.place for number in ci.numbers(summarize([marked]), [marked])}
    assert names and all(name.endswith(f" · {MARK}") for name in names)


def test_a_lab_is_never_compared_with_another_machine(marked: Result) -> None:
    comparable.check([marked, marked])
    with pytest.raises(Incomparable, match=f"lab: None or {machine.NAMED}"):
        comparable.check([full(), marked])


# Its machine, and a stand-in for it: a kernel that boots, says so, and then does nothing for ever.


@pytest.fixture(scope="module")
def hanging(engine_or_skip: EngineOrSkip, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder that is like that of the lab's Debian, without a Debian."""
    folder = tmp_path_factory.mktemp("hanging")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in lasting().environment.items():
            patch.setenv(name, value)
        with engine_or_skip("qemu"):
            machine.emulator()
        kernel = guest.kernel()
        script = folder / "init"
        script.write_text("#!/bin/sh\necho 'here I am'\nwhile :; do /bin/busybox sleep 1000; done\n")
        busybox = bundle.build(workloads.load("hello")).root / "bin/busybox"
        shutil.copy(kernel.image, folder / "vmlinuz")
        shutil.copy(guest.initramfs(busybox, kernel, (), script), folder / "initramfs")
        (folder / "disk.ext4").touch()
        os.truncate(folder / "disk.ext4", 2**20)
        yield folder


def arguments(folder: Path) -> list[str]:
    return machine.arguments(System(folder, new=False), folder / "disk.ext4")


@pytest.mark.engine
def test_a_machine_that_hangs_ends_at_its_deadline_with_its_console_told(hanging: Path, tmp_path: Path) -> None:
    heard: list[str] = []
    began = monotonic()
    with (
        Ledger() as ledger,
        pytest.raises(StartTimeout, match="not come to its end in time"),
        machine.ran(arguments(hanging), ledger, tmp_path, began + 30, heard.append),
    ):
        raise AssertionError("it never ends")
    assert monotonic() - began < 45
    assert "here I am" in heard
    assert emulators(hanging) == []


def emulators(place: Path) -> list[int]:
    """The pids of the QEMUs of this lab."""
    everything = psutil.process_iter(["cmdline"])
    return [each.pid for each in everything if any(str(place) in word for word in each.info["cmdline"] or ())]


RUNS = """
import sys
from pathlib import Path
from time import monotonic
from harness import signals
from harness.ledger import Ledger
from lab import machine
from lab.system import System

place = Path(sys.argv[1])
with signals.interruptible(), Ledger() as ledger, ledger.holding_folder() as folder:
    say = lambda line: print(line, flush=True)
    argued = machine.arguments(System(place, False), place / "disk.ext4")
    with machine.ran(argued, ledger, folder, monotonic() + 300, say):
        pass
"""


@pytest.mark.engine
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_nothing_outlives_whoever_runs_the_lab(hanging: Path, number: signal.Signals) -> None:
    environment = {**os.environ, **lasting().environment, "PYTHONPATH": str(REPOSITORY)}
    argv = [sys.executable, "-c", RUNS, str(hanging)]
    with subprocess.Popen(argv, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as child:
        assert child.stdout is not None
        assert any("here I am" in line for line in child.stdout)
        emulator = [psutil.Process(pid) for pid in emulators(hanging) if pid != child.pid]
        assert len(emulator) == 1
        child.send_signal(number)
        assert child.wait(30) != 0
        psutil.wait_procs(emulator, 30)
    assert emulators(hanging) == []
