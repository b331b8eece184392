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
        """The scheduler's exact time, divided in the ratio of the ticks that were seen in either mode.

        As the kernel does it (cputime_adjust in kernel/sched/cputime.c): all is user time where no tick was seen in
        system mode, nor any at all maybe.
        """
        share = user / (user + system) if system else 1.0
        return cls(exact * share, exact * (1 - share))

    def __add__(self, other: Spent) -> Spent:
        return Spent(self.user + other.user, self.system + other.system)

    def __sub__(self, other: Spent) -> Spent:
        """Exact in total; between the modes as far as it can be, where ticks are all there is to tell."""
        total = max(0.0, self.total - other.total)
        user = min(max(0.0, self.user - other.user), total)
        return Spent(user, total - user)
