"""How a number, a target and foreign text are put for a person: the one place for units and for the VM's label."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import reduce
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from harness.model import TargetRecord
    from harness.stats.estimate import Estimate, Ratio

NONE = "—"
_COUNTED = {"cpu.rest": "CPUs"}  # what a metric without a unit counts

_TIMES = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"))
_SIZES = ((2.0**40, "TiB"), (2.0**30, "GiB"), (2.0**20, "MiB"), (2.0**10, "KiB"), (1.0, "B"))
_UNPRINTABLE = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]|[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ufffe\uffff]"
)


class Words(str):
    """English words of ours, which a page can put into another language. Foreign text is a plain `str` and stays.

    `template` has fields in braces, as for str.format(); `values` fill them, and may be Words themselves.
    """

    template: str
    values: dict[str, object]

    def __new__(cls, template: str, /, **values: object) -> Self:
        words = super().__new__(cls, template.format(**values) if values else template)
        words.template, words.values = template, values
        return words


def listed(parts: Iterable[str], template: str = "{some}, {more}") -> Words:
    """One after the other. Between them is what each language puts between them."""
    told = [Words("{one}", one=part) for part in parts]
    return reduce(lambda some, more: Words(template, some=some, more=more), told) if told else Words("")


def count_cpus(count: object) -> Words:
    """Return `1 CPU` or `2 CPUs`."""
    return Words("1 CPU") if count == 1 else Words("{count} CPUs", count=count)


def count_runs(count: int) -> Words:
    """Return `1 run` or `2 runs`."""
    return Words("1 run") if count == 1 else Words("{count} runs", count=count)


def count_launches(count: int) -> Words:
    """Return `1 launch` or `2 launches`."""
    return Words("1 launch") if count == 1 else Words("{count} launches", count=count)


def label(target: TargetRecord, lab: str | None = None) -> str:
    """A target's key and, for a virtual machine, what ran the guest. "KVM" is said only where KVM did.

    lab: the mark of a machine whose numbers are to be known for what they are wherever they are shown.
    """
    return _marked(line(target.target), accelerator(target), lab and line(lab))


def short_label(target: TargetRecord, lab: str | None = None) -> str:
    """The same in a word, where there is no room for the reason: "libvirt/pc · QEMU TCG"."""
    return _marked(line(target.target), ran(target), lab and line(lab))


def _marked(target: str, *marks: str | None) -> str:
    """All that is to be known of a target beside its key is one thing, `ran`, for those that put it elsewhere."""
    told = [mark for mark in marks if mark]
    if not told:
        return target
    return Words("{target} · {ran}", target=target, ran=listed(told, "{some} · {more}") if len(told) > 1 else told[0])


COLD = {
    "image": Words("the page cache of the image's files"),
    "all": Words("the page cache of the whole machine"),
}
"""What is dropped before every start, by Plan.cold."""


class Labels:
    """Labels by target key, in the order in which the targets were recorded."""

    def __init__(self, targets: Iterable[TargetRecord], lab: str | None) -> None:
        self._labels = {target.target: label(target, lab) for target in targets}
        self._places = {target: place for place, target in enumerate(self._labels)}

    def __getitem__(self, target: str) -> str:
        if target in self._labels:
            return self._labels[target]
        return Words("{target} (its engine was not recorded)", target=line(target))

    def order(self, target: str) -> tuple[int, str]:
        return (self._places.get(target, len(self._places)), target)


def ran(target: TargetRecord) -> str | None:
    """What ran the guest's instructions, in words that stay the same; None for what is no machine."""
    if target.accelerator is None:
        return None
    return {"kvm": "KVM", "tcg": "QEMU TCG"}.get(target.accelerator, line(target.accelerator))


def accelerator(target: TargetRecord) -> str | None:
    """What ran the guest's instructions, with the reason where it was software; None for what is no machine."""
    if target.accelerator != "tcg":
        return ran(target)
    reason = target.accelerator_reason
    return Words("QEMU TCG (no KVM: {reason})", reason=line(reason) if reason else Words("the reason was not recorded"))


