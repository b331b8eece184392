"""What memory one instance takes at rest on each target: in extra_info and in weighbridge's own table."""

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from harness.replay import RecordedCampaign


@pytest.mark.benchmark(group="memory")
def test_memory(benchmark: BenchmarkFixture, campaign: RecordedCampaign, target: str, workload: str) -> None:
    campaign.replay(benchmark, target, workload)
    assert campaign.values("memory.rss", target, workload)
