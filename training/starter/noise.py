"""How people really type: lower case, no accents, typos, words around the question."""

from __future__ import annotations

import re
from functools import cache
from random import Random

from training.starter.phrases import Language, choose, read_texts, strip_accents

_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_SLOT = re.compile(r"<\w+>")
_HIDDEN = "\ue001"
_EMOJI = ("🙂", "😀", "👋", "🙏", "🤖", "👍", "❤️", "😂")


@cache
def _manners(language: Language) -> dict[str, tuple[str, ...]]:
    return {key: tuple(words) for key, words in read_texts("manners")[language].items()}


def system_prompts(language: Language) -> tuple[str, ...]:
    """List the system prompts that training conversations may begin with."""
    return _manners(language)["systems"]


def language_prompts(language: Language) -> tuple[str, ...]:
    """List the system prompts that ask for answers in a language."""
    return _manners(language)["languages"]


def surround(text: str, language: Language, rng: Random) -> str:
    """Put a few polite or idle words before, after or into a question, or leave out one, sometimes."""
    if rng.random() < 0.25:
        text = reword(text, language, rng)
    if rng.random() < 0.32:
        text = choose(rng.choice(_manners(language)["before"]), rng, keep_ends=True) + text
    if rng.random() < 0.13:
        text += choose(rng.choice(_manners(language)["after"]), rng, keep_ends=True)
    return text


def announce(text: str, language: Language, rng: Random) -> str:
    """Put a few words before something that is told, sometimes."""
    if rng.random() < 0.35:
        text = choose(rng.choice(_manners(language)["telling"]), rng, keep_ends=True) + text
    return text


def reword(text: str, language: Language, rng: Random) -> str:
    """Put a word that says little into a question, or leave one out: what is asked is told by the others."""
    words = text.split(" ")
    droppable = [place for place, word in enumerate(words) if word in _manners(language)["droppable"]]
    if droppable and len(words) > 3 and rng.random() < 0.4:
        del words[rng.choice(droppable)]
    else:
        words.insert(rng.randrange(len(words) + 1), rng.choice(_manners(language)["within"]))
    return " ".join(words)


def misspell(text: str, rng: Random) -> str:
    """Make one slip of the keyboard inside a word."""
    places = [i for i in range(1, len(text) - 1) if text[i - 1 : i + 2].isalpha()]
    if not places:
        return text
    i = rng.choice(places)
    match rng.randrange(4):
        case 0:
            return text[:i] + text[i + 1] + text[i] + text[i + 2 :]
        case 1:
            return text[:i] + text[i + 1 :]
        case 2:
            return text[:i] + text[i] + text[i:]
        case _:
            return text[:i] + rng.choice(_LETTERS) + text[i + 1 :]


def roughen(text: str, language: Language, rng: Random) -> str:
    """Type a question the way some person would; what stands in <slots> is left alone."""
    slots = _SLOT.findall(text)
    text = _typed(_SLOT.sub(_HIDDEN, text), language, rng)
    for slot in slots:
        text = text.replace(_HIDDEN, slot, 1)
    return text


def _typed(text: str, language: Language, rng: Random) -> str:
    mark = rng.choice(("", "", "", "?", "?", "?", "??", ".", "!", "..."))
    if mark.startswith("?") and language == "es" and rng.random() < 0.6:
        text = "¿" + text
    text += mark
    case = rng.random()
    if case < 0.45:
        text = text.lower()
    elif case < 0.85:
        first = 1 if text.startswith("¿") else 0
        text = text[:first] + text[first : first + 1].upper() + text[first + 1 :]
    elif case < 0.88:
        text = text.upper()
    if language == "es" and rng.random() < 0.35:
        text = strip_accents(text)
    if rng.random() < 0.15:
        for _ in range(rng.randint(1, max(1, len(text) // 20))):
            text = misspell(text, rng)
    if rng.random() < 0.03:
        text += " " + rng.choice(_EMOJI)
    return text
