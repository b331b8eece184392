"""The committed JSON Schema is what the model says; an old result stays readable only if a change of it is seen."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import msgspec

from harness import model

ROOT = Path(__file__).parents[1]
COMMITTED = ROOT / "schema" / "weighbridge-1.json"
REGENERATE = f".venv/bin/python {Path(__file__).relative_to(ROOT)}"


def generated() -> str:
    """The JSON Schema of one line of a result file, as it is committed."""
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": model.SCHEMA}
    return json.dumps(schema | without_indentation(msgspec.json.schema(model.Record)), indent=1) + "\n"


def without_indentation(schema: Any) -> Any:
    """The schema with its descriptions as Python 3.13 and later compile docstrings: without indentation."""
    if isinstance(schema, list):
        return [without_indentation(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    cleaned = {key: without_indentation(value) for key, value in schema.items()}
    if isinstance(description := schema.get("description"), str):
        cleaned["description"] = inspect.cleandoc(description)
    return cleaned


def test_the_committed_schema_is_the_models() -> None:
    assert COMMITTED.stem == model.SCHEMA.replace("/", "-"), "a new schema version needs a new file and a golden file"
    assert COMMITTED.read_text() == generated(), f"harness/model.py changed; if that is meant: {REGENERATE}"


def test_descriptions_do_not_depend_on_how_docstrings_are_compiled() -> None:
    """Python 3.11 and 3.12 keep a docstring's indentation, later versions strip it."""
    kept = {"anyOf": [{"description": "One.\n\n    Two.\n      Three.\n    ", "properties": {"description": {}}}]}
    stripped = {"anyOf": [{"description": "One.\n\nTwo.\n  Three.\n", "properties": {"description": {}}}]}
    expected = {"anyOf": [{"description": "One.\n\nTwo.\n  Three.", "properties": {"description": {}}}]}
    assert without_indentation(kept) == without_indentation(stripped) == expected


def test_every_kind_of_record_is_in_it() -> None:
    kinds = json.loads(COMMITTED.read_text())["discriminator"]["mapping"]
    assert set(kinds) == {"header", "bundle", "target", "unavailable", "image", "host", "run", "footer"}


if __name__ == "__main__":
    COMMITTED.write_text(generated())
