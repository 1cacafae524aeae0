"""Long stories built from templates: every line has two wordings; hero, place and find vary."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from random import Random

from training.starter.phrases import Language, choose, read_texts
from training.starter.unknown import invent_word, load_unknown

_PARAGRAPH_ENDS = (1, 4, 7, 10)
_OTHER_HERO = {
    "en": "I know no story about that, but I know this one.\n\n",
    "es": "No sé ningún cuento sobre eso, pero sé este.\n\n",
}


@dataclass(frozen=True, slots=True)
class StoryParts:
    """The choices that a story of one language is made of."""

    asks: tuple[str, ...]
    topic_asks: tuple[str, ...]
    heroes: tuple[str, ...]
    names: tuple[str, ...]
    places: tuple[str, ...]
    things: tuple[str, ...]
    friends: tuple[str, ...]
    lines: tuple[tuple[str, ...], ...]


@cache
def load_story_parts(language: Language) -> StoryParts:
    """Load the choices of one language."""
    data = read_texts(f"stories_{language}")
    lines = tuple(tuple(wordings) for wordings in data.pop("lines"))
    return StoryParts(lines=lines, **{key: tuple(values) for key, values in data.items()})


def tell_story(hero: str, language: Language, rng: Random) -> str:
    """Tell a story of about 230 words about a hero."""
    parts = load_story_parts(language)
    cast = {
        "<hero>": hero,
        "<name>": rng.choice(parts.names),
        "<place>": rng.choice(parts.places),
        "<thing>": rng.choice(parts.things),
        "<friend>": rng.choice(parts.friends),
    }
    story = ""
    for number, wordings in enumerate(parts.lines):
        line = rng.choice(wordings)
        for slot, value in cast.items():
            line = line.replace(slot, value)
        story += line + ("\n\n" if number in _PARAGRAPH_ENDS else " ")
    return story.strip()


def ask_for_story(language: Language, rng: Random) -> tuple[str, str]:
    """Ask for a story, with the story as its answer."""
    parts = load_story_parts(language)
    hero = rng.choice(parts.heroes)
    kind = rng.random()
    if kind < 0.5:
        return choose(rng.choice(parts.asks), rng), tell_story(hero, language, rng)
    topic_ask = choose(rng.choice(parts.topic_asks), rng)
    if kind < 0.85:
        return topic_ask.replace("<topic>", hero), tell_story(hero, language, rng)
    topic = invent_word(rng) if rng.random() < 0.3 else rng.choice(load_unknown(language).words["noun"])
    return topic_ask.replace("<topic>", topic), _OTHER_HERO[language] + tell_story(hero, language, rng)
