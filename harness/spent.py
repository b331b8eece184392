"""CPU time that processes or control groups have used, in user and in system mode."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Spent:
    """Seconds of CPU time, in user and in system mode."""

    user: float = 0.0
    system: float = 0.0

    @property
    def total(self) -> float:
        return self.user + self.system

    @classmethod
    def divided(cls, exact: float, user: float, system: float) -> Spent:
        """Divide the scheduler's exact time in the ratio of the ticks seen in each mode. All arguments are in seconds.

        As the kernel does it (cputime_adjust in kernel/sched/cputime.c): all of it is user time if no tick was seen in
        system mode.
        """
        share = user / (user + system) if system else 1.0
        return cls(exact * share, exact * (1 - share))

    def __add__(self, other: Spent) -> Spent:
        return Spent(self.user + other.user, self.system + other.system)

    def __sub__(self, other: Spent) -> Spent:
        """Return the difference: exact in total, approximate between the modes, which only ticks tell apart."""
        total = max(0.0, self.total - other.total)
        user = min(max(0.0, self.user - other.user), total)
        return Spent(user, total - user)
