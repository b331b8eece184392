"""What the ways to isolate a service cost, and that they stay within what was agreed on."""

from statistics import median

import pytest


@pytest.mark.benchmark(group="startup")
def test_startup(benchmark, campaign, target, workload):
    campaign.replay(benchmark, target, workload)


def test_a_sandbox_takes_less_memory_than_a_container(campaign):
    sandbox, container = (median(campaign.values("memory.rss", key, "hello")) for key in ("namespace", "docker"))
    assert sandbox < container
