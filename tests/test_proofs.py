"""The proofs of the statistics: that they can fail, agree with the program, and are those that were committed."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import msgspec
import pytest

from harness import comparison, gate
from harness.gate import Threshold
from harness.stats import compare
from selfbench.proofs import coverage, power, recorded, same, simulated
from selfbench.proofs.__main__ import RESULT
from selfbench.proofs.finding import Finding, Proofs

pytestmark = pytest.mark.long

COMMITTED = msgspec.json.decode((Path(__file__).parent.parent / RESULT).read_bytes(), type=Proofs)


def test_every_promise_of_the_committed_proofs_is_judged() -> None:
    assert {finding.proof for finding in COMMITTED.findings} == {"same", "simulated", "power", "coverage"}
    assert [finding.question for finding in COMMITTED.findings if finding.kept is False] == []


def test_the_recorded_campaigns_are_what_they_are_said_to_be() -> None:
    campaigns, sides = recorded.results("run"), recorded.results("ab")
    injected = [recorded.results(f"power-{target}") for target in recorded.INJECTED]
    assert len(campaigns) >= 40
    assert len(sides) >= 40
    assert [len(results) for results in injected] == [10, 10]
    every = [*campaigns, *sides, *(result for results in injected for result in results)]
    assert len({result.header.campaign for result in every}) == len(every)
    for result in every:
        assert result.footer is not None
        assert (result.footer.complete, result.footer.failed, result.unavailable) == (True, 0, [])
        assert all(record.whose != "user" for record in result.targets)


def test_what_is_passed_by_would_not_have_been_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    """The arrays of the proof against the program itself, with thresholds so low that much is rejected."""
    strict = {name: Threshold(0.0, threshold.floor / 8) for name, threshold in gate.default().items()}
    monkeypatch.setattr(gate, "default", lambda: strict)
    results = recorded.results("run")[:9]
    (finding,) = same.baseline(results)
    judged = [
        comparison.campaigns([results[number] for number in base], [results[head]], gate.default())
        for head in range(9)
        for base in combinations(range(9), 5)
        if head not in base
    ]
    assert finding.of == len(judged)
    assert finding.count == sum(bool(compared.of("regressed")) for compared in judged) > 0


def test_few_simulated_comparisons_of_the_same_regress() -> None:
    findings = list(simulated.findings(seed=7, repetitions=100))
    assert len(findings) == 6
    assert all(finding.of == 100 and finding.count <= 4 for finding in findings)


def test_a_careless_alpha_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.verdict.ALPHA", 0.9)
    monkeypatch.setattr("harness.verdict.compare.holm", lambda p: list(p))
    found = {finding.question: finding.kept for finding in simulated.findings(seed=7, repetitions=100)}
    assert False in found.values()


def test_intervals_that_are_too_narrow_are_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare, "CONFIDENCE", 0.7)
    found = [finding for finding in coverage.findings(seed=7, repetitions=60) if "change" in finding.question]
    assert sum(finding.kept is False for finding in found) > len(found) / 2


def test_the_same_seed_gives_the_same_bytes() -> None:
    def once() -> bytes:
        findings: list[Finding] = [*simulated.findings(3, 5), *power.findings(3, 20), *coverage.findings(3, 5)]
        return msgspec.json.encode(findings)

    assert once() == once()


@pytest.mark.parametrize(
    ("count", "promised", "simulated_too", "kept"),
    [
        (1, {"at_most": 0.01}, True, True),
        (2, {"at_most": 0.01}, True, False),
        (93, {"at_least": 0.95}, False, False),
        (92, {"at_least": 0.95}, True, True),
        (90, {"at_least": 0.95}, True, False),
        (0, {}, False, None),
    ],
)
def test_a_share_is_held_to_what_was_promised(
    count: int, promised: dict[str, float], simulated_too: bool, kept: bool | None
) -> None:
    finding = Finding(proof="x", question="y", count=count, of=100, simulated=simulated_too, **promised)
    assert finding.kept is kept
