"""The formats for CI, each read as its consumer reads it: by the schema that it publishes, or by its parser."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from jsonschema import Draft7Validator
from prometheus_client import Metric
from prometheus_client.openmetrics import parser
from prometheus_client.parser import text_string_to_metric_families as text_format

from harness import meters, metrics, store
from harness.errors import BadInput
from harness.model import Run, Sample
from harness.report import ci, formats
from harness.report.rows import Row
from harness.report.summary import summarize
from harness.store import Result
from harness.wording import line
from tests.test_report import GOLDEN, HOSTILE, TCG, blind, changed, fail, hostile
from tests.weighing import full

SAMPLE = Path(__file__).parent.parent / "results/sample.jsonl"
NAMES = ("github-action-benchmark", "bencher", "openmetrics")

# The interface BenchmarkResult in src/extract.ts of github.com/benchmark-action/github-action-benchmark, whose
# extractResult() refuses an empty array.
BENCHMARK_RESULTS = {
    "type": "array",
    "minItems": 1,
    "items": {
        "type": "object",
        "properties": {
            "name": {"type": "string"},
            "value": {"type": "number"},
            "range": {"type": "string"},
            "unit": {"type": "string"},
            "extra": {"type": "string"},
        },
        "required": ["name", "value", "unit"],
        "additionalProperties": False,
    },
}

# https://bencher.dev/docs/reference/bencher-metric-format has the schema bmf.json, and how long names may be; that a
# slug is one is more than it asks.
BENCHER_METRIC_FORMAT = {
    "$schema": "http://json-schema.org/draft-07/schema#",
    "type": "object",
    "propertyNames": {"minLength": 1, "maxLength": 1024},
    "additionalProperties": {
        "type": "object",
        "propertyNames": {"maxLength": 64, "pattern": "^[a-z0-9]+(-[a-z0-9]+)*$"},
        "additionalProperties": {
            "type": "object",
            "properties": {name: {"type": "number"} for name in ("value", "lower_value", "upper_value")},
            "required": ["value"],
            "additionalProperties": False,
        },
    },
}


def openmetrics(text: str) -> list[Metric]:
    """Raises ValueError for what is none."""
    return list(parser.text_string_to_metric_families(text))  # type: ignore[no-untyped-call]


def written(name: str, results: Sequence[Result], folder: Path) -> str:
    (path,) = formats.write(results, folder, [name])
    return path.read_text("utf-8")


def github(results: Sequence[Result], folder: Path) -> dict[str, dict[str, Any]]:
    entries = json.loads(written("github-action-benchmark", results, folder))
    Draft7Validator(BENCHMARK_RESULTS).validate(entries)
    by_name = {entry["name"]: entry for entry in entries}
    assert len(by_name) == len(entries)
    return by_name


def bencher(results: Sequence[Result], folder: Path) -> dict[str, dict[str, dict[str, float]]]:
    benchmarks: dict[str, dict[str, dict[str, float]]] = json.loads(written("bencher", results, folder))
    Draft7Validator(BENCHER_METRIC_FORMAT).validate(benchmarks)
    return benchmarks


def exposed(results: Sequence[Result], folder: Path) -> dict[str, Metric]:
    """The families, which both formats of Prometheus's read alike."""
    text = written("openmetrics", results, folder)
    families = {family.name: family for family in openmetrics(text)}
    assert [family.samples for family in text_format(text)] == [family.samples for family in families.values()]
    assert {family.type for family in text_format(text)} <= {"gauge"}
    return families


def labels(row: Row, accelerator: str | None = None, **more: str) -> frozenset[tuple[str, str]]:
    told = {"workload": row.workload, "target": row.target, **more}
    return frozenset((told | {"accelerator": accelerator} if accelerator else told).items())


def samples(family: Metric) -> dict[frozenset[tuple[str, str]], float]:
    found = {frozenset(sample.labels.items()): sample.value for sample in family.samples}
    assert len(found) == len(family.samples)
    return found


def troubled() -> Result:
    """A campaign in which a target never started, another's PSS could not be read, and a third was not there."""
    return changed(store.read(GOLDEN), lambda run: fail(run) if run.target == "docker" else blind(run))


