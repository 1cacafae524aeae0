"""Answers with transformers' own `generate`, for the architectures that cannot be computed in packs."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from transformers import DynamicCache, LogitsProcessorList, StoppingCriteria, StoppingCriteriaList
from transformers.cache_utils import DynamicLayer

from providers.answer_writer import AnswerWriter
from providers.batch_row import AnswerCancelled, too_many_wait
from providers.kept_prefixes import Tokens, common_length
from providers.types import EngineFigures

KEPT_CONVERSATIONS = 4
PATIENCE_SECONDS = 0.05


class GenerateEngine:
    """Computes each answer on the thread that asks, a few at once, and keeps the caches of the last conversations."""

    def __init__(self, watched: Sequence[torch.nn.Module], budget: int, parallel: int, line: int) -> None:
        """Keep at most `budget` bytes of conversations; at most `parallel` answers at once, `line` may wait.

        The layers of what is `watched` are where a cancelled answer ends.
        """
        self._budget, self._parallel, self._longest_line = budget, parallel, line
        self._changed = threading.Condition()
        self._line: deque[object] = deque()
        self._kept: list[tuple[object, Tokens, DynamicCache]] = []
        self._running = self._reused = 0
        self._thread = threading.local()
        for module in watched:
            _check_before_each_layer(module, self._thread)

    def answer(
        self,
        model: Any,
        weights: object,
        prompt: Any,
        limit: int,
        processors: LogitsProcessorList,
        writer: AnswerWriter,
        place: Callable[[int], None],
        cancelled: threading.Event,
    ) -> None:
        """Answer `prompt`, what the tokenizer gives for one text, with at most `limit` tokens.

        `weights` names what `model` computes with. Raises AnswerCancelled within one layer of `cancelled` being set,
        RateLimited when too many wait, and what `generate` raises.
        """
        with self._turn(place, cancelled), torch.inference_mode():
            self._thread.cancelled = cancelled
            cache = self._take(weights, prompt["input_ids"][0].to("cpu", torch.int32).numpy())
            found = model.generate(
                **prompt,
                **({} if cache is None else {"past_key_values": cache}),
                max_new_tokens=limit,
                logits_processor=processors,
                stopping_criteria=StoppingCriteriaList([_StopWithWriter(writer)]),
                streamer=_Streamer(writer),
                return_dict_in_generate=True,
            )
            self._keep(weights, found.sequences[0], found.past_key_values)

    def close(self) -> None:
        """Forget what was kept."""
        with self._changed:
            self._kept.clear()

    def figures(self) -> EngineFigures:
        """Say what the engine does now."""
        with self._changed:
            return EngineFigures(
                batched=False,
                running=self._running,
                waiting=len(self._line),
                cache_bytes=sum(_size(cache) for _, _, cache in self._kept),
                cache_limit_bytes=self._budget,
                kept_conversations=len(self._kept),
                reused_tokens=self._reused,
            )

    @contextmanager
    def _turn(self, place: Callable[[int], None], cancelled: threading.Event) -> Iterator[None]:
        """Wait in line until a place is free, told one's own after a moment and whenever it changes."""
        ticket = object()
        with self._changed:
            if len(self._line) >= self._longest_line:
                raise too_many_wait()
            self._line.append(ticket)
            told = 0
            try:
                while self._line[0] is not ticket or self._is_full():
                    self._changed.wait(PATIENCE_SECONDS)
                    if cancelled.is_set():
                        raise AnswerCancelled
                    if (number := self._line.index(ticket) + 1) != told and (number > 1 or self._is_full()):
                        told = number
                        place(number)
                self._running += 1
            finally:
                self._line.remove(ticket)
                self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._running -= 1
                self._changed.notify_all()

    def _is_full(self) -> bool:
        return self._running >= self._parallel

    def _take(self, weights: object, tokens: Tokens) -> DynamicCache | None:
        """Take out the cache that has most of the beginning of `tokens`, cut to what they have in common."""
        with self._changed:
            lengths = [common_length(held, tokens) if of is weights else 0 for of, held, _ in self._kept]
            # Another conversation's, which only begins alike, is left to it.
            fitting = [n for n, (_, held, _) in enumerate(self._kept) if 2 * lengths[n] > len(held)]
            if not fitting:
                return None
            best = max(fitting, key=lambda n: lengths[n])
            _, held, cache = self._kept.pop(best)
            length = min(lengths[best], len(tokens) - 1)
            self._reused += length
        if length < len(held):
            cache.crop(length - len(held))  # A positive length is refused.
        return cache if length else None

    def _keep(self, weights: object, sequence: torch.Tensor, cache: Any) -> None:
        """Keep a cache of which any end can be cut off; the oldest ones leave first."""
        if (
            not self._budget
            or not isinstance(cache, DynamicCache)
            or not all(type(layer) is DynamicLayer for layer in cache.layers)
        ):
            return
        tokens = sequence[: cache.get_seq_length()].to("cpu", torch.int32).numpy()
        with self._changed:
            self._kept.append((weights, np.array(tokens), cache))
            del self._kept[:-KEPT_CONVERSATIONS]
            while self._kept and sum(_size(kept) for _, _, kept in self._kept) > self._budget:
                del self._kept[0]


def _size(cache: DynamicCache) -> int:
    return sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers if layer.is_initialized)


class _Streamer:
    """Receives from `generate` first the prompt, then each token."""

    def __init__(self, writer: AnswerWriter) -> None:
        self._writer = writer
        self._prompt_seen = False

    def put(self, value: torch.Tensor) -> None:
        if self._prompt_seen:
            self._writer.take(int(value.reshape(-1)[0]))
        self._prompt_seen = True

    def end(self) -> None:
        """Required by `generate`; the end is told by `Finished`."""


class _StopWithWriter(StoppingCriteria):
    def __init__(self, writer: AnswerWriter) -> None:
        self._writer = writer

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **_: Any) -> torch.Tensor:
        return torch.full((input_ids.shape[0],), self._writer.stopped, device=input_ids.device)


def _check_before_each_layer(model: torch.nn.Module, running: threading.local) -> None:
    """Leave a forward pass before its next layer once its thread's answer is cancelled; holds no model alive."""

    def check(*_: Any) -> None:
        if running.cancelled.is_set():
            raise AnswerCancelled

    stacks = (module for module in model.modules() if isinstance(module, torch.nn.ModuleList))
    for layer in max(stacks, key=len, default=[model]):
        layer.register_forward_pre_hook(check)
