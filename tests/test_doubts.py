"""Typed warnings: each kind on data that gives reason for it, and none on data that does not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest

from harness import doubts
from harness.model import Applied, HostRecord, Sample
from harness.report.language import language
from harness.report.summary import summarize
from harness.stats import quality
from harness.store import Result, read
from selfbench.proofs import recorded
from tests.campaigns import write

SAMPLE = Path(__file__).parents[1] / "results/sample.jsonl"
RUNS = 2000


def lognormal(seed: int, n: int, spread: float) -> list[float]:
    """With one launch in twenty up to five times as long."""
    chance = np.random.default_rng(seed)
    far = np.where(chance.random(n) < 0.05, chance.uniform(1.5, 5, n), 1.0)
    values: list[float] = (0.2 * np.exp(chance.normal(0, spread, n)) * far).tolist()
    return values


def kinds(values: Sequence[float]) -> list[str]:
    by_round = dict(enumerate(values, start=1))
    return [doubt.kind for doubt in doubts.of_launches([("docker", "hello", "startup.total", by_round)])]


@pytest.mark.parametrize("n", [7, 10, 30, 100])
@pytest.mark.parametrize("spread", [0.02, 0.1, 0.5])
def test_there_are_few_false_alarms(n: int, spread: float) -> None:
    found = [kinds(lognormal(seed, n, spread)) for seed in range(RUNS // 4)]
    assert sum("drift" in each for each in found) <= 3
    assert sum("bimodal" in each for each in found) <= RUNS // 4 * 0.02


@pytest.mark.parametrize("n", [10, 30, 100])
def test_drift_is_seen_where_it_matters(n: int) -> None:
    calm = lognormal(1, n, 0.01)
    rising = [value * (1 + 0.4 * place / n) for place, value in enumerate(calm)]
    assert "drift" in kinds(rising)
    barely = [0.2 * (1 + 0.02 * place / n) for place in range(n)]  # a clear trend, of 2 %
    assert kinds(barely) == []


@pytest.mark.parametrize("n", [12, 30, 100])
def test_two_kinds_of_launches_are_seen(n: int) -> None:
    chance = np.random.default_rng(n)
    values = [(0.1 if place % 2 else 0.2) * float(np.exp(chance.normal(0, 0.01))) for place in range(n)]
    assert kinds(values) == ["bimodal"]


@pytest.mark.parametrize("values", [[0.2] * 7, [0.2] * 100, [0.0] * 30])
def test_what_is_constant_gives_no_reason_to_doubt(values: list[float]) -> None:
    assert kinds(values) == []
    assert quality.drift(dict(enumerate(values))) is None


def test_too_few_rounds_are_told_once() -> None:
    few = [("docker", "hello", metric, {1: 1.0, 2: 1.1}) for metric in doubts.HEADLINES]
    (doubt,) = doubts.of_launches(few)
    assert (doubt.kind, doubt.told) == ("few-rounds", "3 medians are of 2 launches: too few for an interval of 95 %")


def test_few_rounds_of_one_median_and_one_launch_are_in_the_singular() -> None:
    (doubt,) = doubts.of_launches([("docker", "hello", "startup.total", {1: 1.0})])
    assert doubt.told == "1 median is of 1 launch: too few for an interval of 95 %"


def test_engine_that_started_at_the_second_try_is_a_warning(tmp_path: Path) -> None:
    result = read(write(tmp_path / "a.jsonl", {None: {"docker": [1.0] * 10}}))
    (record,) = result.targets
    again = msgspec.structs.replace(record, retried="containerd did not start")
    (warning,) = summarize([replace(result, targets=[again])]).campaigns[0].warnings
    assert (warning.kind, warning.target) == ("retried", "docker")
    assert str(warning) == "docker failed to start at first: containerd did not start"


def test_load_of_one_cpu_is_in_the_singular(tmp_path: Path) -> None:
    result = with_hosts(tmp_path, [Sample("host.load", "1", 1.29)])
    gating = {**result.header.host.gating, "cores": 1}
    host = msgspec.structs.replace(result.header.host, gating=gating)
    one = replace(result, header=msgspec.structs.replace(result.header, host=host))
    (doubt,) = doubts.of_host(one)
    assert doubt.told == "the host was busy: a load of 1.29 on 1 CPU"
    assert language("zh")(doubt.told) == "宿主机繁忙：1 个 CPU 上的负载为 1.29"  # noqa: RUF001


def with_hosts(folder: Path, *samples: Sequence[Sample]) -> Result:
    result = read(write(folder / "a.jsonl", {None: {"docker": [1.0] * 10}}))
    return replace(result, hosts=[HostRecord("between", list(each)) for each in samples])


@pytest.mark.parametrize(
    ("metric", "unit", "before", "after", "told"),
    [
        ("host.load", "1", 0.5, 2.6, "a load of 2.6 on 2 CPUs"),
        ("host.steal", "s", 100.0, 101.0, "5.0% of the host's CPU time was stolen"),
        ("host.frequency", "Hz", 3.0e9, 2.0e9, "between 2 and 3 GHz"),
    ],
)
def test_a_disturbed_host_is_told(
    tmp_path: Path, metric: str, unit: str, before: float, after: float, told: str
) -> None:
    result = with_hosts(tmp_path, [Sample(metric, unit, before)], [Sample(metric, unit, after)])
    (doubt,) = doubts.of_host(result)
    assert doubt.kind == "disturbed-host"
    assert told in doubt.told
    assert (
        list(doubts.of_host(with_hosts(tmp_path, [Sample(metric, unit, before)], [Sample(metric, unit, before)]))) == []
    )


def test_targets_without_limits_are_named_once_with_the_command(tmp_path: Path) -> None:
    result = read(
        write(tmp_path / "a.jsonl", {None: {"namespace": [1.0, 1.0], "userns-chroot": [1.0], "docker": [1.0]}})
    )
    refused = Applied(1.0, None, reason="not delegated. Try: sudo this")
    none, some = {"cpus": refused, "memory": refused}, {"cpus": Applied(1.0, "cfs quota, cgroup v2")}
    runs = [msgspec.structs.replace(run, limits=some if run.target == "docker" else none) for run in result.runs]
    (doubt,) = doubts.of_records(replace(result, runs=runs), 0)
    told = "namespace, userns-chroot ran without limits (cpus, memory): not delegated. Try: sudo this"
    assert (doubt.kind, doubt.told) == ("no-limits", told)


def test_a_host_that_does_not_tell_is_not_suspected(tmp_path: Path) -> None:
    unknown = Sample("host.frequency", "Hz", None, reason="a virtual machine")
    assert list(doubts.of_host(with_hosts(tmp_path, [unknown], [unknown]))) == []


@pytest.mark.long
def test_recorded_campaigns_of_a_quiet_machine_are_hardly_doubted() -> None:
    assert summarize([read(SAMPLE)]).campaigns[0].warnings == ()
    told = [warning for result in recorded.results("run") for warning in summarize([result]).campaigns[0].warnings]
    assert len(told) <= 3, [str(each) for each in told]


def test_a_summary_has_them_typed(tmp_path: Path) -> None:
    result = read(write(tmp_path / "a.jsonl", {None: {"docker": [0.2 + 0.02 * n for n in range(10)]}}))
    (doubt,) = msgspec.to_builtins(summarize([result]).campaigns[0].warnings, enc_hook=str)
    assert {name: doubt[name] for name in ("kind", "target", "workload", "metric")} == {
        "kind": "drift", "target": "docker", "workload": "hello", "metric": "startup.total",
    }  # fmt: skip
