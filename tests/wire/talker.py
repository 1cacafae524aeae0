"""The model behind every scripted server: it writes words by chance, the same ones for the same question and seed."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from typing import Literal

MODEL = "talker"
CONTEXT = 2048
OWN_END = 400
TOKENS_PER_MESSAGE = 3
TOKEN = re.compile(r"\s?\w{1,5}|\s?[^\w\s]|\s")
WORDS = (
    "agua", "niño", "river", "señal", "light", "über", "日本", "stone", "café", "answer", "¿qué", "👋", "mañana",
    "green", "window", "œuvre", "seven", "paper", "año", "letter", "north", "música", "salt", "garden", "—", "once",
)  # fmt: skip


class PromptTooLong(Exception):
    """A prompt of more tokens than the context has."""

    def __init__(self, tokens: int) -> None:
        super().__init__(tokens)
        self.tokens = tokens


@dataclass(frozen=True)
class Asked:
    """What a protocol read from a request: the texts of the messages, and the parameters that the talker knows."""

    texts: tuple[str, ...]
    max_tokens: int | None = None
    temperature: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()


@dataclass(frozen=True)
class Answer:
    """An answer in pieces of a token or less."""

    pieces: tuple[str, ...]
    reason: Literal["stop", "length"]
    prompt_tokens: int
    completion_tokens: int


def count(texts: tuple[str, ...]) -> int:
    """Count the tokens of a prompt."""
    return sum(len(TOKEN.findall(text)) + TOKENS_PER_MESSAGE for text in texts)


def embedding(text: str) -> list[float]:
    """Return a vector that depends on the text."""
    chance = random.Random(text)
    return [round(chance.uniform(-1, 1), 6) for _ in range(8)]


def answer(asked: Asked) -> Answer:
    """Answer with words, of which each is a token. Raises PromptTooLong."""
    read = count(asked.texts)
    if read > CONTEXT:
        raise PromptTooLong(read)
    longest = min(asked.max_tokens or CONTEXT, CONTEXT - read)
    chance = _chance(asked)
    words = [chance.choice(WORDS) for _ in range(min(longest, OWN_END))]
    tokens = [word if place == 0 else f" {word}" for place, word in enumerate(words)]
    text = "".join(tokens)
    ends = [place for stop in asked.stop if (place := text.find(stop)) >= 0]
    if ends:
        return _until(tokens, min(ends), asked, read)
    return Answer(tuple(tokens), "length" if longest <= OWN_END else "stop", read, len(tokens))


def _chance(asked: Asked) -> random.Random:
    if asked.temperature == 0:
        return random.Random(repr(asked.texts))
    if asked.seed is not None:
        return random.Random(repr((asked.texts, asked.seed, asked.temperature)))
    return random.Random()


def _until(tokens: list[str], end: int, asked: Asked, read: int) -> Answer:
    """Return the answer up to a stop sequence; the tokens of the sequence itself were written too."""
    text, pieces, place = "".join(tokens), [], 0
    longest = max(len(stop) for stop in asked.stop if text.startswith(stop, end))
    written = 0
    for token in tokens:
        if place >= end + longest:
            break
        if kept := token[: max(0, end - place)]:
            pieces.append(kept)
        place += len(token)
        written += 1
    return Answer(tuple(pieces), "stop", read, written)