@pytest.fixture(
    scope="module",
    params=[lambda: store.read(SAMPLE), lambda: store.read(GOLDEN), troubled, full, lambda: full(rounds=3)],
    ids=["sample", "golden", "troubled", "full", "few rounds"],
)
def result(request: pytest.FixtureRequest) -> Result:
    found: Result = request.param()
    return found


def rows(result: Result) -> list[tuple[Row, str | None]]:
    """The rows, and what ran each: all campaigns here have their machines under TCG."""
    found = summarize([result]).campaigns[0].rows
    return [(row, "QEMU TCG" if row.target.startswith("libvirt") else None) for row in found]


def place(row: Row, ran: str | None) -> str:
    return " · ".join([row.workload, row.target, *([ran] if ran else [])])


def test_the_action_gets_every_estimate_of_which_less_is_better(result: Result, tmp_path: Path) -> None:
    entries = github([result], tmp_path)
    had = [(row, ran) for row, ran in rows(result) if row.estimate and row.metric != "cache.resident"]
    assert set(entries) == {f"{place(row, ran)} · {row.metric}" for row, ran in had}
    for row, ran in had:
        entry, estimate = entries[f"{place(row, ran)} · {row.metric}"], row.estimate
        assert estimate and entry["value"] == estimate.median
        assert entry["unit"] == ("CPUs" if row.metric == "cpu.rest" else row.unit)
        assert ("range" in entry) == (estimate.n > 1)
        if estimate.n > 1:
            told = re.fullmatch(r"\[(\S+), (\S+)\] (\d+)%", entry["range"])
            assert told
            assert [float(told[1]), float(told[2])] == pytest.approx([estimate.low, estimate.high], rel=1e-11)
            assert told[3] == ("95" if estimate.n > 5 else "75")
        assert row.label in entry["extra"] and f"n={estimate.n}" in entry["extra"]


def test_the_action_takes_no_interval_for_a_symmetric_one(tmp_path: Path) -> None:
    """Its extractRangeInfo() reads a number after this, and rescales it beside the value."""
    entries = github([store.read(SAMPLE)], tmp_path)
    assert not [entry for entry in entries.values() if re.search(r"(\+-|±)\s*\d", entry.get("range", ""))]


def test_the_action_is_not_given_what_is_neither_good_nor_bad(tmp_path: Path) -> None:
    cold = full(cold="image")
    assert any(row.metric == "cache.resident" and row.estimate for row, _ in rows(cold))
    assert not [name for name in github([cold], tmp_path) if "cache.resident" in name]
    assert all("cache-resident-bytes" in measures for measures in bencher([cold], tmp_path).values())


def test_bencher_gets_every_estimate(result: Result, tmp_path: Path) -> None:
    benchmarks = bencher([result], tmp_path)
    units = {"s": "seconds", "B": "bytes", "1": "cpus"}
    expected: dict[str, dict[str, dict[str, float]]] = {}
    for row, ran in rows(result):
        if estimate := row.estimate:
            bounds = {"lower_value": estimate.low, "upper_value": estimate.high} if estimate.n > 5 else {}
            measure = f"{row.metric.replace('.', '-')}-{units[row.unit]}"
            expected.setdefault(place(row, ran), {})[measure] = {"value": estimate.median, **bounds}
    assert benchmarks == expected


def test_openmetrics_have_every_estimate_and_the_reason_where_there_is_none(result: Result, tmp_path: Path) -> None:
    families = exposed([result], tmp_path)
    units = {"s": "seconds", "B": "bytes", "1": "cpus"}
    missing = {}
    counts = samples(families["weighbridge_observations"])
    coverage = samples(families["weighbridge_interval_coverage_ratio"])
    for row, ran in rows(result):
        name, unit = f"weighbridge_{row.metric.replace('.', '_')}", units[row.unit]
        if (estimate := row.estimate) is None:
            missing[labels(row, ran, metric=row.metric, reason=row.reason or "")] = 1.0
            continue
        family = families[f"{name}_{unit}"]
        assert (family.type, family.unit) == ("gauge", unit)
        assert samples(family)[labels(row, ran)] == estimate.median
        assert counts[labels(row, ran, metric=row.metric)] == estimate.n
        bounds = [families.get(f"{name}_interval_{bound}_{unit}") for bound in ("low", "high")]
        told = [bound and samples(bound).get(labels(row, ran)) for bound in bounds]
        told += [coverage.get(labels(row, ran, metric=row.metric))]
        if estimate.n == 1:
            assert told == [None, None, None]
        else:
            assert told == [estimate.low, estimate.high, estimate.coverage]
    assert "weighbridge_missing_info" in families or not missing
    assert not missing or samples(families["weighbridge_missing_info"]) == missing


