"""Decode JSON, TOML and XML that other programs and users wrote, and bound how deeply their values nest.

Each Python version decodes and encodes to a different depth, and some encoders exhaust the stack before the decoder.
One bound of our own gives the same result on all versions, and keeps recorded values readable.
"""

from __future__ import annotations

import re
import tomllib
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

LEVELS = 100
"""Levels of nested objects and arrays in a value from outside: far below the stack of any encoder."""
RECORD_LEVELS = LEVELS + 20
"""The bound for one line of a result file: a record contains such a value some levels down."""

_ESCAPED = re.compile(rb"\\.", re.DOTALL)
_OTHER = bytes(set(range(256)) - set(b'[]{}"'))
_AS_BRACES = bytes.maketrans(b"[]", b"{}")


class Undecodable(ValueError):
    """The text is not JSON, TOML or XML, or it nests too deeply. The message says which."""


def decode_json(text: str | bytes, levels: int = LEVELS) -> Any:
    """Decode JSON strictly: NaN and unpaired surrogates are errors too. Raises Undecodable."""
    content = text.encode(errors="replace") if isinstance(text, str) else text
    check_levels(content, levels)
    try:
        return msgspec.json.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Undecodable(str(error)) from error


def check_levels(content: bytes, levels: int) -> None:
    """Raise Undecodable if JSON nests more than `levels` deep. Counts brackets before anything is decoded.

    Malformed JSON passes if it nests no deeper; the decoder then refuses it.
    """
    if content.count(b"{") + content.count(b"[") <= levels:
        return
    if b"\\" in content:
        content = _ESCAPED.sub(b"", content)
    outside_strings = content.translate(_AS_BRACES, _OTHER).split(b'"')[::2]
    braces, depth = b"".join(outside_strings), 0
    while (outer := braces.replace(b"{}", b"")) != braces:  # removes the innermost level everywhere
        braces, depth = outer, depth + 1
        if depth > levels:
            raise _too_deep(levels)
    if depth + braces.count(b"{") > levels:
        raise _too_deep(levels)


def decode_toml(text: str) -> dict[str, Any]:
    """Decode TOML. Raises Undecodable."""
    try:
        table = tomllib.loads(text)
    except RecursionError as error:
        raise _too_deep(LEVELS) from error
    except ValueError as error:  # a number with too many digits raises ValueError, not TOMLDecodeError
        raise Undecodable(str(error)) from error
    _check_nesting([table])
    return table


def decode_xml(text: str) -> ET.Element:
    """Decode an XML document to its root element. Raises Undecodable."""
    try:
        root = ET.fromstring(text)
    except (ET.ParseError, ValueError) as error:  # ValueError: an unpaired surrogate
        raise Undecodable(str(error)) from error
    _check_nesting([root])
    return root


def _check_nesting(layer: Sequence[Any]) -> None:
    """Raise Undecodable if values of this layer nest more than LEVELS deep, themselves included."""
    for _ in range(LEVELS):
        layer = [child for each in layer for child in _children(each)]
        if not layer:
            return
    if any(isinstance(each, dict | list | ET.Element) for each in layer):
        raise _too_deep(LEVELS)


def _children(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list | ET.Element) else ()


def _too_deep(levels: int) -> Undecodable:
    return Undecodable(f"nested deeper than {levels} levels")
