"""Packed batches: rows of several conversations that do not see each other, and long ones for the whole context."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info
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
_MADE_AHEAD = 8


@dataclass(frozen=True, slots=True)
class Batch:
    """One step's tensors, (rows, length) each; `owners` numbers a row's conversations, None if each row is one."""

    input_ids: torch.Tensor
    weights: torch.Tensor
    position_ids: torch.Tensor
    owners: torch.Tensor | None

    def to(self, device: torch.device) -> Batch:
        """Copy the batch to a device."""
        return Batch(
            self.input_ids.to(device),
            self.weights.to(device),
            self.position_ids.to(device),
            None if self.owners is None else self.owners.to(device),
        )

    def mask(self, dtype: torch.dtype) -> torch.Tensor | None:
        """Compute what is added to attention's scores, (rows, 1, length, length): none sees another conversation."""
        if self.owners is None:
            return None
        length = self.owners.shape[1]
        earlier = torch.ones(length, length, dtype=torch.bool, device=self.owners.device).tril()
        sees = (self.owners[:, :, None] == self.owners[:, None, :]) & earlier
        hidden = torch.full((), _FARTHEST, dtype=dtype, device=sees.device)
        return torch.where(sees, hidden.new_zeros(()), hidden)[:, None]


class Batches:
    """An endless source of batches; most hold short conversations, some one conversation as long as the context.

    `scale` multiplies the rows of each, for machines that compute many at once as fast as few.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast, seed: int, start: int = 0, scale: int = 1) -> None:
        """Begin at batch number `start`, with text of its own."""
        self._scale = scale
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
                yield self._packed(_MIDDLE_ROWS * self._scale, _MIDDLE_LENGTH)
            else:
                yield self._packed(ROWS * self._scale, LENGTH)

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
        return Batch(ids, weights, positions, owners)

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
        """Join conversations into one a row: what is far away must not disturb, and is not forgotten."""
        rows = [self._long_row() for _ in range(self._scale)]
        ids = torch.tensor([tokens.ids[:CONTEXT] for tokens in rows])
        weights = torch.tensor([tokens.weights[:CONTEXT] for tokens in rows])
        return Batch(ids, weights, torch.arange(CONTEXT).expand(len(rows), -1), None)

    def _long_row(self) -> Tokens:
        ids: list[int] = []
        weights: list[float] = []
        while len(ids) < CONTEXT:
            tokens = self._encoder.encode(self._corpus.conversation())
            ids += tokens.ids
            weights += tokens.weights
        return Tokens(ids, weights)


class _Stream(IterableDataset[Batch]):
    """The batches of one process among several, each with text of its own."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, seed: int, start: int, scale: int) -> None:
        self._of = tokenizer, seed, start, scale

    def __iter__(self) -> Iterator[Batch]:
        tokenizer, seed, start, scale = self._of
        worker = get_worker_info()
        assert worker is not None
        # Processes take turns: the start moves the places of the long batches apart.
        return iter(Batches(tokenizer, seed * worker.num_workers + worker.id, start + worker.id, scale))


def make_batches(
    tokenizer: PreTrainedTokenizerFast, seed: int, start: int = 0, scale: int = 1, processes: int = 0
) -> Iterator[Batch]:
    """Make batches without end, in this process or in so many others."""
    if processes == 0:
        return iter(Batches(tokenizer, seed, start, scale))
    stream = _Stream(tokenizer, seed, start, scale)
    return iter(DataLoader(stream, batch_size=None, num_workers=processes, prefetch_factor=_MADE_AHEAD))
