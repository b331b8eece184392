"""JSON, TOML and XML from outside: every Python version refuses the same depth of nesting, and nothing less deep."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.decode import LEVELS, Undecodable, check_levels, decode_json, decode_toml, decode_xml

TOO_DEEP = f"nested deeper than {LEVELS} levels"


def json_object(levels: int) -> str:
    return '{"a":' * levels + "1" + "}" * levels


def json_array(levels: int) -> str:
    return "[" * levels + "]" * levels


def toml_array(levels: int) -> str:
    return "a = " + json_array(levels - 1)


def toml_inline_table(levels: int) -> str:
    return "a = " + "{a = " * (levels - 1) + "1" + "}" * (levels - 1)


def toml_dotted_key(levels: int) -> str:
    return ".".join(["a"] * levels) + " = 1"


def toml_table_header(levels: int) -> str:
    return f"[{'.'.join(['a'] * (levels - 2))}]\na.b = 1"


def xml_elements(levels: int) -> str:
    return "<a>" * levels + "</a>" * levels


DECODERS = [
    (decode_json, json_object),
    (decode_json, json_array),
    (decode_toml, toml_array),
    (decode_toml, toml_inline_table),
    (decode_toml, toml_dotted_key),
    (decode_toml, toml_table_header),
    (decode_xml, xml_elements),
]


@pytest.mark.parametrize(("decode", "nest"), DECODERS, ids=[nest.__name__ for _, nest in DECODERS])
def test_decode_refuses_deeper_nesting_than_the_bound(decode: Any, nest: Any) -> None:
    decode(nest(LEVELS))
    for levels in (LEVELS + 1, 5000):
        with pytest.raises(Undecodable, match=TOO_DEEP):
            decode(nest(levels))


def test_decoded_value_at_the_bound_passes_every_encoder() -> None:
    for value in (decode_json(json_object(LEVELS)), decode_json(json_array(LEVELS))):
        assert json.loads(json.dumps({"facts": value}, indent=1)) == {"facts": value}
    root = decode_xml(xml_elements(LEVELS))
    assert ET.tostring(root).count(b"<a") == LEVELS


@pytest.mark.parametrize(
    "text", ["[" * 5000, '{"a":' * 5000, "[{" * 5000, "x" * 2**20 + "[" * 5000], ids=["[", "{", "[{", "junk"]
)
def test_decode_json_refuses_unclosed_nesting(text: str) -> None:
    with pytest.raises(Undecodable, match=TOO_DEEP):
        decode_json(text)


@pytest.mark.parametrize("text", ["", "{", "}{", "]" * 5000, "{]", "NaN", '"\\ud800"', '{"a": 1} 2', '"' + "[" * 5000])
def test_decode_json_refuses_malformed_text(text: str) -> None:
    with pytest.raises(Undecodable):
        decode_json(text)


def test_decode_json_refuses_bytes_that_are_not_utf8() -> None:
    with pytest.raises(Undecodable):
        decode_json(b'"\xff"')


@pytest.mark.parametrize("text", ["[" * 5000, '"' + "{" * 5000, "\\" * 4999 + '"' + "[" * 5000])
def test_brackets_in_strings_are_not_levels(text: str) -> None:
    assert decode_json(json.dumps({text: [text]})) == {text: [text]}


@pytest.mark.parametrize("text", ["a = ", f"a = {'9' * 5000}", "a = 1\na = 2"])
def test_decode_toml_refuses_malformed_text(text: str) -> None:
    with pytest.raises(Undecodable):
        decode_toml(text)


@pytest.mark.parametrize("text", ["", "<a>", "<a>\ud800</a>", "<a/><b/>"])
def test_decode_xml_refuses_malformed_text(text: str) -> None:
    with pytest.raises(Undecodable):
        decode_xml(text)


def depth(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + max(map(depth, value.values()), default=0)
    return 1 + max(map(depth, value), default=0) if isinstance(value, list) else 0


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text('[]{}"\\ax'),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text('[]{}"\\ax'), inner, max_size=3),
    max_leaves=20,
)


@given(VALUES, st.integers(0, 8))
def test_check_levels_counts_the_levels_of_any_value(value: Any, levels: int) -> None:
    content = json.dumps(value).encode()
    if depth(value) > levels:
        with pytest.raises(Undecodable):
            check_levels(content, levels)
    else:
        check_levels(content, levels)
