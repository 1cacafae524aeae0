"""Plain lines of facts, sums and spellings: what an answer needs from memory, learnt without the words around it."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from training.starter import skills
from training.starter.phrases import Language

_KINDS = {
    "capital": 5,
    "country": 5,
    "add": 5,
    "subtract": 4,
    "upper": 2,
    "lower": 2,
    "next_day": 0.2,
    "next_month": 0.4,
}
_LINES = {"capital": 7, "country": 7, "add": 11, "subtract": 11, "upper": 5, "lower": 5, "next_day": 8, "next_month": 8}
# Where an answer turns from what the question said to what is known or worked out.
_TURNS = {"add": " =", "subtract": " =", "upper": ":", "lower": ":"}
_TURNS_BY_LANGUAGE = {
    "en": {"capital": " is", "country": " the capital of", "next_day": " comes", "next_month": " comes"},
    "es": {"capital": " es", "country": " es la capital de", "next_day": " viene", "next_month": " viene"},
}


@dataclass(frozen=True, slots=True)
class Cards:
    """Lines of a beginning, which is given, and an end, which is learnt."""

    lines: tuple[tuple[str, str], ...]


def make_cards(language: Language, rng: Random) -> Cards:
    """Write some lines of one kind."""
    kind = rng.choices(tuple(_KINDS), tuple(_KINDS.values()))[0]
    return Cards(tuple(_line(kind, language, rng) for _ in range(_LINES[kind])))


def _line(kind: str, language: Language, rng: Random) -> tuple[str, str]:
    values, results = skills.draw(kind, language, language, rng)
    answer = skills.fill(skills.load_skills(language)[kind].answer, results)
    if kind in ("upper", "lower"):
        answer = f"{values['text']}: {answer}"
    turn = _TURNS.get(kind) or _TURNS_BY_LANGUAGE[language][kind]
    start, found, end = answer.rpartition(turn) if kind == "country" else answer.partition(turn)
    return start + found, end + "\n"
