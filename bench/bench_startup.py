"""How long a workload takes to be ready on each target."""

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from harness.replay import RecordedCampaign


@pytest.mark.benchmark(group="startup")
def test_startup(benchmark: BenchmarkFixture, campaign: RecordedCampaign, target: str, workload: str) -> None:
    campaign.replay(benchmark, target, workload)
