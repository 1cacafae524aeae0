"""Sentences for a person: an English template and the values in it, so that a door can say them in another language."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Sentence:
    """An English template in `str.format` syntax, which is also the key of its translations."""

    template: str
    values: Mapping[str, object] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.in_words(self.template)

    def in_words(self, template: str) -> str:
        """Fill `template`, a translation of this sentence, with this sentence's values."""
        return template.format(**self.values) if self.values else template

    def to_json(self) -> dict[str, Any]:
        """Return the sentence as JSON, sentences within it too."""
        values = {
            name: value.to_json() if isinstance(value, Sentence) else value for name, value in self.values.items()
        }
        return {"template": self.template, "values": values}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Sentence:
        """Return the sentence that `to_json` wrote."""
        values = {
            name: cls.from_json(value) if isinstance(value, dict) else value for name, value in data["values"].items()
        }
        return cls(data["template"], values)


def say(template: str, **values: object) -> Sentence:
    """Make a sentence; write `template` as a literal, so that the check of the translations finds it."""
    return Sentence(template, values)
