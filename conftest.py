"""What bare `pytest` means here: the tests; and with --benchmark-only the benchmarks, not a thousand skipped tests."""

import pytest


def pytest_configure(config: pytest.Config) -> None:
    if config.args_source is pytest.Config.ArgsSource.TESTPATHS and config.getoption("benchmark_only", False):
        config.args = ["bench"]
