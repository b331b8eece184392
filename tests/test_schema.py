"""The committed JSON Schema is what the model says; an old result stays readable only if a change of it is seen."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec

from harness import model

ROOT = Path(__file__).parents[1]
COMMITTED = ROOT / "schema" / "weighbridge-1.json"
REGENERATE = f".venv/bin/python {Path(__file__).relative_to(ROOT)}"


def generated() -> str:
    """The JSON Schema of one line of a result file, as it is committed."""
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": model.SCHEMA}
    return json.dumps(schema | msgspec.json.schema(model.Record), indent=1) + "\n"


def test_the_committed_schema_is_the_models() -> None:
    assert COMMITTED.stem == model.SCHEMA.replace("/", "-"), "a new schema version needs a new file and a golden file"
    assert COMMITTED.read_text() == generated(), f"harness/model.py changed; if that is meant: {REGENERATE}"


def test_every_kind_of_record_is_in_it() -> None:
    kinds = json.loads(COMMITTED.read_text())["discriminator"]["mapping"]
    assert set(kinds) == {"header", "bundle", "target", "unavailable", "image", "host", "run", "footer"}


if __name__ == "__main__":
    COMMITTED.write_text(generated())
