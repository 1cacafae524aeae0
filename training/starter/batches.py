"""Packed batches: rows of several conversations that do not see each other, and long ones for the whole context."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

import torch
from transformers import PreTrainedTokenizerFast

from training.starter.corpus import Corpus
from training.starter.encoding import Encoder, Tokens
from training.starter.tokenizer import CONTEXT

ROWS, LENGTH = 20, 128
_MIDDLE_ROWS, _MIDDLE_LENGTH, _MIDDLE_EVERY = 6, 448, 4
_LONG_EVERY = 36
_WAITING = 120
_NEARLY_FULL = 70
_FARTHEST = -1e4


@dataclass(frozen=True, slots=True)
class Batch:
    """One step's tensors: (rows, length) each; `mask` is (rows, 1, length, length), or None for one conversation."""

    input_ids: torch.Tensor
    weights: torch.Tensor
    position_ids: torch.Tensor
    mask: torch.Tensor | None


class Batches:
    """An endless source of batches; most hold short conversations, some one conversation as long as the context."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, seed: int, start: int = 0) -> None:
        """Begin at batch number `start`, with text of its own."""
        self._rng = Random(f"{seed} {start}")
        self._corpus = Corpus(self._rng.randrange(2**48))
        self._items = iter(self._corpus)
        self._encoder = Encoder(tokenizer)
        self._number = start
        self._pad = tokenizer.pad_token_id
        self._waiting: list[Tokens] = []
        self._long_ones: list[Tokens] = []

    def __iter__(self) -> Iterator[Batch]:
        while True:
            self._number += 1
            if self._number % _LONG_EVERY == 0:
                yield self._long()
            elif self._number % _MIDDLE_EVERY == 0:
                yield self._packed(_MIDDLE_ROWS, _MIDDLE_LENGTH)
            else:
                yield self._packed(ROWS, LENGTH)

    def _packed(self, rows: int, length: int) -> Batch:
        packed = [self._row(length) for _ in range(rows)]
        ids = torch.full((rows, length), self._pad)
        weights = torch.zeros((rows, length))
        positions = torch.zeros((rows, length), dtype=torch.long)
        owners = torch.full((rows, length), -1)
        for number, conversations in enumerate(packed):
            at = 0
            for owner, tokens in enumerate(conversations):
                end = at + len(tokens.ids)
                ids[number, at:end] = torch.tensor(tokens.ids)
                weights[number, at:end] = torch.tensor(tokens.weights)
                weights[number, at] = 0.0
                positions[number, at:end] = torch.arange(end - at)
                owners[number, at:end] = owner
                at = end
        sees = (owners[:, :, None] == owners[:, None, :]) & torch.ones(length, length, dtype=torch.bool).tril()
        mask = torch.zeros((rows, 1, length, length)).masked_fill(~sees[:, None], _FARTHEST)
        return Batch(ids, weights, positions, mask)

    def _row(self, length: int) -> list[Tokens]:
        """Fill a row with conversations that fit, long ones first where there is room for them."""
        row: list[Tokens] = []
        room = length
        while length > LENGTH and self._long_ones and len(self._long_ones[-1].ids) <= room:
            row.append(self._long_ones.pop())
            room -= len(row[-1].ids)
        while len(self._waiting) < _WAITING:
            self._add()
        while fitting := [place for place, tokens in enumerate(self._waiting) if len(tokens.ids) <= room]:
            place = fitting[0] if room > _NEARLY_FULL else max(fitting, key=lambda n: len(self._waiting[n].ids))
            row.append(self._waiting.pop(place))
            room -= len(row[-1].ids)
        return row

    def _add(self) -> None:
        tokens = self._encoder.encode(next(self._items), self._rng)
        if len(tokens.ids) <= LENGTH:
            self._waiting.append(tokens)
        elif len(tokens.ids) <= _MIDDLE_LENGTH and len(self._long_ones) < _WAITING:
            self._long_ones.append(tokens)

    def _long(self) -> Batch:
        """Join conversations into one: what is far away must not disturb, and is not forgotten."""
        ids: list[int] = []
        weights: list[float] = []
        while len(ids) < CONTEXT:
            tokens = self._encoder.encode(self._corpus.conversation())
            ids += tokens.ids
            weights += tokens.weights
        some, those = torch.tensor([ids[:CONTEXT]]), torch.tensor([weights[:CONTEXT]])
        return Batch(some, those, torch.arange(CONTEXT)[None], None)
