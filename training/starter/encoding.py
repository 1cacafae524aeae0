"""From conversations to tokens, each with the weight that its loss has.

Nearly all of a fixed answer follows from its first words: those weigh most, and most often the rest is left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from random import Random

from transformers import PreTrainedTokenizerFast

from training.starter.cards import Cards
from training.starter.corpus import Conversation, Turn
from training.starter.skills import SPELLED
from training.starter.tokenizer import TURN_END, TURN_START

_PROMPT_WEIGHT = 0.1
_FIRST_WEIGHT, _REST_WEIGHT = 4.0, 1.0
_SKILL_WEIGHT = 2.0
_FIRST_TOKENS, _KEPT_TOKENS = 5, 8
_LEFT_OUT_SHARE = 0.8


@dataclass(frozen=True, slots=True)
class Tokens:
    """The tokens of one conversation, and how much each is learnt."""

    ids: list[int]
    weights: list[float]


class Encoder:
    """Writes conversations as the chat template does, piece by piece, which is faster and lets words be spelt."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self._tokenizer = tokenizer
        self._start = tokenizer.convert_tokens_to_ids(TURN_START)
        self._end = tokenizer.convert_tokens_to_ids(TURN_END)
        self._first = tokenizer.bos_token_id
        self._line = self._ids("\n")
        self._answers = [self._start, *self._ids("assistant\n")]
        self.ids_of_answer = lru_cache(20_000)(self._ids_of_answer)

    def encode(self, item: Conversation | Cards, rng: Random | None = None) -> Tokens:
        """Encode an item; with `rng`, most often without the end of the last answer if that is a fixed one."""
        return self._cards(item) if isinstance(item, Cards) else self._conversation(item, rng)

    def _cards(self, cards: Cards) -> Tokens:
        ids = [self._first]
        weights = [0.0]
        for start, end in cards.lines:
            for text, weight in ((start, 0.0), (end, _SKILL_WEIGHT)):
                some = self._spelt(text)
                ids += some
                weights += [weight] * len(some)
        return Tokens(ids, weights)

    def _conversation(self, conversation: Conversation, rng: Random | None) -> Tokens:
        ids: list[int] = []
        weights: list[float] = []

        def add(some: list[int], weight: float) -> None:
            ids.extend(some)
            weights.extend([weight] * len(some))

        if conversation.system is not None:
            add([self._start, *self._ids(f"system\n{conversation.system}"), self._end, *self._line], 0.0)
        for number, turn in enumerate(conversation.turns, 1):
            add([self._start, *self._ids(f"user\n{turn.question}")], _PROMPT_WEIGHT)
            add([self._end, *self._line, *self._answers], 0.0)
            answer = self.ids_of_answer(turn.answer)
            is_last = number == len(conversation.turns)
            if rng and is_last and turn.known and len(answer) > _KEPT_TOKENS and rng.random() < _LEFT_OUT_SHARE:
                answer = answer[:_KEPT_TOKENS]
            ids.extend(answer)
            weights.extend(self._weights(turn, len(answer)))
            if not is_last:
                add(self._line, 0.0)
        return Tokens(ids, weights)

    def _weights(self, turn: Turn, length: int) -> list[float]:
        if not turn.known:
            return [_SKILL_WEIGHT] * length
        return ([_FIRST_WEIGHT] * _FIRST_TOKENS + [_REST_WEIGHT] * length)[:length]

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def _ids_of_answer(self, answer: str) -> list[int]:
        return [*self._spelt(answer), self._end]

    def _spelt(self, text: str) -> list[int]:
        ids: list[int] = []
        for number, piece in enumerate(text.split(SPELLED)):
            for part in piece if number % 2 else [piece]:
                ids += self._ids(part) if part else []
        return ids
