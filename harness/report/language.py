"""The language of a page: our own words put into it, foreign text left as it is.

languages/<code>.toml has each of our English words and what it is in that language. English needs none.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.resources import files

from harness.wording import Words

_FIELD = re.compile(r"\{[^{}]*\}")

CODES = {"en": "en", "zh": "zh-Hans"}
"""What --lang takes, and the page's `lang` (BCP 47)."""


@dataclass(frozen=True)
class Language:
    """`lacking` collects what the catalogue does not have, which is shown in English."""

    code: str
    catalogue: Mapping[str, str]
    lacking: set[str] = field(default_factory=set)

    @property
    def tag(self) -> str:
        return CODES[self.code]

    def __call__(self, text: object) -> str:
        """Text as it is shown: Words in this language, anything else as it is."""
        if not isinstance(text, Words):
            return str(text)
        template = self._found(text.template)
        values = {name: self(each) if isinstance(each, Words) else each for name, each in text.values.items()}
        return template.format(**values) if values else template

    def say(self, template: str, **values: object) -> str:
        """Words of a template."""
        return self(Words(template, **values))

    def _found(self, template: str) -> str:
        if self.code == "en":
            return template
        if template not in self.catalogue:
            if says_anything(template):
                self.lacking.add(template)
            return template
        return self.catalogue[template]


ENGLISH = Language("en", {})


def language(code: str) -> Language:
    """code: one of CODES."""
    if code == "en":
        return ENGLISH
    text = files("harness.report").joinpath(f"languages/{code}.toml").read_text("utf-8")
    return Language(code, tomllib.loads(text))


def says_anything(template: str) -> bool:
    """Whether there is a letter beside its fields, or punctuation that is another one in another language.

    A metric's foreign title may have braces that are no fields.
    """
    return any(letter.isalpha() or letter in ",;:()" for letter in _FIELD.sub("", template))
