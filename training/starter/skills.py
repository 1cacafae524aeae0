"""What the model can work out: capitals, small sums, letter case, lists, and facts from earlier turns."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from random import Random

from training.starter.phrases import TEXTS, Language, load_wordings, read_texts, strip_accents
from training.starter.unknown import invent_word, load_unknown

SPELLED = "\ue000"
"""Around text of an answer that is learnt letter by letter, because the words' own tokens say nothing of case."""

Values = dict[str, str]


@dataclass(frozen=True, slots=True)
class Skill:
    """How people ask for one skill in one language, and the answer; facts are told first, personas are given."""

    name: str
    weight: float
    asks: tuple[str, ...]
    answer: str
    tells: tuple[str, ...] = ()
    told: str = ""
    systems: tuple[str, ...] = ()


@cache
def load_skills(language: Language) -> dict[str, Skill]:
    """Load every skill of one language by name."""
    more = load_wordings(language)
    return {
        name: Skill(
            name=name,
            weight=float(rows["weight"]),
            asks=(*rows["asks"], *more["skills"].get(name, ())),
            answer=rows["answer"],
            tells=(*rows.get("tells", ()), *more["tells"].get(name, ())),
            told=rows.get("told", ""),
            systems=(*rows.get("systems", ()), *more["systems"].get(name, ())),
        )
        for name, rows in read_texts(f"skills_{language}").items()
    }


@cache
def _words(language: Language) -> dict[str, list[str]]:
    return {key: list(words) for key, words in read_texts("words")[language].items() if isinstance(words, list)}


@cache
def _categories(language: Language) -> list[list[str]]:
    return [list(row) for row in read_texts("words")[language]["categories"].values()]


@cache
def countries() -> tuple[tuple[str, str, str, str], ...]:
    """List every country and its capital: English country, Spanish country, English capital, Spanish capital."""
    lines = (TEXTS / "countries.txt").read_text(encoding="utf-8").splitlines()
    return tuple((row[0], row[1], row[2], row[3]) for row in (line.split("|") for line in lines))


def fill(template: str, values: Values) -> str:
    """Put values into the slots of a text."""
    for slot, value in values.items():
        template = template.replace(f"<{slot}>", value)
    return template


def draw(skill: str, asked: Language, answered: Language, rng: Random) -> tuple[Values, Values]:
    """Draw what a question of a skill is about: the values of the question, and those of its answer."""
    return _DRAWS[skill](asked, answered, rng)


def _country(asked: Language, answered: Language, rng: Random) -> tuple[Values, Values]:
    row = rng.choice(countries())
    offset, other = (0 if language == "en" else 1 for language in (asked, answered))
    question = {"country": row[offset], "capital": row[2 + offset]}
    if rng.random() < 0.35:
        question = {slot: value.lower() for slot, value in question.items()}
    if rng.random() < 0.25:
        question = {slot: strip_accents(value) for slot, value in question.items()}
    capital = row[2 + other]
    return question, {"country": row[other], "capital": capital, "capital_start": capital}


def _number(rng: Random) -> int:
    return rng.randint(0, 9) if rng.random() < 0.25 else rng.randint(10, 99)


def _pair(a: int, b: int, language: Language, rng: Random) -> Values:
    """Write two numbers as people type them, small ones sometimes as words."""
    words = _words(language)["numbers"]
    if rng.random() < 0.08 and max(a, b) < len(words):
        return {"a": words[a], "b": words[b]}
    return {"a": str(a), "b": str(b)}


def _add(asked: Language, answered: Language, rng: Random) -> tuple[Values, Values]:
    a, b = _number(rng), _number(rng)
    return _pair(a, b, asked, rng), {"a": str(a), "b": str(b), "c": str(a + b)}


def _subtract(asked: Language, answered: Language, rng: Random) -> tuple[Values, Values]:
    a, b = _number(rng), _number(rng)
    if a < b and rng.random() < 0.7:
        a, b = b, a
    return _pair(a, b, asked, rng), {"a": str(a), "b": str(b), "c": str(a - b)}


def _compare(asked: Language, answered: Language, rng: Random) -> tuple[Values, Values]:
    a, b = _number(rng), _number(rng)
    while a == b:
        b = _number(rng)
    words = _words(answered)
    yes, no = words["yes_no"]
    greater, less = words["greater_less"]
    answer = {
        "a": str(a),
        "b": str(b),
        "big": str(max(a, b)),
        "small": str(min(a, b)),
        "yes": yes if a > b else no,
        "relation": greater if a > b else less,
    }
    return _pair(a, b, asked, rng), answer


def _word(language: Language, rng: Random) -> str:
    if rng.random() < 0.3:
        return invent_word(rng)
    data = load_unknown(language).words
    word = rng.choice(data[rng.choice(("noun", "noun", "plural", "adjective", "verb"))])
    return word.lower()


def _text(language: Language, rng: Random) -> str:
    return " ".join(_word(language, rng) for _ in range(rng.choices((1, 2, 3, 4), (60, 25, 10, 5))[0]))


def _upper(asked: Language, answered: Language, rng: Random) -> tuple[Values, Values]:
    text = _text(asked, rng)
    if rng.random() < 0.15:
        text = text.capitalize()
    return {"text": text}, {"letters": SPELLED + text.upper() + SPELLED}


