"""All the text that the starter model is trained on: conversations without end, from one seed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import TypeVar

from training.starter import skills, topics
from training.starter.cards import Cards, make_cards
from training.starter.held_out import is_held_out
from training.starter.noise import announce, language_prompts, loosen, rephrase, roughen, surround, system_prompts
from training.starter.phrases import LANGUAGES, Language, choose, load_intents
from training.starter.stories import ask_for_story
from training.starter.unknown import UnknownQuestions

Made = TypeVar("Made")

_SHARES = {"topic": 0.23, "intent": 0.45, "unknown": 0.17, "skill": 0.145, "story": 0.005}
_FACT_SHARE, _PERSONA_SHARE, _SYSTEM_SHARE, _LANGUAGE_SHARE = 0.02, 0.03, 0.06, 0.03
_CARDS_SHARE = 0.04
_SHORT = frozenset(("topic", "intent", "unknown"))


@dataclass(frozen=True, slots=True)
class Turn:
    """A question and its answer; that of a `known` kind is one of a fixed list, so its first words decide the rest."""

    question: str
    answer: str
    kind: str

    @property
    def known(self) -> bool:
        """Whether the answer is one of a fixed list."""
        return self.kind in _SHORT


@dataclass(frozen=True, slots=True)
class Conversation:
    """Turns, after a system prompt or none."""

    system: str | None
    turns: tuple[Turn, ...]


class Corpus:
    """An endless source of conversations, and of cards among them."""

    def __init__(self, seed: int) -> None:
        self._rng = Random(seed)
        self._unknown = {language: UnknownQuestions(language, self._rng) for language in LANGUAGES}
        self._kinds = tuple(_SHARES)
        self._shares = tuple(_SHARES.values())

    def __iter__(self) -> Iterator[Conversation | Cards]:
        while True:
            yield self.cards() if self._rng.random() < _CARDS_SHARE else self.conversation()

    def cards(self) -> Cards:
        """Make a dozen lines of facts, sums or spellings."""
        return make_cards(self._rng.choice(LANGUAGES), self._rng)

    def conversation(self, turns: int | None = None) -> Conversation:
        """Make one conversation, of one to four turns if not told, some with a system prompt."""
        language = self._rng.choice(LANGUAGES)
        kind = self._rng.random()
        if kind < _FACT_SHARE:
            return self._with_facts(language)
        if kind < _FACT_SHARE + _PERSONA_SHARE:
            return self._with_persona(language)
        answered = language
        system = None
        chance = self._rng.random()
        if chance < _LANGUAGE_SHARE:
            answered = self._rng.choice(LANGUAGES)
            system = self._in_language(answered)
        elif chance < _SYSTEM_SHARE:
            system = self._system_prompt()
        count = turns or self._rng.choices((1, 2, 3, 4), (0.96, 0.025, 0.01, 0.005))[0]
        made = []
        for _ in range(count):
            if self._rng.random() < 0.06:
                language = self._rng.choice(LANGUAGES)
                answered = language if chance >= _LANGUAGE_SHARE else answered
            made.append(self.turn(language, answered))
        return Conversation(system, tuple(made))

    def turn(self, language: Language, answered: Language | None = None) -> Turn:
        """Make one question that is not held out, and its answer, in another language if told."""
        return _not_held_out(lambda: self._draw(language, answered or language), _question_of)

    def skill_turn(self, name: str, language: Language, answered: Language | None = None) -> Turn:
        """Ask for one skill."""
        return _not_held_out(lambda: self._skill(name, language, answered or language), _question_of)

    def _written(self, templates: Sequence[str], type_it: Callable[[str], str] = str) -> str:
        """Write something else than a question, in words that are not held out."""
        return _not_held_out(lambda: type_it(choose(self._rng.choice(templates), self._rng)), str)

    def _draw(self, language: Language, answered: Language) -> Turn:
        kind = self._rng.choices(self._kinds, self._shares)[0]
        rng = self._rng
        if kind == "unknown":
            return Turn(*self._unknown[language].question_and_answer(answered), kind)
        if kind == "story":
            question, answer = ask_for_story(language, rng)
            return Turn(roughen(question, language, rng), answer, kind)
        if kind == "skill":
            rows = [row for row in skills.load_skills(language).values() if not row.tells and not row.systems]
            name = rng.choices([row.name for row in rows], [row.weight for row in rows])[0]
            return self._skill(name, language, answered)
        if kind == "topic":
            place = rng.randrange(len(topics.load_topics(language)))
            question = topics.ask(topics.load_topics(language)[place], language, rng)
            answer = topics.load_topics(answered)[place].answer
            return Turn(self._typed(loosen(question, rng), language), answer, kind)
        place = rng.choices(range(len(load_intents(language))), [row.weight for row in load_intents(language)])[0]
        intent = load_intents(language)[place]
        question = choose(rng.choice(intent.asks), rng)
        if intent.group != "chat" or rng.random() < 0.5:
            question = surround(loosen(question, rng), language, rng)
        return Turn(roughen(question, language, rng), rng.choice(load_intents(answered)[place].answers), kind)

    def _typed(self, question: str, language: Language) -> str:
        return roughen(surround(question, language, self._rng), language, self._rng)

    def _skill(self, name: str, language: Language, answered: Language) -> Turn:
        values, results = skills.draw(name, language, answered, self._rng)
        question = choose(self._rng.choice(skills.load_skills(language)[name].asks), self._rng)
        answer = skills.fill(skills.load_skills(answered)[name].answer, results)
        if name == "members" and "<n>" not in question:
            answer = results["some"]
        return Turn(skills.fill(self._framed(question, name, language), values), answer, name)

    def _framed(self, question: str, name: str, language: Language) -> str:
        """Type a question around its slots; one that ends in a text to be copied keeps that end as it is."""
        if name not in skills.VERBATIM:
            return self._typed(question, language)
        question = rephrase(question, language, self._rng)
        if self._rng.random() < 0.4:
            question = question[:1].upper() + question[1:]
        return question

    def _with_facts(self, language: Language) -> Conversation:
        """Tell one or two facts, talk of other things or not, and ask for one of them."""
        rng = self._rng
        names = rng.sample(skills.FACTS, k=rng.choices((1, 2), (0.65, 0.35))[0])
        if len(names) == 2 and set(names) == {"name", "pet"}:
            names = names[:1]
        turns: list[Turn] = []
        asked: list[Turn] = []
        for name in names:
            skill = skills.load_skills(language)[name]
            values, results = skills.draw(name, language, language, rng)
            tell = self._written(skill.tells, lambda text: roughen(announce(text, language, rng), language, rng))
            turns.append(Turn(skills.fill(tell, values), skills.fill(skill.told, results), f"told_{name}"))
            asked.append(self._asked(name, language, results))
            if rng.random() < 0.2:
                turns.append(self.turn(language))
        rng.shuffle(asked)
        turns += [self.turn(language) for _ in range(rng.choices((0, 1, 2, 5), (0.6, 0.25, 0.12, 0.03))[0])]
        if rng.random() < 0.1:
            return Conversation(None, tuple(turns))
        return Conversation(None, (*turns, *asked))

    def _asked(self, name: str, language: Language, results: skills.Values) -> Turn:
        skill = skills.load_skills(language)[name]
        return _not_held_out(
            lambda: Turn(
                skills.fill(self._typed(choose(self._rng.choice(skill.asks), self._rng), language), results),
                skills.fill(skill.answer, results),
                name,
            ),
            _question_of,
        )

    def _with_persona(self, language: Language) -> Conversation:
        """Give the model a name in the system prompt, of either language, and ask who it is."""
        rng = self._rng
        given = language if rng.random() < 0.8 else rng.choice(LANGUAGES)
        answered = language
        values, results = skills.draw("persona", given, language, rng)
        system = skills.fill(self._written(skills.load_skills(given)["persona"].systems), values)
        if rng.random() < 0.15:
            answered = rng.choice(LANGUAGES)
            system = f"{system} {self._in_language(answered)}"
        turns = [self.turn(language, answered) for _ in range(rng.choices((0, 1, 2), (0.7, 0.2, 0.1))[0])]
        question = self._asked("persona", language, results)
        answer = skills.fill(skills.load_skills(answered)["persona"].answer, results)
        turns.append(Turn(question.question, answer, "persona"))
        return Conversation(system, tuple(turns))

    def _in_language(self, answered: Language) -> str:
        return self._written(language_prompts(answered))

    def _system_prompt(self) -> str:
        language = self._rng.choice(LANGUAGES)
        if self._rng.random() < 0.7:
            return self._rng.choice(system_prompts(language))
        return self._unknown[language].prose(sentences=self._rng.randint(1, 3))


def _question_of(turn: Turn) -> str:
    return turn.question


def _not_held_out(make: Callable[[], Made], words_of: Callable[[Made], str]) -> Made:
    """Make one after the other, and return the first whose words are not held out."""
    while True:
        made = make()
        if not is_held_out(words_of(made)):
            return made
