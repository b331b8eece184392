"""A comparison as people and programs read it: the verdict first, then every number it rests on."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterable, Iterator
from io import StringIO

import msgspec
from rich.console import Console
from rich.table import Table

from harness.comparison import Compared
from harness.verdict import Comparison, Verdict, Weighed
from harness.wording import NONE, Words, count_launches, line, listed, plain, quantity

MARKS = {"regressed": "❌", "improved": "✅", "unchanged": "", "undecided": "❔"}
NOTABLE: tuple[Verdict, ...] = ("regressed", "undecided", "improved")
COLUMNS = ("Metric", "Base", "Head", "Change, 95% interval", "Verdict")
WIDTH = 120
_SPECIAL = re.compile(r"[\\`*_<>&|~$]|\](?=\()")  # not every bracket, so that an interval is readable as it is written


def first_line(compared: Compared) -> str:
    """What got worse and by how much; else that nothing did, and what is not known."""
    if worse := compared.of("regressed"):
        told = listed((_grown(each) for each in worse[:3]), "{some}; {more}")
        words = Words("Regressed: {what}", what=told)
        if len(worse) > 3:
            words = Words("Regressed: {what}; and {count} more", what=told, count=len(worse) - 3)
    else:
        verdicts: tuple[Verdict, ...] = ("unchanged", "improved", "undecided")
        counts = [(len(compared.of(verdict)), Words(verdict)) for verdict in verdicts]
        told = listed(Words("{count} {verdict}", count=count, verdict=verdict) for count, verdict in counts if count)
        words = Words("Nothing regressed: {counts}", counts=told)
    if compared.head_failed:
        return Words("{told}. {launches} of the head failed", told=words, launches=count_launches(compared.head_failed))
    return words


def _grown(each: Comparison) -> Words:
    return Words("{name} {change} ({from_to})", name=each.name, change=change(each), from_to=from_to(each))


def change(each: Comparison) -> str:
    """The change with its interval: "+12.3 % [+9.8 %, +14.9 %]", in the metric's unit where there is no ratio."""
    if each.change is None or each.low is None or each.high is None:
        return NONE
    if each.low == each.high:
        return _amount(each, each.change)
    return f"{_amount(each, each.change)} [{_amount(each, each.low)}, {_amount(each, each.high)}]"


def text(compared: Compared) -> str:
    """For a terminal."""
    table = Table(*COLUMNS, box=None, pad_edge=False)
    for each in compared.comparisons:
        table.add_row(line(each.name), side(each, each.base), side(each, each.head), change(each), each.verdict)
    shown = StringIO()
    Console(file=shown, width=WIDTH, color_system=None, markup=False, emoji=False).print(table)
    rows = [row.rstrip() for row in shown.getvalue().split("\n")[:-1]]
    return "\n".join([line(first_line(compared)), "", *rows, "", *map(line, remarks(compared))]) + "\n"


def markdown(compared: Compared) -> str:
    """For a job's summary or a comment: the verdict, what is not unchanged and why, and the rest folded."""
    notable = [each for verdict in NOTABLE for each in compared.of(verdict)]
    lines = [f"**{_escaped(first_line(compared))}**", ""]
    if notable:
        lines += [*_rows(notable), ""]
    if open_questions := _items([*_reasons(compared), *compared.missing]):
        lines += [*open_questions, ""]
    lines += ["<details><summary>All comparisons, and how they were made</summary>", ""]
    lines += [*_rows(compared.comparisons), "", *_items([*compared.notes, *_method(compared)])]
    return "\n".join([*lines, "", "</details>"]) + "\n"