def test_what_could_not_be_had_is_in_no_format_a_number(tmp_path: Path) -> None:
    result = troubled()
    found = github([result], tmp_path)
    assert not [name for name in found if "memory.pss" in name]
    assert [name for name in found if "docker" in name] == ["hello · docker · disk.shared"]  # an image's, not a run's
    benchmarks = bencher([result], tmp_path)
    assert set(benchmarks["hello · docker"]) == {"disk-shared-bytes"}
    assert "memory-pss-bytes" not in benchmarks["hello · namespace"]
    families = exposed([result], tmp_path)
    assert "weighbridge_memory_pss_bytes" not in families
    reasons = {
        (sample.labels["target"], sample.labels["metric"]): sample.labels["reason"]
        for sample in families["weighbridge_missing_info"].samples
    }
    assert reasons["docker", "startup.total"] == "no measured run succeeded"
    assert reasons["namespace", "memory.pss"] == "not permitted"
    (absent,) = families["weighbridge_unavailable_info"].samples
    assert (absent.labels["target"], absent.labels["reason"]) == (
        "docker/runtime=runsc",
        "the runtime runsc is not installed",
    )


def test_openmetrics_say_why_it_was_not_kvm_beside_the_numbers(tmp_path: Path) -> None:
    family = exposed([store.read(GOLDEN)], tmp_path)["weighbridge_target_info"]
    told = {sample.labels["target"]: sample.labels for sample in family.samples}
    assert told["libvirt/pc"]["label"] == f"libvirt/pc · {TCG}"
    assert told["docker"]["label"] == "docker"


def named(result: Result, campaign: str) -> Result:
    return replace(result, header=msgspec.structs.replace(result.header, campaign=campaign))


def names(results: Sequence[Result], folder: Path) -> list[set[str]]:
    """What the series of each format are called."""
    series = {
        f"{name} {sorted(label)}"
        for name, family in exposed(results, folder).items()
        if not name.endswith("_info")
        for label in samples(family)
    }
    return [set(github(results, folder)), set(bencher(results, folder)), series]


def test_series_keep_their_names_from_campaign_to_campaign(tmp_path: Path) -> None:
    later = named(full(rounds=9), "later")
    targets = [
        msgspec.structs.replace(target, version="99", accelerator_reason=target.accelerator_reason and "another reason")
        for target in later.targets
    ]
    assert names([full()], tmp_path) == names([replace(later, targets=targets)], tmp_path)


def under_kvm(result: Result) -> Result:
    targets = [
        msgspec.structs.replace(target, accelerator=target.accelerator and "kvm", accelerator_reason=None)
        for target in result.targets
    ]
    return changed(result, lambda run: run if run.target == "libvirt/pc" else None, targets=targets, images=[])


def test_kvm_and_tcg_are_never_one_series(tmp_path: Path) -> None:
    with_kvm = named(under_kvm(full()), "kvm")
    kinds = [names([result], tmp_path) for result in (full(), with_kvm)]
    for slow, fast, both in zip(*kinds, names([full(), with_kvm], tmp_path), strict=True):
        assert not slow & fast and both == slow | fast
    assert all("· KVM" in name for name in kinds[1][0] | kinds[1][1])


@pytest.mark.long
def test_cold_and_warm_starts_are_never_one_series(tmp_path: Path) -> None:
    cold, deeper = named(full(cold="image"), "cold"), named(full(cold="all"), "deeper")
    kinds = [names([result], tmp_path) for result in (full(), cold, deeper)]
    for *apart, together in zip(*kinds, names([full(), cold, deeper], tmp_path), strict=True):
        assert sum(map(len, apart)) == len(together)
    assert all("· cold image" in name for name in kinds[1][0] | kinds[1][1])


