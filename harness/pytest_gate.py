"""The gate of a pytest session: --weighbridge-compare and --weighbridge-fail."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from harness.errors import BadInput, Incomparable

if TYPE_CHECKING:
    from harness.store import Result


def check(config: pytest.Config) -> None:
    """Raises BadInput for what makes no sense, before anything is measured."""
    base, fail = config.getoption("weighbridge_compare"), config.getoption("weighbridge_fail")
    if fail is not None:
        from harness import gate

        gate.parse(fail)
        if base is None:
            raise BadInput("--weighbridge-fail needs --weighbridge-compare=BASE: what is more than what?")
    if base is not None and not base.exists():
        raise BadInput(f"--weighbridge-compare: there is no {base}")


def judge(config: pytest.Config, result: Result) -> tuple[pytest.ExitCode, str]:
    """What becomes of the session, and what is said: a regression fails it where --weighbridge-fail is given.

    What cannot be compared is a usage error then, and no failure otherwise.
    """
    from harness import baseline, comparison, gate
    from harness.report.compared import text

    fail = config.getoption("weighbridge_fail")
    metrics = gate.chosen(fail, project=config.rootpath / gate.PROJECT)
    try:
        base, notes = baseline.load(config.getoption("weighbridge_compare"), result)
        compared = comparison.campaigns(base, [result], metrics, notes=notes)
    except (BadInput, Incomparable) as error:
        return pytest.ExitCode.USAGE_ERROR if fail is not None else pytest.ExitCode.OK, f"weighbridge: {error}\n"
    failed = fail is not None and bool(compared.of("regressed"))
    return pytest.ExitCode.TESTS_FAILED if failed else pytest.ExitCode.OK, text(compared)
