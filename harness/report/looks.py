"""How pictures look: the colours, and by which colour and hatch the pieces of a total are told apart."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import as_file, files
from typing import get_args

from matplotlib import rc_context

from harness.model import Group
from harness.report.rows import Row
from harness.report.series import Piece

INK, QUIET, LINE, PAPER = "#1f2328", "#59636e", "#d1d9e0", "#fefefe"
# Okabe & Ito's palette, told apart by those who do not see all colours; its black is the ink.
PALETTE = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442", "#999999")
HATCHES = ("", "////", "....", "xxxx")
UNSPLIT = "||||"  # the hatch of a group that is not split by kind, beside others that are
KINDS = ("anonymous", "file", "shmem", "translation cache")
SWATCHES = 6  # in one line of a legend


@contextmanager
def style() -> Iterator[None]:
    """Within it, pictures are drawn by static/weighbridge.mplstyle."""
    with as_file(files("harness.report").joinpath("static/weighbridge.mplstyle")) as path, rc_context(fname=path):
        yield


@dataclass(frozen=True)
class Look:
    colour: str
    hatch: str


@dataclass(frozen=True)
class Looks:
    """The look of each piece, by name and in the order of a stack, and the lines of the legend that tells them."""

    pieces: dict[str, Look]
    legend: list[dict[str, Look]]


def looks(rows: Iterable[Row]) -> Looks:
    """Pieces of groups have the group's colour, the same in every panel, and the hatch of their kind.

    Any others have a colour each, and a hatch besides where there are more of them than colours.
    """
    pieces = {piece.name: piece for row in rows for piece in row.pieces if piece.median}
    if not any(piece.group for piece in pieces.values()):
        ways = itertools.cycle(Look(colour, hatch) for hatch, colour in itertools.product(HATCHES, PALETTE))
        told = dict(zip(pieces, ways, strict=False))
        return Looks(told, list(_lines(told)))
    return _by_group(list(pieces.values()))


def _by_group(pieces: Sequence[Piece]) -> Looks:
    groups = _ranked(get_args(Group), [piece.group or "" for piece in pieces])
    kinds = _ranked(KINDS, [piece.part for piece in pieces if piece.part])
    colours = dict(zip(groups, itertools.cycle(PALETTE), strict=False))
    hatches = dict(zip(kinds, itertools.cycle(HATCHES), strict=False))
    unsplit = UNSPLIT if len({piece.part is None for piece in pieces}) == 2 else ""
    told = {
        piece.name: Look(colours[piece.group or ""], hatches[piece.part] if piece.part else unsplit)
        for piece in sorted(pieces, key=lambda p: (groups.index(p.group or ""), kinds.index(p.part) if p.part else -1))
    }
    here = {name for piece in pieces for name in (piece.group, piece.part)}
    by_colour = {group: Look(colour, "") for group, colour in colours.items() if group in here}
    by_hatch = {kind: Look(QUIET, hatch) for kind, hatch in hatches.items() if kind in here}
    if unsplit:
        by_hatch["not split by kind"] = Look(QUIET, unsplit)
    return Looks(told, [*_lines(by_colour), *_lines(by_hatch)])


def _ranked(known: Iterable[str], found: Iterable[str]) -> list[str]:
    """The known names in their order, whether found or not, then all others that were found."""
    return list(dict.fromkeys([*known, *found]))


def _lines(told: dict[str, Look]) -> Iterator[dict[str, Look]]:
    names = list(told)
    for first in range(0, len(names), SWATCHES):
        yield {name: told[name] for name in names[first : first + SWATCHES]}
