"""What disk an image takes on each target, and one more instance of it: in extra_info and in weighbridge's table."""

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from harness.replay import RecordedCampaign


@pytest.mark.benchmark(group="disk")
def test_disk(benchmark: BenchmarkFixture, campaign: RecordedCampaign, target: str, workload: str) -> None:
    campaign.replay(benchmark, target, workload)
    assert campaign.values("disk.instance", target, workload)
    assert campaign.values("disk.shared", target, workload)
