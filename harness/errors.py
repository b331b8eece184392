"""What can go wrong, as types: the command line turns each into one line and an exit code."""

from __future__ import annotations


class WeighbridgeError(Exception):
    """Base of every error this program raises on purpose."""


class BadInput(WeighbridgeError):
    """The user asked for something that makes no sense: one line on stderr, exit code 2."""


class Incomparable(WeighbridgeError):
    """Two results differ in a field that decides whether they may be compared, or share nothing that could be."""


class Unavailable(WeighbridgeError):
    """A target cannot run on this machine.

    reason: what is missing, as a statement. hint: what the user can do about it. detail: lines that show more, such as
    the complete command that failed and its output; "" if there are none.
    """

    def __init__(self, reason: str, hint: str, detail: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.hint = hint
        self.detail = detail


class TransientFailure(Unavailable):
    """An engine failed to start, and a second try may succeed. See engine_errors.is_transient for errors of SDKs."""


class RunError(WeighbridgeError):
    """One run failed. It is recorded as such, and the campaign goes on.

    log: the tail of what the instance printed.
    """

    def __init__(self, message: str, log: str = "") -> None:
        super().__init__(message)
        self.log = log


class StartTimeout(RunError):
    """The instance did not ring the doorbell before its deadline."""


class ExitedBeforeReady(RunError):
    """The instance ended before it rang the doorbell.

    status: its exit status where the engine tells it, else None.
    """

    def __init__(self, status: int | None, log: str = "") -> None:
        told = "" if status is None else f" with status {status}"
        super().__init__(f"the instance ended before READY{told}", log)
        self.status = status


class EngineError(RunError):
    """The engine refused to start, show or stop an instance."""


class WrongBundle(RunError):
    """The instance reports another bundle than the one that was asked for."""


class LeftBehind(ExceptionGroup[Exception]):
    """Some resources could not be released at the end of a campaign; their entries stay in the ledger."""


def as_unavailable(error: Exception) -> Unavailable:
    """Whatever was raised when something was made ready, as the reason why it is not here."""
    if isinstance(error, Unavailable):
        return error
    from harness import build_failure  # imports this module

    return build_failure.explain_any(error)