def _lower(asked: Language, answered: Language, rng: Random) -> tuple[Values, Values]:
    text = _text(asked, rng)
    typed = text.upper() if rng.random() < 0.8 else text.title()
    return {"text": typed}, {"letters": SPELLED + text + SPELLED}


def _repeat(asked: Language, answered: Language, rng: Random) -> tuple[Values, Values]:
    text = _text(asked, rng)
    if rng.random() < 0.2:
        text = text.capitalize()
    return {"text": text}, {"text": text}


def _times(number: int, language: Language, rng: Random) -> str:
    return _words(language)["numbers"][number] if rng.random() < 0.35 else str(number)


def _repeat_times(asked: Language, answered: Language, rng: Random) -> tuple[Values, Values]:
    text, number = _word(asked, rng), rng.randint(2, 6)
    return {"text": text, "n": _times(number, asked, rng)}, {"copies": " ".join([text] * number)}


def _count(asked: Language, answered: Language, rng: Random) -> tuple[Values, Values]:
    number = rng.randint(2, 20)
    numbers = ", ".join(str(each) for each in range(1, number + 1))
    return {"n": _times(number, asked, rng)}, {"numbers": numbers}


def _nothing(asked: Language, answered: Language, rng: Random) -> tuple[Values, Values]:
    return {}, {}


def _cycle(slot: str, key: str) -> Callable[[Language, Language, Random], tuple[Values, Values]]:
    def values(asked: Language, answered: Language, rng: Random) -> tuple[Values, Values]:
        place = rng.randrange(len(_words(asked)[key]))
        names = _words(answered)[key]
        answer = {slot: names[place], "after": names[(place + 1) % len(names)], "before": names[place - 1]}
        return {slot: _words(asked)[key][place]}, answer

    return values


def _members(asked: Language, answered: Language, rng: Random) -> tuple[Values, Values]:
    place = rng.randrange(len(_categories(asked)))
    category, *_ = _categories(asked)[place]
    _, *members = _categories(answered)[place]
    number = rng.randint(2, 5)
    question = {"category": category, "n": _times(number, asked, rng)}
    return question, {"members": number_of(members, number), "some": number_of(members, 3)}


def number_of(members: list[str], number: int) -> str:
    """Write the first members of a list as Markdown."""
    return "\n".join(f"- {member}" for member in members[:number])


def _items(asked: Language, answered: Language, rng: Random) -> tuple[Values, Values]:
    items = [_word(asked, rng) for _ in range(rng.randint(2, 5))]
    joined = ", ".join(items)
    if rng.random() < 0.3:
        joined = ", ".join(items[:-1]) + (" and " if asked == "en" else " y ") + items[-1]
    answer = {
        "bullets": "\n".join(f"- {item}" for item in items),
        "numbered": "\n".join(f"{number}. {item}" for number, item in enumerate(items, 1)),
        "json": json.dumps(items, ensure_ascii=False),
    }
    return {"items": joined}, answer


def _named(asked: Language, answered: Language, rng: Random) -> tuple[Values, Values]:
    name = invent_word(rng).capitalize() if rng.random() < 0.45 else rng.choice(_words(asked)["names"])
    if rng.random() < 0.1:
        name = name.lower()
    return {"name": name}, {"name": name}


def _colour(asked: Language, answered: Language, rng: Random) -> tuple[Values, Values]:
    place = rng.randrange(len(_words(asked)["colours"]))
    colour = _words(answered)["colours"][place]
    return {"colour": _words(asked)["colours"][place]}, {"colour": colour, "colour_start": colour.capitalize()}


def _kept_number(asked: Language, answered: Language, rng: Random) -> tuple[Values, Values]:
    number = str(rng.randint(1, rng.choice((9, 99, 999, 9999))))
    return {"number": number}, {"number": number}


def _city(asked: Language, answered: Language, rng: Random) -> tuple[Values, Values]:
    capital = rng.choice(countries())[2 if asked == "en" else 3]
    city = invent_word(rng).capitalize() if rng.random() < 0.3 else capital
    return {"city": city}, {"city": city}


_DRAWS: dict[str, Callable[[Language, Language, Random], tuple[Values, Values]]] = {
    "capital": _country,
    "country": _country,
    "add": _add,
    "subtract": _subtract,
    "greater": _compare,
    "smaller": _compare,
    "is_greater": _compare,
    "upper": _upper,
    "lower": _lower,
    "repeat": _repeat,
    "repeat_times": _repeat_times,
    "count": _count,
    "days": _nothing,
    "months": _nothing,
    "next_day": _cycle("day", "days"),
    "previous_day": _cycle("day", "days"),
    "next_month": _cycle("month", "months"),
    "previous_month": _cycle("month", "months"),
    "members": _members,
    "markdown_list": _items,
    "json_list": _items,
    "numbered_list": _items,
    "name": _named,
    "colour": _colour,
    "number": _kept_number,
    "city": _city,
    "pet": _named,
    "persona": _named,
}
VERBATIM = frozenset(("upper", "lower", "repeat", "repeat_times", "markdown_list", "json_list", "numbered_list"))
FACTS = ("name", "colour", "number", "city", "pet")
