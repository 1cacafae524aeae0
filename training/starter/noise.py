"""How people really type: lower case, no accents, typos, words around the question."""

from __future__ import annotations

import re
from functools import cache
from random import Random

from training.starter.phrases import LANGUAGES, Language, choose, load_wordings, read_texts, strip_accents

_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_SLOT = re.compile(r"<\w+>")
_HIDDEN = "\ue001"
_NAMES: dict[Language, str] = {"en": "english", "es": "spanish"}
_EMOJI = ("🙂", "😀", "👋", "🙏", "🤖", "👍", "❤️", "😂")


@cache
def _manners(language: Language) -> dict[str, tuple[str, ...]]:
    return {key: tuple(words) for key, words in read_texts("manners")[language].items()}


@cache
def _synonyms(language: Language) -> tuple[re.Pattern[str], dict[str, tuple[str, ...]]]:
    """Build what finds every word of a group, the longest first, and the other words of its group."""
    groups = [tuple(words) for words in read_texts("synonyms")[language]["groups"]]
    others: dict[str, tuple[str, ...]] = {}
    for words in groups:
        for word in words:
            others[word] = (*others.get(word, ()), *(each for each in words if each != word))
    found = "|".join(map(re.escape, sorted(others, key=len, reverse=True)))
    return re.compile(rf"(?<![\w<'-])(?:{found})(?![\w>'-])"), others


def system_prompts(language: Language) -> tuple[str, ...]:
    """List the system prompts that training conversations may begin with."""
    return _manners(language)["systems"]


def language_prompts(language: Language) -> tuple[str, ...]:
    """List the system prompts, of either language, that ask for answers in a language."""
    name = _NAMES[language]
    more = (text for written in LANGUAGES for text in load_wordings(written)["systems"].get(name, ()))
    return (*_manners(language)["languages"], *more)


def surround(text: str, language: Language, rng: Random) -> str:
    """Put a few polite or idle words before, after or into a question, or leave out one, sometimes."""
    text = rephrase(text, language, rng)
    if rng.random() < 0.25:
        text = reword(text, language, rng)
    if rng.random() < 0.32:
        text = choose(rng.choice(_manners(language)["before"]), rng, keep_ends=True) + text
    if rng.random() < 0.13:
        text += choose(rng.choice(_manners(language)["after"]), rng, keep_ends=True)
    return text


def announce(text: str, language: Language, rng: Random) -> str:
    """Put a few words before something that is told, sometimes."""
    text = rephrase(text, language, rng)
    if rng.random() < 0.35:
        text = choose(rng.choice(_manners(language)["telling"]), rng, keep_ends=True) + text
    return text


def rephrase(text: str, language: Language, rng: Random) -> str:
    """Put words that mean the same in the place of some, in half of the questions."""
    if rng.random() < 0.5:
        return text
    pattern, others = _synonyms(language)
    return pattern.sub(lambda found: rng.choice(others[found[0]]) if rng.random() < 0.5 else found[0], text)


def reword(text: str, language: Language, rng: Random) -> str:
    """Put a word that says little into a question, or leave one out: what is asked is told by the others."""
    words = text.split(" ")
    droppable = [place for place, word in enumerate(words) if word in _manners(language)["droppable"]]
    if droppable and len(words) > 3 and rng.random() < 0.4:
        del words[rng.choice(droppable)]
    else:
        words.insert(rng.randrange(len(words) + 1), rng.choice(_manners(language)["within"]))
    return " ".join(words)


def loosen(text: str, rng: Random) -> str:
    """Leave out words, or let neighbours change places, in few questions: what is asked hangs on some of the words.

    Source: Wei and Zou, "EDA: Easy Data Augmentation Techniques", 2019 (random deletion and swap).
    """
    chance = rng.random()
    words = text.split(" ")
    if chance < 0.1 and len(words) > 3:
        words = [word for word in words if rng.random() < 0.75]
    elif chance < 0.16 and len(words) > 2:
        place = rng.randrange(len(words) - 1)
        words[place : place + 2] = reversed(words[place : place + 2])
    return " ".join(words) or text


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