def not_here(target: str, reason: str, hint: str) -> str:
    """Return the message about a target that cannot run here, with its remedy."""
    return f"{target}: not here: {reason}. Try: {hint}"


def lacks_kvm(accelerator: str | None) -> bool:
    """Whether a target is a machine that runs in software, so that its remedy is about KVM."""
    return accelerator not in (None, "kvm", "KVM")


def improvable(target: str, accelerator: str | None, reason: str | None, remedy: str) -> str:
    """Return the message about a target that runs, but could run better, such as under KVM, with the remedy."""
    if lacks_kvm(accelerator):
        return f"{target}: not under KVM: {reason or 'the reason was not recorded'}. Try: {remedy}"
    return f"{target}: it runs, and can be improved{f': {reason}' if reason else ''}. Try: {remedy}"


def unit(metric: str, recorded: str) -> str:
    """The unit to print a metric's values with: the recorded one, or a name for what a plain number counts."""
    return _COUNTED.get(metric, recorded)


def scale(value: float, unit: str) -> tuple[float, str]:
    """What to divide by, and the unit to print: "s" goes down to µs, "B" up to TiB, any other stays as it is."""
    scales = {"s": _TIMES, "B": _SIZES}.get(unit, ((1.0, "" if unit == "1" else unit),))
    # 999.6 ms would round to "1000 ms": a value counts for the larger unit as soon as it prints as one of it.
    whole = next(pair for pair in scales if pair[0] == 1)
    return next((pair for pair in scales if abs(value) >= 0.9995 * pair[0]), scales[-1] if value else whole)


def quantity(value: float, unit: str) -> str:
    """A value with its unit, three digits of it: "3.21 ms", "1.20 MiB"."""
    size, name = scale(value, unit)
    return f"{_digits(value / size, _places(value / size, name))} {name}".rstrip()


def interval(estimate: Estimate, unit: str) -> str:
    """The interval in the unit and to the places of its median, and the count: "[3.10, 3.40] n=7".

    Where the count is too small for the confidence that was asked for, the coverage that was reached is added.
    """
    size, name = scale(estimate.median, unit)
    # Beside a median of 0 it is the upper bound that has digits to show.
    places = _places((estimate.median or estimate.high) / size, name)
    low, high = (_digits(bound / size, places) for bound in (estimate.low, estimate.high))
    if estimate.n == 1:
        return "n=1"
    told = f"[{low}, {high}] n={estimate.n}"
    if estimate.coverage >= estimate.confidence:
        return told
    return Words("{interval} ({coverage:.0%} only)", interval=told, coverage=estimate.coverage)


def measured(estimate: Estimate, unit: str) -> str:
    """A median with its unit, interval and count: "3.21 ms [3.10, 3.40] n=7"."""
    return Words("{median} {interval}", median=quantity(estimate.median, unit), interval=interval(estimate, unit))


def times(ratio: Ratio) -> str:
    """A ratio with its interval: "12.3x [11.9, 12.8]"."""
    places, told = _places(ratio.ratio, ""), f"{factor(ratio.ratio)}x"
    if ratio.low is None or ratio.high is None:
        return f"{told} n={ratio.n}"
    return f"{told} [{_digits(ratio.low, places)}, {_digits(ratio.high, places)}]"


def factor(ratio: float) -> str:
    """By how much, in the digits of times(): "17.0", "1364"."""
    return _digits(ratio, _places(ratio, ""))


def plain(text: str) -> str:
    """Foreign text without what would move a cursor, colour a terminal, reorder a line or break an XML document."""
    return _UNPRINTABLE.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))


def line(text: str) -> str:
    """Foreign text on one line."""
    return " ".join(plain(text).split())


def _places(value: float, unit: str) -> int:
    if value == 0 or unit == "B":
        return 0
    exponent = int(f"{value:.2e}".partition("e")[2])
    return max(0, 2 - exponent)


def _digits(value: float, places: int) -> str:
    return f"{value:.{min(places, 9)}f}"
