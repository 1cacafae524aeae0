"""From conversations to rows of tokens, each token with the weight that its loss has.

Nearly all of an answer follows from its first words, so those weigh most, and most batches hold
single questions with the beginning of their answer only.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

import torch
from transformers import PreTrainedTokenizerFast

from training.starter.corpus import Corpus, Message, PlainText
from training.starter.tokenizer import CONTEXT

_PROMPT_WEIGHT, _FIRST_WEIGHT, _REST_WEIGHT = 0.1, 5.0, 1.0
_FIRST_TOKENS = 6
_QUESTIONS, _QUESTION_LENGTH, _KEPT_OF_ANSWER = 64, 64, 8
_SORTED_BATCHES = 6
_ROWS, _ROW_LENGTH = 8, 320


@dataclass(frozen=True, slots=True)
class Batch:
    """One step's tensors, each of the shape (rows, length)."""

    input_ids: torch.Tensor
    weights: torch.Tensor
    position_ids: torch.Tensor


@dataclass(frozen=True, slots=True)
class Tokens:
    """The tokens of one conversation, and how much each is learnt."""

    ids: list[int]
    weights: list[float]


def encode(item: list[Message] | PlainText, tokenizer: PreTrainedTokenizerFast) -> Tokens:
    """Turn a conversation or a plain text into weighted tokens."""
    if isinstance(item, PlainText):
        ids = [tokenizer.bos_token_id, *tokenizer(item.text)["input_ids"], tokenizer.bos_token_id]
        return Tokens(ids, [_REST_WEIGHT] * len(ids))
    encoded = tokenizer.apply_chat_template(
        item,
        return_assistant_tokens_mask=True,
        return_dict=True,
    )
    weights = []
    answered = 0
    for is_answer in encoded["assistant_masks"]:
        answered = answered + 1 if is_answer else 0
        weights.append(_weight(answered))
    return Tokens(encoded["input_ids"], weights)


def _weight(place_in_answer: int) -> float:
    if place_in_answer == 0:
        return _PROMPT_WEIGHT
    return _FIRST_WEIGHT if place_in_answer <= _FIRST_TOKENS else _REST_WEIGHT


class Batches:
    """An endless source of batches: single questions, packed conversations, and full contexts."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, seed: int) -> None:
        self._tokenizer = tokenizer
        self._corpus = Corpus(seed)
        self._items = iter(self._corpus)
        self._rng = Random(seed)
        self._waiting: list[list[Tokens]] = []

    def __iter__(self) -> Iterator[Batch]:
        number = 0
        while True:
            number += 1
            if number % 24 == 0:
                yield self._conversations(rows=1, length=CONTEXT)
            elif number % 3 == 0:
                yield self._conversations(rows=_ROWS, length=_ROW_LENGTH)
            else:
                yield self._questions()

    def _questions(self) -> Batch:
        """Pad questions of about one length together, so that little of a batch is padding."""
        if not self._waiting:
            rows = [self._question() for _ in range(_QUESTIONS * _SORTED_BATCHES)]
            rows.sort(key=lambda row: len(row.ids))
            starts = range(0, len(rows), _QUESTIONS)
            self._waiting = [rows[start : start + _QUESTIONS] for start in starts]
            self._rng.shuffle(self._waiting)
        return self._padded(self._waiting.pop())

    def _padded(self, rows: list[Tokens]) -> Batch:
        length = max(len(row.ids) for row in rows)
        shape = (len(rows), length)
        ids = torch.full(shape, self._tokenizer.pad_token_id)
        weights = torch.zeros(shape)
        for number, row in enumerate(rows):
            ids[number, : len(row.ids)] = torch.tensor(row.ids)
            weights[number, : len(row.ids)] = torch.tensor(row.weights)
        return Batch(ids, weights, torch.arange(length).expand(shape))

    def _question(self) -> Tokens:
        while True:
            tokens = encode(self._corpus.conversation(turns=1), self._tokenizer)
            end = tokens.weights.index(_FIRST_WEIGHT) + _KEPT_OF_ANSWER
            if end <= _QUESTION_LENGTH:
                return Tokens(tokens.ids[:end], tokens.weights[:end])

    def _conversations(self, rows: int, length: int) -> Batch:
        packed = [self._row(length) for _ in range(rows)]
        ids, weights, positions = (torch.tensor(column) for column in zip(*packed, strict=True))
        return Batch(ids, weights, positions)

    def _row(self, length: int) -> tuple[list[int], list[float], list[int]]:
        ids: list[int] = []
        weights: list[float] = []
        starts: list[int] = []
        while len(ids) < length:
            starts.append(len(ids))
            tokens = encode(next(self._items), self._tokenizer)
            ids += tokens.ids
            weights += tokens.weights
        return ids[:length], weights[:length], self._positions(starts, length)

    def _positions(self, starts: list[int], length: int) -> list[int]:
        """Leave gaps between conversations, so that short rows also teach far distances."""
        positions = list(range(length))
        if self._rng.random() < 0.6:
            return positions
        room = CONTEXT - length
        for start in starts[1:]:
            gap = self._rng.randint(0, room)
            room -= gap
            positions[start:] = [position + gap for position in positions[start:]]
        return positions
