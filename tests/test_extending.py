"""docs/ARCHITECTURE.md says how to add a backend, a workload, a meter and a report format: its own examples are added.

They are taken from the page, installed as a package of somebody else's, and run by the commands that stand there.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from harness import meters
from harness.backends import Unseen
from harness.errors import BadInput, Unavailable
from harness.model import Record, Run, Sample, headline
from harness.report import formats, markdown
from harness.report.summary import summarize
from harness.store import Result, read
from tests.children import Told, child, gone
from tests.ground import REPOSITORY, Ground, Said, ground

if TYPE_CHECKING:
    from tests.conftest import EngineOrSkip

DOCUMENT = (REPOSITORY / "docs/ARCHITECTURE.md").read_text()
SAMPLE = REPOSITORY / "results/sample.jsonl"
FILES = dict(re.findall(r"^`([^`\n]+)`:\n\n```\w+\n(.*?)^```$", DOCUMENT, re.DOTALL | re.MULTILINE))
COMMANDS = [shlex.split(line) for line in re.findall(r"^weighbridge (.+)$", DOCUMENT, re.MULTILINE)]
OPEN = "files.open"


def install(site: Path, name: str, groups: dict[str, dict[str, str]]) -> None:
    """What an installer makes of a package's entry points, {group: {name: what it stands for}}, in a folder of them."""
    about = site / f"{name.replace('-', '_')}-1.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    lines = [
        line for group, points in groups.items() for line in (f"[{group}]", *(f"{k} = {v}" for k, v in points.items()))
    ]
    (about / "entry_points.txt").write_text("\n".join(lines) + "\n")


def write_the_documents(folder: Path) -> Path:
    """The files of the page in this folder; where Python finds the package that they are."""
    for name, content in FILES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    project = tomllib.loads(FILES["pyproject.toml"])["project"]
    install(folder / "src", project["name"], project["entry-points"])
    return folder / "src"


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of which all packages are installed in this process: the page's is."""
    site = write_the_documents(tmp_path)
    monkeypatch.syspath_prepend(site)
    meters.installed.cache_clear()
    yield site
    meters.installed.cache_clear()


def test_the_page_names_every_module() -> None:
    found = {f"{path.name}/" if path.is_dir() else path.name for path in (REPOSITORY / "harness").iterdir()}
    assert {name for name in found if not name.startswith("__") and f"`{name}`" not in DOCUMENT} == set()


def test_the_page_has_all_four() -> None:
    assert {path.rpartition("/")[2] for path in FILES} == {
        "pyproject.toml", "bubblewrap.py", "workload.toml", "start", "files.py", "tsv.py",
    }  # fmt: skip
    assert [arguments[0] for arguments in COMMANDS] == ["run", "report"]


def test_the_records_on_the_page_are_as_those_of_a_campaign() -> None:
    recorded = {record["kind"]: record for record in map(json.loads, SAMPLE.read_text().splitlines())}
    shown = [json.loads(block) for block in re.findall(r"^ *```json\n(.*?)^ *```$", DOCUMENT, re.DOTALL | re.MULTILINE)]
    assert {record["kind"] for record in shown} == {"target", "image", "run"}
    for record in shown:
        whole = msgspec.convert({**recorded[record["kind"]], **record}, Record)
        assert_within(record, msgspec.to_builtins(whole))


def assert_within(shown: Any, whole: Any) -> None:
    """That all of what is shown is in the whole."""
    if isinstance(shown, dict):
        for name, value in shown.items():
            assert_within(value, whole[name])
    elif isinstance(shown, list):
        for value, other in zip(shown, whole, strict=True):
            assert_within(value, other)
    else:
        assert shown == whole


@dataclass(frozen=True)
class Weighed:
    """What came of the commands on the page."""

    said: list[Said]
    result: Result
    report: Path
    left: list[str]

    def runs(self, target: str) -> list[Run]:
        return [run for run in self.result.runs if run.target == target]


