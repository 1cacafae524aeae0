"""Questions that are kept out of training, written apart from the templates: what the table is measured on."""

from __future__ import annotations

import re
from functools import cache

from training.starter.phrases import LANGUAGES, Language, normalise, read_texts

_SLOT = re.compile(r"<\w+>")
_GAP = "slotslot"


@cache
def load_held_out(language: Language) -> dict[str, dict[str, tuple[str, ...]]]:
    """Load the held-out questions by section (chat, self, topics, unknown, skills, show) and by name."""
    return {
        section: {name: tuple(questions) for name, questions in rows.items()}
        for section, rows in read_texts(f"held_out_{language}").items()
    }


def is_held_out(question: str) -> bool:
    """Say whether a question is a held-out one, whatever its case, accents and marks, and what fills its slots."""
    words = normalise(question)
    return words in _whole() or _with_slots().fullmatch(words) is not None


@cache
def _whole() -> frozenset[str]:
    return frozenset(normalise(question) for question in _questions() if not _SLOT.search(question))


@cache
def _with_slots() -> re.Pattern[str]:
    texts = {normalise(_SLOT.sub(_GAP, question)) for question in _questions() if _SLOT.search(question)}
    return re.compile("|".join(re.escape(text).replace(_GAP, ".+") for text in sorted(texts)))


def _questions() -> list[str]:
    return [
        question
        for language in LANGUAGES
        for rows in load_held_out(language).values()
        for questions in rows.values()
        for question in questions
    ]
