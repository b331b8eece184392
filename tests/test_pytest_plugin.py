"""The pytest plugin, as a user's own suite has it: the tests below write suites, and run pytest on them.

Where no engine is needed the suite's `campaign` is a recorded one, in place of the plugin's, which would measure.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from harness.model import Failure, Run, UnavailableRecord
from harness.store import Result, Writer, read, startup
from tests.ground import TIMEOUT, Ground, Said, ground

pytestmark = pytest.mark.long

SAMPLE = Path(__file__).parents[1] / "results/sample.jsonl"
SUITE = """
import pytest

@pytest.mark.benchmark(group="mine")
def test_startup(benchmark, campaign, target, workload):
    campaign.replay(benchmark, target, workload)
"""
RECORDED = """
import pytest
from pathlib import Path
from harness.replay import RecordedCampaign
from harness.store import read

@pytest.fixture(scope="session")
def campaign():
    return RecordedCampaign(read(Path({path!r})))
"""
ZERO = "host" if os.geteuid() == 0 else "userns-chroot"


@pytest.fixture
def place() -> Iterator[Ground]:
    with ground() as made:
        yield made


def suite(place: Ground, text: str = SUITE, recorded: Path | None = None) -> None:
    """Writes a suite; recorded: the result file that is its campaign."""
    (place.folder / "pytest.ini").write_text("[pytest]\n")
    (place.folder / "test_mine.py").write_text(text)
    if recorded:
        (place.folder / "conftest.py").write_text(RECORDED.format(path=str(recorded)))


def run(place: Ground, *arguments: str | Path) -> Said:
    done = subprocess.run(
        [sys.executable, "-P", "-m", "pytest", *arguments],
        cwd=place.folder,
        env={name: value for name, value in os.environ.items() if "XDIST" not in name} | place.environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    return Said(done.returncode, done.stdout, done.stderr)


def benchmarks(file: Path) -> dict[str, Any]:
    """{name of the test: its benchmark} of what --benchmark-json wrote."""
    return {each["name"]: each for each in json.loads(file.read_text())["benchmarks"]}


def changed(place: Ground, change: Callable[[Run], Run | None], *records: UnavailableRecord) -> Path:
    """The sample with other runs, and with these records."""
    sample, path = read(SAMPLE), place.folder / "changed.jsonl"
    runs = [each for each in map(change, sample.runs) if each]
    ran = {each.target for each in runs}
    images = [image for image in sample.images if image.target in ran]
    with Writer(path) as writer:
        for record in (sample.header, *sample.bundles, *sample.targets, *records, *images, *runs, sample.footer):
            assert record is not None
            writer.append(record)
    return path


def started(result: Result, target: str, workload: str) -> list[float]:
    """startup.total of the measured launches."""
    asked = (target, workload, "measured")
    return [
        dict(startup(run))["startup.total"]
        for run in result.runs
        if (run.target, run.workload, run.phase) == asked and run.ok
    ]


def test_what_was_recorded_is_replayed_to_the_last_digit(place: Ground) -> None:
    suite(place, recorded=SAMPLE)
    said = run(place, "--benchmark-only", "--benchmark-json=b.json", "--weighbridge-workloads=hello,redis")
    assert said.code == 0, said.out
    sample, found = read(SAMPLE), benchmarks(place.folder / "b.json")
    cells = {
        f"test_startup[{target}-{workload}]": started(sample, target, workload)
        for target in ("host", "namespace", "docker", "libvirt/pc")
        for workload in ("hello", "redis")
    }
    assert {name: each["stats"]["data"] for name, each in found.items()} == cells
    assert {each["stats"]["rounds"] for each in found.values()} == {7}


def test_the_rest_of_the_weighing_is_in_extra_info(place: Ground) -> None:
    suite(place, recorded=SAMPLE)
    run(place, "--benchmark-only", "--benchmark-json=b.json", "-k", "docker")
    told = benchmarks(place.folder / "b.json")["test_startup[docker-hello]"]["extra_info"]
    sample = read(SAMPLE)
    mine = [run for run in sample.runs if (run.target, run.workload, run.phase) == ("docker", "hello", "measured")]
    assert told["runs"] == [run.id for run in mine]
    assert (told["campaign"], told["failed"], told["replayed"]) == (sample.header.campaign, 0, "startup.total")
    assert told["bundle"] == mine[0].bundle_sha256
    pss = [sum(s.value or 0 for s in run.samples if s.metric == "memory.pss") for run in mine]
    assert told["memory"]["memory.pss"]["values"] == pytest.approx(pss)
    assert told["memory"]["memory.pss"]["unit"] == "B"
    assert told["memory"]["memory.pss"]["n"] == 7
    assert any("supervisor" in part for part in told["memory"]["memory.pss"]["parts"])
    assert told["disk"]["disk.instance"]["median"] > 0
    assert told["disk"]["disk.shared"]["median"] > told["disk"]["disk.instance"]["median"]
    (isolation,) = told["isolation"]
    assert isolation["namespaces"]["pid"] == "own"


def test_all_of_pytest_benchmark_works_on_it(place: Ground) -> None:
    suite(place, recorded=SAMPLE)
    first = run(place, "--benchmark-save=first", "--benchmark-histogram=h/plot")
    assert first.code == 0, first.out
    assert (place.folder / "h/plot-mine.svg").stat().st_size > 1000
    assert list((place.folder / ".benchmarks").rglob("0001_first.json"))
    again = run(
        place,
        "--benchmark-autosave",
        "--benchmark-compare=0001",
        "--benchmark-compare-fail=median:1%",
        "--benchmark-columns=median,rounds",
        "--benchmark-cprofile=tottime",
        "-k",
        "namespace",
    )
    assert again.code == 0, again.out
    assert "(0001_first)" in again.out
    assert "Outliers " not in again.out
    assert "1 passed, 3 deselected" in again.out
    assert len(list((place.folder / ".benchmarks").rglob("*.json"))) == 2


def test_a_regression_that_was_recorded_fails_the_comparison(place: Ground) -> None:
    suite(place, recorded=SAMPLE)
    assert run(place, "--benchmark-save=first").code == 0

    def slower(run: Run) -> Run:
        return msgspec.structs.replace(run, marks=[(name, 2 * at) for name, at in run.marks])

    suite(place, recorded=changed(place, slower))
    said = run(place, "--benchmark-compare=0001", "--benchmark-compare-fail=median:50%")
    assert said.code != 0
    assert "Performance has regressed" in said.out + said.err


def test_an_unavailable_target_is_skipped_with_its_reason(place: Ground) -> None:
    absent = UnavailableRecord("docker", "no engine answers", "start one")
    suite(place, recorded=changed(place, lambda run: None if run.target == "docker" else run, absent))
    said = run(place, "-rs")
    assert said.code == 0
    assert "docker: not here: no engine answers. Try: start one" in said.out
    assert "3 passed, 1 skipped" in said.out


def test_a_failed_launch_fails_its_test_and_the_others_are_replayed(place: Ground) -> None:
    def failing(run: Run) -> Run:
        if (run.target, run.round, run.phase) != ("docker", 3, "measured"):
            return run
        return msgspec.structs.replace(run, ok=False, error=Failure("waiting", "StartTimeout", "no READY", ""))

    suite(place, recorded=changed(place, failing))
    said = run(place, "--benchmark-json=b.json")
    assert said.code == 1
    assert "1 of 7 launches failed" in said.out
    assert "while waiting: no READY" in said.out
    docker = benchmarks(place.folder / "b.json")["test_startup[docker-hello]"]
    assert docker["stats"]["rounds"] == 6
    assert docker["extra_info"]["failed"] == 1
    assert "1 failed, 3 passed" in said.out


def test_a_metric_that_is_no_time_is_not_replayed_as_one(place: Ground) -> None:
    suite(
        place,
        SUITE.replace("replay(benchmark, target, workload", "replay(benchmark, target, workload, 'memory.pss'"),
        SAMPLE,
    )
    said = run(place, "-k", "host")
    assert said.code == 1
    assert "memory.pss is no time" in said.out


def test_a_timer_of_the_tests_own_is_not_passed_over(place: Ground) -> None:
    suite(place, SUITE.replace('group="mine"', 'timer=__import__("time").perf_counter'), SAMPLE)
    said = run(place, "-k", "host", "--benchmark-json=out.json")
    assert said.code == 1
    assert "names a timer" in said.out
    assert not (place.folder / "out.json").exists()  # as pytest-benchmark does it where there is nothing to write


def test_what_a_test_times_besides_is_timed(place: Ground) -> None:
    suite(
        place,
        "def test_sum(benchmark, campaign): benchmark(sum, range(100_000))\n",
        SAMPLE,
    )
    said = run(place, "--benchmark-json=out.json")
    assert said.code == 0, said.out
    assert benchmarks(place.folder / "out.json")["test_sum"]["stats"]["min"] > 0


def test_a_suites_own_target_is_left_alone(place: Ground) -> None:
    suite(place, "import pytest\n@pytest.fixture\ndef target(): return 1\ndef test(target): assert target == 1\n")
    assert run(place).code == 0


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--weighbridge-rounds=0"], "rounds: Expected `int` >= 1"),
        (["--weighbridge-plan=none.toml"], "cannot read none.toml"),
        (["--weighbridge-targets="], "no target is named"),
        (["-n2", "--benchmark-only"], "refused under pytest-xdist: launches that overlap"),
    ],
)
def test_bad_input_is_one_line(place: Ground, arguments: list[str], told: str) -> None:
    suite(place)
    said = run(place, *arguments)
    assert said.code == pytest.ExitCode.USAGE_ERROR
    (line,) = [line for line in said.err.splitlines() if line.strip()]
    assert told in line


def test_what_only_the_campaign_finds_wrong_is_one_line_too(place: Ground) -> None:
    suite(place)
    said = run(place, "--weighbridge-targets=nosuch")
    assert said.code == pytest.ExitCode.USAGE_ERROR
    assert "weighbridge: unknown target 'nosuch'" in said.out
    assert "Traceback" not in said.out


def test_beside_other_workers_nothing_is_launched(place: Ground) -> None:
    suite(place, SUITE + "\ndef test_other(): pass\n")
    said = run(place, "-n2", f"--weighbridge-targets={ZERO}")
    assert said.code == 1
    assert "refused under pytest-xdist" in said.out
    assert "1 passed" in said.out
    assert not (place.folder / "results").exists()


@pytest.mark.engine
def test_session_whose_campaign_measured_nothing_fails(place: Ground) -> None:
    """A session with only skipped tests would pass, and look like a measurement."""
    suite(place)
    (place.folder / "plan.toml").write_text(f'targets = ["{ZERO}"]\nbudget = "0.001s"\n')
    said = run(place, "--benchmark-only", "--weighbridge-plan", "plan.toml")
    assert said.code == pytest.ExitCode.TESTS_FAILED
    assert "nothing was measured: the budget of 0.001 s was used up" in said.out
