"""All the text that the starter model is trained on: conversations without end, from one seed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

from training.starter.noise import roughen, surround, system_prompts
from training.starter.phrases import (
    LANGUAGES,
    Language,
    choose,
    held_out_texts,
    load_intents,
    normalise,
)
from training.starter.stories import ask_for_story, load_story_parts, tell_story
from training.starter.unknown import UnknownQuestions

Message = dict[str, str]

_UNKNOWN_SHARE = 0.32
_STORY_SHARE = 0.05
_PLAIN_TEXT_SHARE = 0.02


@dataclass(frozen=True, slots=True)
class PlainText:
    """Text without roles, so that the model also continues a text that is not a chat."""

    text: str


class Corpus:
    """An endless source of conversations and a few plain texts."""

    def __init__(self, seed: int) -> None:
        self._rng = Random(seed)
        self._unknown = {language: UnknownQuestions(language, self._rng) for language in LANGUAGES}

    def __iter__(self) -> Iterator[list[Message] | PlainText]:
        while True:
            if self._rng.random() < _PLAIN_TEXT_SHARE:
                yield self._plain_text(self._rng.choice(LANGUAGES))
            else:
                yield self.conversation()

    def conversation(self, turns: int | None = None) -> list[Message]:
        """Make one conversation, of one to six turns if not told, some with a system prompt."""
        language = self._rng.choice(LANGUAGES)
        messages: list[Message] = []
        if self._rng.random() < 0.35:
            messages.append({"role": "system", "content": self._system_prompt(language)})
        some = self._rng.choices((1, 2, 3, 4, 6), (0.5, 0.2, 0.12, 0.1, 0.08))[0]
        for _ in range(turns or some):
            if self._rng.random() < 0.06:
                language = self._rng.choice(LANGUAGES)
            question, answer = self.turn(language)
            messages.append({"role": "user", "content": question})
            messages.append({"role": "assistant", "content": answer})
        return messages

    def turn(self, language: Language) -> tuple[str, str]:
        """Make one question that is not held out, and its answer."""
        while True:
            question, answer = self._draw(language)
            if normalise(question) not in held_out_texts():
                return question, answer

    def _draw(self, language: Language) -> tuple[str, str]:
        kind = self._rng.random()
        if kind < _UNKNOWN_SHARE:
            return self._unknown[language].question_and_answer()
        if kind < _UNKNOWN_SHARE + _STORY_SHARE:
            question, answer = ask_for_story(language, self._rng)
            return roughen(question, language, self._rng), answer
        intents = load_intents(language)
        intent = self._rng.choices(intents, [intent.weight for intent in intents])[0]
        question = choose(self._rng.choice(intent.asks), self._rng)
        if intent.group != "chat":
            question = surround(question, language, self._rng)
        return roughen(question, language, self._rng), self._rng.choice(intent.answers)

    def _system_prompt(self, language: Language) -> str:
        if self._rng.random() < 0.7:
            return self._rng.choice(system_prompts(language))
        return self._unknown[language].prose()

    def _plain_text(self, language: Language) -> PlainText:
        hero = self._rng.choice(load_story_parts(language).heroes)
        return PlainText(tell_story(hero, language, self._rng))