@pytest.fixture(scope="module")
def place() -> Iterator[Ground]:
    with ground() as here:
        write_the_documents(here.folder)
        yield here


@pytest.fixture(scope="module")
def weighed(place: Ground) -> Weighed:
    environment = {"PYTHONPATH": f"{place.folder}/src:{os.environ.get('PYTHONPATH', '')}".rstrip(":")}
    said = [place.weighbridge(*arguments, environment=environment) for arguments in COMMANDS]
    assert [each.code for each in said] in ([0, 0], [3, 0]), said
    return Weighed(said, read(place.folder / "extras.jsonl"), place.folder / "extras", place.left())


@pytest.fixture
def there(engine_or_skip: EngineOrSkip, weighed: Weighed) -> Weighed:
    """Skips the test, or fails it, where the two targets cannot run here."""
    with engine_or_skip("host"):
        for absent in weighed.result.unavailable:
            raise Unavailable(absent.reason, absent.hint)
    return weighed


@pytest.mark.engine
def test_the_backend_is_weighed_as_the_others(there: Weighed) -> None:
    [record] = [record for record in there.result.targets if record.target == "bubblewrap"]
    assert record.engine == "bubblewrap"
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    runs = there.runs("bubblewrap")
    assert len(runs) == 3
    for run in runs:
        assert run.error is None
        assert run.facts["bundle"] == run.bundle_sha256
        assert run.facts["boot_id"] == boot
        assert run.facts["no_new_privs"] == 1
        for kind in ("mnt", "pid", "net", "ipc", "uts", "user"):
            assert run.facts["namespaces"][kind] != (Path("/proc/self/ns") / kind).stat().st_ino
        assert {limit.mechanism is not None for limit in run.limits.values()} == {True}
        groups = {sample.group for sample in run.samples if sample.metric == "memory.pss" and sample.value is not None}
        assert groups == {"workload", "supervisor"}
        for metric in ("memory.pss", "cpu.start", "disk.instance"):
            assert (headline(run.samples, metric) or 0) > 0
    assert there.left == []


@pytest.mark.engine
def test_the_workload_does_its_work(there: Weighed) -> None:
    [built] = there.result.bundles
    assert built.workload == "gzip"
    for run in there.result.runs:
        marks = [run.mark(name) for name in ("init", "packed", "ready")]
        assert None not in marks
        assert marks == sorted(mark for mark in marks if mark is not None)


@pytest.mark.engine
def test_the_meter_weighs_every_instance(there: Weighed) -> None:
    for run in there.result.runs:
        samples = {sample.group: sample.value for sample in run.samples if sample.metric == OPEN}
        # /init has its three and the doorbell, and waits in the same process that it began in.
        assert samples["workload"] == 4
        assert ("supervisor" in samples) == (run.target == "bubblewrap")


@pytest.mark.engine
def test_the_report_shows_them(there: Weighed) -> None:
    header, *rows = [line.split("\t") for line in (there.report / "headlines.tsv").read_text().splitlines()]
    assert header[:2] == ["Target", "Start-up"]
    assert [row[0] for row in rows] == ["host", "bubblewrap"]
    told = (there.report / "report.md").read_text()
    for target in ("host", "bubblewrap"):
        assert re.search(rf"^\| Open file descriptors at rest \| {target} \| \d\.\d\d \\\[", told, re.MULTILINE)
    assert "### Open file descriptors at rest, by group" in told
    assert str(there.report / "headlines.tsv") not in there.said[0].err


def test_what_the_meter_counts(site: Path) -> None:
    [meter] = meters.installed()
    assert [metric.name for metric in meter.metrics] == [OPEN]
    script = "files = [open('/dev/null') for _ in range(7)]; say(len(os.listdir('/proc/self/fd')) - 1)"
    with child(script) as held:
        instance = Told({"workload": Unseen("inside"), "vmm": [held.pid], "guest": [held.pid]})
        counted = {sample.group: sample for sample in meters.weigh(instance)}
    assert counted["vmm"].value == held.said[0]
    assert counted["guest"].value == 0
    assert counted["workload"].reason == "inside"
    assert headline(counted.values(), OPEN) == held.said[0]


