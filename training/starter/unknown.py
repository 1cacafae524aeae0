"""Questions about everything else, so that the model learns to say that it does not know."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from random import Random

from training.starter.noise import loosen, roughen, surround
from training.starter.phrases import Language, choose, load_wordings, read_texts

_SLOT = re.compile(r"<(\w+)>")
_CONSONANTS = (
    "b",
    "c",
    "d",
    "f",
    "g",
    "l",
    "m",
    "n",
    "p",
    "r",
    "s",
    "t",
    "v",
    "z",
    "br",
    "tr",
    "ch",
)
_ENDINGS = ("", "", "n", "s", "r", "l", "ck", "m")
_KEYS = "asdfghjklqwertyuiopzxcvbnm;1234"
_INVENTABLE = frozenset({"noun", "plural", "person", "place", "adjective", "verb"})
PLAIN_WORDS = {"noun": 4, "plural": 3, "verb": 4, "adjective": 3, "person": 1, "place": 1, "glue": 8}
"""The lists that a sentence about nothing is drawn from, by how often."""
_VERBATIM = ("<prose>", "<code>", "<foreign>", "<mash>")


@dataclass(frozen=True, slots=True)
class Unknown:
    """The templates and the word lists of one language."""

    asks: dict[str, tuple[str, ...]]
    answers: dict[str, tuple[str, ...]]
    words: dict[str, tuple[str, ...]]


@cache
def load_unknown(language: Language) -> Unknown:
    """Load what the model must not try to answer in one language."""
    data = read_texts(f"unknown_{language}")
    more = load_wordings(language)["unknown"]
    return Unknown(
        asks={
            "any": (*data["asks"], *more.get("any", ())),
            "live": (*data["live"], *more.get("live", ())),
            "maths": (*data["maths"], *more.get("maths", ())),
        },
        answers={
            "any": tuple(data["answers"]),
            "live": tuple(data["live_answers"]),
            "maths": tuple(data["maths_answers"]),
        },
        words={kind: tuple(words) for kind, words in data["words"].items()},
    )


def invent_word(rng: Random) -> str:
    """Invent a word that stands for all those that the lists do not have."""
    syllables = [rng.choice(_CONSONANTS) + rng.choice("aeiou") for _ in range(rng.randint(1, 3))]
    return "".join(syllables) + rng.choice(_ENDINGS)


class UnknownQuestions:
    """A source of out-of-domain questions in one language."""

    def __init__(self, language: Language, rng: Random) -> None:
        self._language: Language = language
        self._rng = rng
        self._data = load_unknown(language)

    def question_and_answer(self, answered: Language | None = None) -> tuple[str, str]:
        """Ask something that the model cannot know, with the answer it should give, in another language if told."""
        kind = self._rng.choices(("any", "live", "maths"), (0.8, 0.1, 0.1))[0]
        template = self._rng.choice(self._data.asks[kind])
        question = self._fill(choose(template, self._rng))
        if not any(slot in template for slot in _VERBATIM):
            question = surround(loosen(question, self._rng), self._language, self._rng)
            question = roughen(question, self._language, self._rng)
        return question, self._rng.choice(load_unknown(answered or self._language).answers[kind])

    def prose(self, sentences: int | None = None) -> str:
        """Write a few plain sentences about nothing in particular."""
        written = []
        for _ in range(sentences or self._rng.choices((1, 2, 3, 5, 12), (50, 30, 15, 4, 1))[0]):
            words = self._some_words(self._rng.randint(5, 14))
            mark = self._rng.choice((".", ".", ".", "!", "?"))
            written.append(words[:1].upper() + words[1:] + mark)
        return " ".join(written)

    def _some_words(self, count: int) -> str:
        kinds, weights = list(PLAIN_WORDS), list(PLAIN_WORDS.values())
        return " ".join(self._word(kind) for kind in self._rng.choices(kinds, weights, k=count))

    def _word(self, kind: str) -> str:
        if kind in _INVENTABLE and self._rng.random() < 0.25:
            return invent_word(self._rng)
        return self._rng.choice(self._data.words[kind])

    def _fill(self, text: str) -> str:
        return _SLOT.sub(lambda match: self._slot(match.group(1)), text)

    def _slot(self, kind: str) -> str:
        match kind:
            case "number":
                return str(self._rng.randint(0, self._rng.choice((20, 9999))))
            case "big":
                return str(self._rng.randint(100, self._rng.choice((999, 99_999))))
            case "prose":
                return self.prose()
            case "salad":
                return self._some_words(self._rng.randint(2, 7))
            case "mash":
                words = self._rng.randint(1, 3)
                return " ".join(self._mash() for _ in range(words))
            case _:
                return self._word(kind)

    def _mash(self) -> str:
        return "".join(self._rng.choices(_KEYS, k=self._rng.randint(3, 9)))
