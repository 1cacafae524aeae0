"""One answer of many that are computed together: its tokens so far, and who receives them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import LogitsProcessorList

from providers.errors import RateLimited
from providers.kept_prefixes import Tokens
from providers.packed_attention import TokenCache, Work
from providers.prompt_lookup import PromptLookup
from providers.sentences import say


class AnswerCancelled(Exception):
    """The person does not want the answer any more."""


class NoRoom(MemoryError):
    """An answer alone needs more memory than there is for conversations."""


def too_many_wait() -> RateLimited:
    """Return the error for who asks while the line is full."""
    return RateLimited(
        say("Too many people are waiting for an answer of this model."),
        provider="transformers",
        hint=say("Try again in a moment."),
    )


@dataclass(eq=False)
class Row:
    """One answer: its tokens so far, prompt first, and who receives them.

    `weights` names what `model` computes with: rows with the same may share what was computed. `take` is given each new
    token and says whether the answer has ended with it; `place` is told the place in the line. Both are called on the
    engine's thread; what they raise ends this answer alone.
    """

    model: Any
    weights: object
    tokens: list[int]
    limit: int
    processors: LogitsProcessorList
    take: Callable[[int], bool]
    place: Callable[[int], None]
    cancelled: threading.Event
    lookup: PromptLookup | None = None

    def __post_init__(self) -> None:
        self.end = len(self.tokens) + self.limit
        self.cache: TokenCache | None = None
        self.ended = threading.Event()
        self.error: BaseException | None = None
        self.told_place = 0
        self._ids: torch.Tensor | None = None

    @property
    def left(self) -> int:
        """Return how many tokens wait to be computed; one means that the next one can be predicted."""
        return len(self.tokens) - (self.cache.length if self.cache else 0)

    @property
    def array(self) -> Tokens:
        """Return the tokens for comparing."""
        return np.array(self.tokens, dtype=np.int32)

    def work(self, share: int) -> Work:
        """Return what a step computes of this row: `share` tokens of its prompt, or its newest token and a draft."""
        assert self.cache is not None
        if self.left > 1:
            done = self.cache.length + share
            return Work(self.tokens[self.cache.length : done], self.cache, int(done == len(self.tokens)))
        draft = self.lookup.draft(self.tokens)[: self.end - len(self.tokens) - 1] if self.lookup else []
        return Work([self.tokens[-1], *draft], self.cache, 1 + len(draft))

    def choose(self, scores: torch.Tensor) -> int:
        """Return the next token for logits (1, vocabulary)."""
        if self.processors:
            known = 0 if self._ids is None else self._ids.shape[1]
            new = torch.tensor([self.tokens[known:]], dtype=torch.long, device=scores.device)
            self._ids = new if self._ids is None else torch.cat([self._ids, new], dim=1)
            scores = self.processors(self._ids, scores)
        return int(scores.argmax())

    def finish(self, error: BaseException | None = None) -> None:
        self.error, self.cache = error, None
        self.ended.set()
