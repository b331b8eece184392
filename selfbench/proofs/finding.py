"""What a proof found: a count of so many, and the share that was promised."""

from __future__ import annotations

import math

import msgspec

from harness.model import Host

SIGMAS = 1.96
"""Of the Monte Carlo error that a simulated share is allowed."""


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """`count` of `of` that showed what is asked. at_most, at_least: the share that was promised, None where none was.

    simulated: the share has a Monte Carlo error, by which it may miss `at_least`.
    """

    proof: str
    question: str
    count: int
    of: int
    at_most: float | None = None
    at_least: float | None = None
    simulated: bool = False

    @property
    def share(self) -> float:
        return self.count / self.of if self.of else math.nan

    @property
    def kept(self) -> bool | None:
        if self.at_most is None and self.at_least is None:
            return None
        if not self.of:
            return False
        promised = self.at_least or 0.0
        error = SIGMAS * math.sqrt(promised * (1 - promised) / self.of) if self.simulated else 0.0
        return self.share <= (1.0 if self.at_most is None else self.at_most) and self.share >= promised - error


class Proofs(msgspec.Struct, frozen=True, kw_only=True):
    """One execution of `python -m selfbench.proofs`. host: where the campaigns were recorded."""

    command: list[str]
    seed: int
    host: Host
    findings: list[Finding]


def table(proofs: Proofs) -> str:
    """Markdown: a row a finding."""
    lines = ["| | found | promised | |", "| --- | --- | --- | --- |"]
    for finding in proofs.findings:
        share = f"{finding.count} of {finding.of}, {100 * finding.share:.3g} %"
        verdict = {True: "kept", False: "**missed**", None: ""}[finding.kept]
        lines.append(f"| {finding.question} | {share} | {_promised(finding)} | {verdict} |")
    return "\n".join(lines) + "\n"


def _promised(finding: Finding) -> str:
    if finding.at_most is not None:
        return f"at most {100 * finding.at_most:g} %"
    if finding.at_least is not None:
        less = " less the Monte Carlo error" if finding.simulated else ""
        return f"at least {100 * finding.at_least:g} %{less}"
    return "disclosed"
