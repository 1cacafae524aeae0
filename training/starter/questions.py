"""The held-out questions with the answers that pass, by the rows of the table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import chain
from random import Random

from core.guide import answers
from training.starter import skills
from training.starter.held_out import HELD_OUT, QuestionSet, load_held_out
from training.starter.phrases import LANGUAGES, Language, load_intents, normalise
from training.starter.unknown import PLAIN_WORDS, load_unknown

Message = dict[str, str]
Wordings = Mapping[str, Mapping[str, Sequence[str]]]

# The rows of the table, with the share of held-out questions that each is meant to answer.
GOALS = {
    "small talk": 0.97,
    "itself": 0.99,
    "simpleIA": 0.95,
    "unknown": 0.95,
    "capitals": 0.95,
    "numbers": 0.95,
    "letters and lists": 0.90,
    "earlier turns": 0.90,
    "persona and language": 0.90,
}
_NUMBERS = ("add", "subtract", "greater", "smaller", "is_greater")
_LETTERS = (
    "upper",
    "lower",
    "repeat",
    "repeat_times",
    "count",
    "days",
    "months",
    "next_day",
    "previous_day",
    "next_month",
    "previous_month",
    "members",
    "markdown_list",
    "json_list",
    "numbered_list",
)
_ROUNDS = dict.fromkeys(("add", "subtract"), 20) | dict.fromkeys(("upper", "lower", "repeat"), 8)
_FEW_ROUNDS = 5
_FEW_QUESTIONS = 3


@dataclass(frozen=True, slots=True)
class Question:
    """One conversation that waits for its last answer, and every text that passes as that answer."""

    row: str
    language: Language
    messages: tuple[Message, ...]
    passing: frozenset[str]


def questions(seed: int = 0, name: QuestionSet = HELD_OUT) -> tuple[Question, ...]:
    """List every question of the table; the seed chooses what fills the slots."""
    made: list[Question] = []
    for language in LANGUAGES:
        rng = Random(f"{seed} {language}")
        wordings = load_held_out(language, name)
        made += _fixed(wordings, language)
        made += _capitals(wordings, language, rng)
        for row, skill_names in (("numbers", _NUMBERS), ("letters and lists", _LETTERS)):
            for skill in skill_names:
                made += _skill(wordings, row, skill, language, rng)
        made += _facts(wordings, language, rng)
        made += _personas(wordings, language, rng)
    return tuple(made)


def refusals(language: Language) -> frozenset[str]:
    """Collect what the model says when it does not know."""
    return frozenset(answer for some in load_unknown(language).answers.values() for answer in some)


def refusals_to(text: str, language: Language) -> frozenset[str]:
    """Return what passes as a refusal: a text without a plain word, such as "12 * 345" or "asdf", tells no language."""
    if _words(text) & _plain_words(language):
        return refusals(language)
    return frozenset().union(*map(refusals, LANGUAGES))


@cache
def _plain_words(language: Language) -> frozenset[str]:
    """Collect words of a language from where no keys are struck at random; a word of few questions may be quoted."""
    unknown = load_unknown(language)
    lists = (words for kind, words in unknown.words.items() if kind in PLAIN_WORDS)
    asks = (intent.asks for intent in load_intents(language) if intent.group == "self")
    times = Counter(word for text in (*chain(*asks), *unknown.asks["live"]) for word in _words(text))
    often = frozenset(word for word, number in times.items() if number >= _FEW_QUESTIONS)
    return often.union(*(_words(" ".join(words)) for words in lists))


def _words(text: str) -> frozenset[str]:
    return frozenset(word for word in normalise(text).split() if len(word) > 1 and word.isalpha())


def _asked(row: str, language: Language, text: str, passing: frozenset[str] | str) -> Question:
    texts = frozenset((passing,)) if isinstance(passing, str) else passing
    return Question(row, language, ({"role": "user", "content": text},), texts)


def _fixed(held_out: Wordings, language: Language) -> Iterator[Question]:
    intents = {intent.name: frozenset(intent.answers) for intent in load_intents(language)}
    for row, section in (("small talk", "chat"), ("itself", "self")):
        for name, texts in held_out[section].items():
            yield from (_asked(row, language, text, intents[name]) for text in texts)
    for name, texts in held_out["topics"].items():
        yield from (_asked("simpleIA", language, text, answers(language)[name]) for text in texts)
    for texts in held_out["unknown"].values():
        yield from (_asked("unknown", language, text, refusals_to(text, language)) for text in texts)


def _capitals(held_out: Wordings, language: Language, rng: Random) -> Iterator[Question]:
    """Ask for every capital and for every country, each in one of the wordings."""
    place = LANGUAGES.index(language)
    rows = skills.countries()
    for name in ("capital", "country"):
        wordings = held_out["skills"][name]
        template = skills.load_skills(language)[name].answer
        for number, row in enumerate(rows):
            values = {"country": row[place], "capital": row[2 + place]}
            same = [other for other in rows if other[2 + place] == row[2 + place]] if name == "country" else [row]
            passing = {skills.fill(template, {"country": each[place], "capital": each[2 + place]}) for each in same}
            wording = wordings[number % len(wordings)]
            yield _asked("capitals", language, skills.fill(wording, values), frozenset(passing))


def _skill(held_out: Wordings, row: str, name: str, language: Language, rng: Random) -> Iterator[Question]:
    template = skills.load_skills(language)[name].answer
    for wording in held_out["skills"][name]:
        for _ in range(_ROUNDS.get(name, _FEW_ROUNDS)):
            values, results = skills.draw(name, language, language, rng)
            passing = {skills.fill(template, results).replace(skills.SPELLED, "")}
            if name == "add":  # Either order is right.
                passing.add(skills.fill(template, results | {"a": results["b"], "b": results["a"]}))
            yield _asked(row, language, skills.fill(wording, values), frozenset(passing))
            if "<" not in wording:
                break


def _facts(held_out: Wordings, language: Language, rng: Random) -> Iterator[Question]:
    """Tell a fact, now and then talk of something else, and ask for it."""
    greeting = next(intent for intent in load_intents(language) if intent.name == "thanks")
    for name in skills.FACTS:
        skill = skills.load_skills(language)[name]
        for tell in held_out["tells"][name]:
            for number, wording in enumerate([*held_out["skills"][name]] * 2):
                values, results = skills.draw(name, language, language, rng)
                talk = [skills.fill(tell, values), skills.fill(skill.told, results)]
                if number % 2:
                    talk += [held_out["chat"]["thanks"][0], greeting.answers[0]]
                talk.append(skills.fill(wording, values))
                passing = frozenset((skills.fill(skill.answer, results),))
                yield Question("earlier turns", language, _talk(talk), passing)


def _personas(held_out: Wordings, language: Language, rng: Random) -> Iterator[Question]:
    """Give a name in the system prompt and ask for it; ask for answers in a language, in either language."""
    for system in held_out["systems"]["persona"]:
        for wording in held_out["skills"]["persona"]:
            values, results = skills.draw("persona", language, language, rng)
            passing = frozenset((skills.fill(skills.load_skills(language)["persona"].answer, results),))
            given = {"role": "system", "content": skills.fill(system, values)}
            yield Question("persona and language", language, (given, *_talk([wording])), passing)
    for answered, kind in zip(LANGUAGES, ("english", "spanish"), strict=True):
        for system in held_out["systems"][kind]:
            for name in rng.sample(sorted(held_out["topics"]), k=6):
                talk = _talk([held_out["topics"][name][0]])
                passing = frozenset((answers(answered)[name],))
                given = {"role": "system", "content": system}
                yield Question("persona and language", answered, (given, *talk), passing)


def _talk(texts: list[str]) -> tuple[Message, ...]:
    return tuple({"role": "assistant" if number % 2 else "user", "content": text} for number, text in enumerate(texts))