def as_json(compared: Compared) -> str:
    """All of it, in s and B; `first_line` beside it."""
    told = {"first_line": first_line(compared), **msgspec.to_builtins(compared, enc_hook=str)}
    return json.dumps(told, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def junit(compared: Compared) -> str:
    """JUnit XML, a case a comparison: regressed is a failure, undecided is skipped. Failed launches are an error."""
    cases = [_case(each) for each in compared.comparisons]
    heads = {(each.target, each.workload): each.head.failed for each in compared.comparisons}
    cases += [_failed(*cell, failed) for cell, failed in heads.items() if failed]
    counts = {"tests": str(len(cases))}
    for outcome, plural in (("failure", "failures"), ("error", "errors")):
        counts[plural] = str(sum(case.find(outcome) is not None for case in cases))
    suites = ET.Element("testsuites", counts)
    counts["skipped"] = str(len(compared.of("undecided")))  # which Jenkins knows of one suite only
    suite = ET.SubElement(suites, "testsuite", {"name": "weighbridge", **counts, "time": "0"})
    suite.extend(cases)
    ET.SubElement(suite, "system-out").text = plain("\n".join([first_line(compared), *remarks(compared)]))
    ET.indent(suites)
    return ET.tostring(suites, encoding="unicode", xml_declaration=True) + "\n"


FORMATS: dict[str, Callable[[Compared], str]] = {
    "text": text,
    "markdown": markdown,
    "json": as_json,
    "junit": junit,
}


def _rows(comparisons: Iterable[Comparison]) -> Iterator[str]:
    yield f"| {' | '.join(COLUMNS)} |"
    yield f"| {' | '.join('---' for _ in COLUMNS)} |"
    for each in comparisons:
        told = (each.name, side(each, each.base), side(each, each.head), change(each))
        yield f"| {' | '.join(map(_escaped, told))} | {f'{MARKS[each.verdict]} {each.verdict}'.strip()} |"


def _items(remarks: Iterable[str]) -> list[str]:
    return [f"- {_escaped(remark)}" for remark in remarks]


def _case(each: Comparison) -> ET.Element:
    case = _named(each.target, each.workload, each.metric)
    told = plain(f"{each.verdict}: {each.name} {change(each)} ({from_to(each)})")
    if each.verdict == "regressed":
        ET.SubElement(case, "failure", message=told, type="regressed").text = told
    elif each.verdict == "undecided":
        ET.SubElement(case, "skipped", message=plain(f"undecided: {each.reason}"))
    ET.SubElement(case, "system-out").text = told
    return case


def _failed(target: str, workload: str, failed: int) -> ET.Element:
    case = _named(target, workload, "launches")
    ET.SubElement(case, "error", message=f"{count_launches(failed)} of the head failed", type="failed")
    return case


def _named(target: str, workload: str, name: str) -> ET.Element:
    return ET.Element("testcase", classname=plain(f"weighbridge.{target}.{workload}"), name=plain(name), time="0")


def side(each: Comparison, side: Weighed) -> str:
    """Its median and what that is the median of: launches of one campaign, or medians of several."""
    told = NONE if side.median is None else f"{quantity(side.median, each.unit)} n={side.n}"
    return told + (f", {side.failed} failed" if side.failed else "")


def from_to(each: Comparison) -> str:
    return " → ".join(
        NONE if side.median is None else quantity(side.median, each.unit) for side in (each.base, each.head)
    )


def _amount(each: Comparison, amount: float) -> str:
    if not each.relative:
        return f"{'+' if amount >= 0 else '-'}{quantity(abs(amount), each.unit)}"
    return f"{100 * amount:+.1f} %"


def remarks(compared: Compared) -> Iterator[str]:
    """Reasons, what could have been shown, and how all of it was judged."""
    yield from (*_reasons(compared), *compared.missing, *compared.notes, *_method(compared))


def _reasons(compared: Compared) -> Iterator[str]:
    """Why what is undecided is so: a sentence for all that share a reason."""
    reasons: dict[str, list[str]] = {}
    for each in compared.of("undecided"):
        reasons.setdefault(_reason(each), []).append(each.name)
    for reason, names in reasons.items():
        if len(names) == 1:
            yield Words("{name} is undecided: {reason}", name=names[0], reason=reason)
        else:
            told = "{name}, and {count} more, are undecided: {reason}"
            yield Words(told, name=names[0], count=len(names) - 1, reason=reason)


def _method(compared: Compared) -> Iterator[str]:
    thresholds = {each.metric: each.threshold for each in compared.comparisons}
    units = {each.metric: each.unit for each in compared.comparisons}
    told = listed(
        Words(
            "{metric} {percent:g} % and {floor}",
            metric=metric,
            percent=100 * threshold.relative,
            floor=quantity(threshold.floor, units[metric]),
        )
        for metric, threshold in thresholds.items()
    )
    yield Words("Thresholds: {told}. Smaller changes are of no interest.", told=told)
    how = {
        "interleaved": Words("Both sides took turns in one campaign; signed ranks of the rounds' log ratios"),
        "campaigns": Words("Separate campaigns, each one observation; a t prediction interval from the base's medians"),
    }[compared.design]
    alpha = compared.alpha
    yield Words("{how}; Holm's correction over all that was tested, alpha {alpha:g}.", how=how, alpha=alpha)
    yield Words("Base: {base}. Head: {head}.", base=_ids(compared.base), head=_ids(compared.head))


def _reason(each: Comparison) -> str:
    if each.smallest is None:
        return each.reason
    told = "{reason}; {smallest} would have been found 4 times in 5"
    return Words(told, reason=each.reason, smallest=_amount(each, each.smallest))


def _ids(campaigns: tuple[str, ...]) -> str:
    if len(campaigns) <= 3:
        return ", ".join(campaigns)
    return Words("{count} campaigns up to {last}", count=len(campaigns), last=max(campaigns))


def _escaped(told: str) -> str:
    """Foreign text as Markdown on one line, of which no part is markup or the end of a cell."""
    return _SPECIAL.sub(r"\\\g<0>", line(told))