@pytest.mark.parametrize("name", NAMES)
def test_campaigns_whose_numbers_share_their_names_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(
        BadInput, match=f"{name} can hold one number as .*hello.*: there are two, of campaign full and other$"
    ) as told:
        formats.write([full(), named(full(), "other")], tmp_path, [name])
    assert "\n" not in str(told.value)


def counting(*metrics: str) -> Result:
    """The golden campaign with a metric more of each name, which no installed meter knows."""

    def add(run: Run) -> Run:
        return msgspec.structs.replace(run, samples=[*run.samples, *(Sample(metric, "1", 3) for metric in metrics)])

    return changed(store.read(GOLDEN), lambda run: add(run) if run.ok else run)


def test_a_metric_of_somebody_elses_is_a_series_too(tmp_path: Path) -> None:
    result = counting("files.open")
    assert not [name for name in github([result], tmp_path) if "files" in name]  # nobody knows which way is better
    assert bencher([result], tmp_path)["hello · host"]["files-open"]["value"] == 3
    family = exposed([result], tmp_path)["weighbridge_files_open"]
    assert (family.unit, {sample.value for sample in family.samples}) == ("", {3})


def test_what_a_meter_of_somebody_elses_is_called_ends_no_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    metric = metrics.Metric("files.open", "1", 'Files, "open"\\ in %\n# EOF')
    monkeypatch.setattr(meters, "installed", lambda: (meters.Meter((metric,), lambda _: iter(())),))
    text = written("openmetrics", [counting("files.open")], tmp_path)
    (family,) = (family for family in openmetrics(text) if family.name == "weighbridge_files_open")
    assert family.documentation == "Files, 'open'\\ in % # EOF. Median."
    assert '"' not in "".join(line for line in text.splitlines() if line.startswith("# HELP"))
    assert "hello · host · files.open" in github([counting("files.open")], tmp_path)


@pytest.mark.parametrize("name", ["bencher", "openmetrics"])
def test_metrics_that_a_format_could_not_tell_apart_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=f"{name} can hold one number as .*files.open.* of campaign [^ ]+$"):
        formats.write([counting("files.open", "files_open")], tmp_path, [name])


def test_a_name_that_is_too_long_for_bencher_is_refused(tmp_path: Path) -> None:
    assert bencher([counting("m" * 64)], tmp_path)
    with pytest.raises(BadInput, match="bencher takes names of 1 to 64 characters, not 65: mmm"):
        formats.write([counting("m" * 65)], tmp_path, ["bencher"])
    long = changed(store.read(GOLDEN), lambda run: msgspec.structs.replace(run, workload="w" * 1024))
    with pytest.raises(BadInput, match="bencher takes names of 1 to 1024 characters"):
        formats.write([long], tmp_path, ["bencher"])


def test_foreign_text_stays_in_its_string(tmp_path: Path) -> None:
    result = hostile(store.read(GOLDEN))
    assert all(line(HOSTILE) in name for name in github([result], tmp_path))
    assert all(line(HOSTILE) in name for name in bencher([result], tmp_path))
    families = exposed([result], tmp_path)
    assert {sample.labels["workload"] for sample in families["weighbridge_startup_total_seconds"].samples} == {
        line(HOSTILE)
    }
    (known,) = families["weighbridge_campaign_info"].samples
    assert known.labels["campaign"] == line(HOSTILE)


def test_a_backslash_before_a_quote_ends_no_label() -> None:
    families = ci.Families()
    families.add("told", "", 'of "C:\\n" and\nmore', {"text": 'a\\"b\\nc\nd\\'}, 1)
    (family,) = openmetrics(families.render())
    assert family.documentation == 'of "C:\\n" and\nmore'
    assert family.samples[0].labels == {"text": 'a\\"b\\nc\nd\\'}


def test_a_target_whose_engine_was_not_recorded_is_not_taken_for_another(tmp_path: Path) -> None:
    result = replace(store.read(GOLDEN), targets=[])
    assert all("· its engine was not recorded" in name for name in bencher([result], tmp_path))


def test_a_campaign_without_numbers_gives_files_without_any(tmp_path: Path) -> None:
    empty = changed(store.read(GOLDEN), lambda _: None, images=[])
    assert json.loads(written("github-action-benchmark", [empty], tmp_path)) == []
    assert bencher([empty], tmp_path) == {}
    assert all(name.endswith("_info") for name in exposed([empty], tmp_path))
