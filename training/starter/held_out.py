"""Questions that are kept out of training, in two sets: one to write templates by, one to measure the table on."""

from __future__ import annotations

import re
from functools import cache
from typing import Literal, get_args

from training.starter.phrases import LANGUAGES, Language, normalise, read_texts

QuestionSet = Literal["held_out", "validation"]
"""The validation set's failures tell what to write; so it is easier for the model than what people will ask."""
HELD_OUT: QuestionSet = "held_out"
"""Written by who had not seen the templates; its failures are not read while templates are written."""

_SLOT = re.compile(r"<\w+>")
_GAP = "slotslot"


@cache
def load_held_out(language: Language, name: QuestionSet = HELD_OUT) -> dict[str, dict[str, tuple[str, ...]]]:
    """Load a set by section (chat, self, topics, unknown, skills, show, tells, systems) and by name."""
    return {
        section: {name: tuple(questions) for name, questions in rows.items()}
        for section, rows in read_texts(f"{name}_{language}").items()
    }


def is_held_out(question: str) -> bool:
    """Say whether a question is one of either set, whatever its case, accents and marks, and what fills its slots."""
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
        for name in get_args(QuestionSet)
        for language in LANGUAGES
        for rows in load_held_out(language, name).values()
        for questions in rows.values()
        for question in questions
    ]
