"""The phrases in `texts/`: reading them, choosing a wording, telling when two are the same."""

from __future__ import annotations

import re
import tomllib
import unicodedata
from collections import defaultdict
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random
from typing import Any, Literal

Language = Literal["en", "es"]
LANGUAGES: tuple[Language, ...] = ("en", "es")
TEXTS = Path(__file__).parent / "texts"

_CHOICE = re.compile(r"\(([^()]*)\)")
_NOT_WORD = re.compile(r"[^\w+*/-]+")


@dataclass(frozen=True, slots=True)
class Intent:
    """One thing that a person may want, how they ask for it, and every answer to it."""

    name: str
    group: str
    weight: float
    asks: tuple[str, ...]
    answers: tuple[str, ...]


def read_texts(name: str) -> dict[str, Any]:
    """Read one TOML file of `texts/`."""
    return tomllib.loads((TEXTS / f"{name}.toml").read_text(encoding="utf-8"))


@cache
def load_wordings(language: Language) -> dict[str, dict[str, tuple[str, ...]]]:
    """Load the templates of `texts/wordings` by section (topics, intents, unknown, skills, tells, systems) and name."""
    sections: dict[str, dict[str, tuple[str, ...]]] = defaultdict(dict)
    for file in sorted((TEXTS / "wordings").glob(f"{language}_*.toml")):
        for section, rows in read_texts(f"wordings/{file.stem}").items():
            for name, templates in rows.items():
                sections[section][name] = (*sections[section].get(name, ()), *templates)
    return sections


@cache
def load_intents(language: Language) -> tuple[Intent, ...]:
    """Load what the model can talk about in one language."""
    return tuple(
        Intent(
            name=row["name"],
            group=row["group"],
            weight=float(row.get("weight", 1)),
            asks=(*row["asks"], *load_wordings(language)["intents"].get(row["name"], ())),
            answers=tuple(row["answers"]),
        )
        for row in read_texts(language)["intents"]
    )


def choose(template: str, rng: Random, keep_ends: bool = False) -> str:
    """Replace every `(a|b)` of a template by one of its choices, the innermost first; spaces at its ends may stay."""
    while (match := _CHOICE.search(template)) is not None:
        choice = rng.choice(match.group(1).split("|"))
        template = template[: match.start()] + choice + template[match.end() :]
    return template if keep_ends else template.strip()


def strip_accents(text: str) -> str:
    """Write a text without accents, as many people type it."""
    parts = unicodedata.normalize("NFD", text)
    return unicodedata.normalize("NFC", "".join(c for c in parts if not unicodedata.combining(c)))


def normalise(text: str) -> str:
    """Reduce a text to its words, so that two spellings of one phrasing are equal."""
    return _NOT_WORD.sub(" ", strip_accents(text).lower()).strip()
