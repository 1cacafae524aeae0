"""Questions about simpleIA: how people ask for each text of the guide."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from random import Random

from core.guide import answers
from training.starter.phrases import Language, choose, load_wordings, read_texts

_FRAMED_SHARE = 0.25


@dataclass(frozen=True, slots=True)
class Topic:
    """One text of the guide and the ways to ask for it: words to be explained, things to do, whole questions."""

    name: str
    answer: str
    terms: tuple[str, ...]
    acts: tuple[str, ...]
    asks: tuple[str, ...]


@cache
def load_topics(language: Language) -> tuple[Topic, ...]:
    """Load every topic of the guide in one language."""
    texts = answers(language)
    ways = read_texts(f"topics_{language}")
    return tuple(
        Topic(
            name=name,
            answer=texts[name],
            terms=tuple(rows.get("terms", ())),
            acts=tuple(rows.get("acts", ())),
            asks=(*rows.get("asks", ()), *load_wordings(language)["topics"].get(name, ())),
        )
        for name, rows in ways.items()
    )


@cache
def load_frames(language: Language) -> dict[str, tuple[str, ...]]:
    """Load the questions that any term or act can stand in."""
    return {kind: tuple(rows) for kind, rows in read_texts("frames")[language].items()}


def ask(topic: Topic, language: Language, rng: Random) -> str:
    """Ask for a topic in one of the ways that training may see."""
    framed = [way for way in ("terms", "acts") if getattr(topic, way)]
    way = rng.choice(framed) if framed and rng.random() < _FRAMED_SHARE else "asks"
    inner = rng.choice(getattr(topic, way))
    if way == "asks":
        return choose(inner, rng)
    frame = rng.choice(load_frames(language)[way])
    return choose(frame.replace("<it>", choose(inner, rng)), rng)