def test_what_a_meter_raises_is_the_reason_of_a_null(site: Path) -> None:
    [sample] = meters.weigh(Told({"workload": [gone()]}))
    assert (sample.metric, sample.value) == (OPEN, None)
    assert "NoSuchProcess" in (sample.reason or "")


BAD = """
from harness.meters import Meter
from harness.metrics import Metric
from harness.model import Sample

GOOD = Metric("some.thing", "B", "Some thing")
no_meter = 42
of_ours = Meter((Metric("memory.pss", "B", "Ours"),), lambda instance: [])
of_none = Meter((GOOD,), lambda instance: [Sample("another.thing", "B", 1)])
of_another_unit = Meter((GOOD,), lambda instance: [Sample("some.thing", "s", 1)])
"""


@pytest.mark.parametrize(
    ("name", "metric", "told"),
    [
        ("absent", "meter.mine", "bad_meters:absent cannot be imported"),
        ("no_meter", "meter.mine", "bad_meters:no_meter is no Meter"),
        ("of_ours", "meter.mine", "names a metric memory.pss, which is the program's own"),
        ("of_none", "some.thing", "gave a sample of another.thing in B, which it did not name"),
        ("of_another_unit", "some.thing", "gave a sample of some.thing in s, which it did not name"),
    ],
)
def test_a_meter_that_does_not_work_says_why_and_harms_nothing(
    site: Path, monkeypatch: pytest.MonkeyPatch, name: str, metric: str, told: str
) -> None:
    (site / "bad_meters.py").write_text(BAD)
    install(site, "bad-meters", {"weighbridge.meters": {"mine": f"bad_meters:{name}"}})
    monkeypatch.delitem(sys.modules, "bad_meters", raising=False)
    found = {sample.metric: sample for sample in meters.weigh(Told({"workload": [os.getpid()]}))}
    assert set(found) == {OPEN, metric}
    assert found[OPEN].value
    assert found[metric].value is None
    assert told in (found[metric].reason or "")


def test_a_report_shows_what_a_meter_weighed_that_is_not_installed_here() -> None:
    sample = read(SAMPLE)
    weighed = [Sample("some.thing", "B", 2**20, part="left"), Sample("some.thing", "B", 2**20, part="right")]
    runs = [msgspec.structs.replace(run, samples=[*run.samples, *weighed]) for run in sample.runs]
    summary = summarize([replace(sample, runs=runs)])
    rows = [row for row in summary.campaigns[0].rows if row.metric == "some.thing"]
    assert {row.values for row in rows} == {(2.0**21,) * 7}
    assert {piece.name for row in rows for piece in row.pieces} == {"left", "right"}
    assert "\n| some.thing | host | redis | 2.00 MiB \\[2.00, 2.00\\] n=7 | 1 (reference) |" in markdown.render(summary)


def test_a_format_is_written_where_it_is_asked_for(site: Path, tmp_path: Path) -> None:
    assert formats.write([read(SAMPLE)], tmp_path / "out", ["tsv"]) == [tmp_path / "out/headlines.tsv"]
    with pytest.raises(BadInput, match=r"no report format 'csw': choose among html, md, csv, json, .*, tsv"):
        formats.write([read(SAMPLE)], tmp_path / "out", ["csw"])


def test_a_format_that_cannot_be_imported_is_bad_input(site: Path, tmp_path: Path) -> None:
    install(site, "bad-formats", {"weighbridge.reports": {"bad": "weighbridge_absent:write"}})
    with pytest.raises(BadInput, match="the report format bad: weighbridge_absent:write cannot be imported"):
        formats.write([read(SAMPLE)], tmp_path / "out", ["bad"])
    assert not (tmp_path / "out").exists()
