"""A/A by simulation: lognormal launches with the effects of campaigns and rounds, outliers and drift."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from harness import gate
from harness.metrics import OF_IMAGE
from harness.stats.compare import FEWEST_CAMPAIGNS
from harness.verdict import Question, Weighed, judge
from selfbench.proofs.finding import Finding

REPETITIONS = 1000
TARGETS = {"host": 0.003, "namespace": 0.009, "docker": 0.2}
"""And how long they take to start, in seconds."""
MEMORY, DISK = 16 * 2**20, 2**20
OUTLIERS, FAR = 0.05, 3.0
"""The share of launches that take, and at most, this many times as long."""
DRIFT = 0.2
"""Of the start-up over one campaign, at most."""
ROUNDS = {"campaigns": 10, "interleaved": 30}


@dataclass(frozen=True)
class Noise:
    """Standard deviations of logs: of a campaign, of a round (which all launches in it share), and of a launch."""

    name: str
    campaign: float
    round: float
    launch: float


NOISES = (
    Noise("quiet", 0.01, 0.01, 0.02),
    Noise("as recorded", 0.04, 0.03, 0.08),
    Noise("noisy", 0.1, 0.1, 0.3),
)

Array = np.ndarray[tuple[int], np.dtype[np.float64]]


def findings(seed: int, repetitions: int = REPETITIONS) -> Iterator[Finding]:
    for design in ("campaigns", "interleaved"):
        for noise in NOISES:
            chance = np.random.default_rng([seed, *map(ord, design + noise.name)])
            false = sum(_found_worse(_family(design, noise, chance)) for _ in range(repetitions))
            told = "five campaigns against one" if design == "campaigns" else "two sides interleaved"
            question = f"A/A simulated, {told}, {noise.name} ({100 * noise.launch:g} % a launch): a regression is found"
            yield Finding(
                proof="simulated", question=question, count=false, of=repetitions, at_most=0.01, simulated=True
            )  # fmt: skip


def _found_worse(family: list[Question]) -> bool:
    return any(answer.verdict == "regressed" for answer in judge(family))


def _family(design: str, noise: Noise, chance: np.random.Generator) -> list[Question]:
    """The questions of one comparison: every headline of every target, with no difference between the sides."""
    values = _interleaved if design == "interleaved" else _campaigns
    family = []
    for target, start in TARGETS.items():
        calm = Noise("", noise.campaign / 5, noise.round / 5, noise.launch / 5)  # memory scatters less than time
        fixed = Noise("", 0.0, 0.0, 0.0)
        for metric, typical, kind in (
            ("startup.total", start, noise), ("memory.pss", MEMORY, calm),
            ("disk.instance", DISK, fixed), ("disk.shared", DISK, fixed),
        ):  # fmt: skip
            family.append(values(target, metric, typical, kind, chance))
    return family


def _launches(rounds: Array, noise: Noise, chance: np.random.Generator, drift: Array) -> Array:
    """Factors on what is typical, of one campaign's launches on one side; rounds: the logs of the rounds' effects."""
    far = np.where(chance.random(rounds.size) < OUTLIERS, chance.uniform(1, FAR, rounds.size), 1.0)
    if noise.launch == 0:
        return np.ones(rounds.size)
    factors: Array = np.exp(rounds + chance.normal(0, noise.launch, rounds.size)) * far * drift
    return factors


def _drift(count: int, chance: np.random.Generator) -> Array:
    drift: Array = 1 + chance.uniform(-DRIFT, DRIFT) * np.linspace(0, 1, count)
    return drift


def _campaigns(target: str, metric: str, typical: float, noise: Noise, chance: np.random.Generator) -> Question:
    medians, count = [], ROUNDS["campaigns"]
    for _ in range(FEWEST_CAMPAIGNS + 1):
        effects = chance.normal(0, noise.campaign) + chance.normal(0, noise.round, count)
        medians.append(float(typical * np.median(_launches(effects, noise, chance, _drift(count, chance)))))
    base, head = medians[:FEWEST_CAMPAIGNS], medians[FEWEST_CAMPAIGNS:]
    sides = Weighed(float(np.median(base)), len(base), 0), Weighed(head[0], 1, 0)
    return Question("hello", target, metric, "", gate.default()[metric], *sides, campaigns=(base, head))


def _interleaved(target: str, metric: str, typical: float, noise: Noise, chance: np.random.Generator) -> Question:
    count = ROUNDS["interleaved"]
    effects, drift = chance.normal(0, noise.campaign) + chance.normal(0, noise.round, count), _drift(count, chance)
    base, head = (typical * _launches(effects, noise, chance, drift) for _ in range(2))
    sides = Weighed(float(np.median(base)), count, 0), Weighed(float(np.median(head)), count, 0)
    rounds = dict(enumerate(base.tolist())), dict(enumerate(head.tolist()))
    exact = metric in OF_IMAGE
    return Question("hello", target, metric, "", gate.default()[metric], *sides, rounds=rounds, exact=exact)
