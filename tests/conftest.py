"""What all tests share: engines that a machine may lack, and those that it must not.

WEIGHBRIDGE_REQUIRE names targets (`host,namespace,docker,libvirt`), and `browser`, whose tests must run: a test that
cannot fails instead of being skipped, and the session fails where no test ran on one of them. `make test` sets it.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from harness import cli
from harness.errors import Unavailable

Call = Callable[..., int]
EngineOrSkip = Callable[[str], AbstractContextManager[None]]
REQUIRED = frozenset(filter(None, os.environ.get("WEIGHBRIDGE_REQUIRE", "").split(",")))
_ran: set[str] = set()

# How fast examples are made is no property of this program: the first ones have Hypothesis sort all of Unicode.
settings.register_profile("weighbridge", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("weighbridge")

# A shell's background job and nohup ignore these, and all that they start does too: nobody could interrupt a campaign.
for number, action in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, action)


@pytest.fixture(scope="session")
def engine_or_skip() -> EngineOrSkip:
    """`with engine_or_skip("docker"):` around what needs it: Unavailable in there skips the test, or fails it.

    `docker/runtime=runsc` is another name than `docker`, and so no part of what is required.
    """
    return _engine_or_skip


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Call:
    """`call("doctor", "--json")` runs the command in this process, in a new folder, and returns its exit code."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> int:
        monkeypatch.setattr(sys, "argv", ["weighbridge", *arguments])
        with pytest.raises(SystemExit) as end:
            cli.main()
        assert isinstance(end.value.code, int)
        return end.value.code

    return call


@contextmanager
def _engine_or_skip(target: str) -> Iterator[None]:
    try:
        yield
    except Unavailable as absent:
        told = f"{target}: {absent.reason}. Try: {absent.hint}"
        if target in REQUIRED:
            pytest.fail(f"WEIGHBRIDGE_REQUIRE asks for {told}", pytrace=False)
        pytest.skip(told)
    _ran.add(target)


def pytest_sessionfinish(session: pytest.Session) -> None:
    if not session.config.option.collectonly and REQUIRED - _ran and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if absent := sorted(REQUIRED - _ran):
        terminalreporter.write_line(f"WEIGHBRIDGE_REQUIRE: no test ran on {', '.join(absent)}", red=True)
