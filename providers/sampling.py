"""Sampling for `generate`: transformers' own processors, with a random generator for each answer.

`generate` draws from torch's global generator, which answers side by side would share. So `generate` runs greedy and
the last processor adds Gumbel noise from the answer's own generator: the argmax of logits plus Gumbel noise is a sample
of their softmax (Gumbel-max trick; Maddison et al. 2014, arXiv:1411.0030).
"""

from __future__ import annotations

import secrets

import torch
from transformers import (
    LogitsProcessor,
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from providers.types import Parameters

GREEDY_BELOW = 1e-4


class PresenceAndFrequencyPenalty(LogitsProcessor):
    """OpenAI's penalties over the tokens of the answer so far: logit - count * frequency - (count > 0) * presence.

    Source: OpenAI's API reference, "Frequency and presence penalties".
    """

    def __init__(self, presence: float, frequency: float, prompt_length: int) -> None:
        self._presence = presence
        self._frequency = frequency
        self._prompt_length = prompt_length

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Lower the scores (1, vocabulary) of the tokens that `input_ids` (1, length) holds after the prompt."""
        answer = input_ids[:, self._prompt_length :]
        counts = torch.zeros_like(scores).scatter_add_(1, answer, torch.ones_like(answer, dtype=scores.dtype))
        return scores - counts * self._frequency - (counts > 0) * self._presence


class GumbelNoise(LogitsProcessor):
    """Turns a greedy choice into a sample, drawn from this answer's own generator."""

    def __init__(self, seed: int, device: torch.device) -> None:
        self._generator = torch.Generator(device=device).manual_seed(seed)

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Add standard Gumbel noise, -log(Exponential(1)), to scores of shape (1, vocabulary)."""
        noise = torch.empty_like(scores, dtype=torch.float32).exponential_(generator=self._generator).log_()
        return scores - noise


class LogprobTap(LogitsProcessor):
    """Remembers the model's own probabilities of the next token, before anything shapes them."""

    def __init__(self, top: int) -> None:
        self._top = top
        self._logprobs = torch.empty(0)

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Look at scores (1, vocabulary) and leave them as they are."""
        self._logprobs = torch.log_softmax(scores[0].float(), dim=-1)
        return scores

    def of(self, token: int) -> float:
        """Return the natural logarithm of the probability of a token at the newest place."""
        return float(self._logprobs[token])

    def top(self) -> list[tuple[int, float]]:
        """Return the likeliest tokens at the newest place, likeliest first."""
        values, tokens = self._logprobs.topk(self._top)
        return list(zip(tokens.tolist(), values.tolist(), strict=True))


def logits_processors(parameters: Parameters, prompt_length: int, device: torch.device) -> LogitsProcessorList:
    """Return the processors that shape one answer; temperature 0 is greedy, none given changes no logits."""
    processors = LogitsProcessorList()
    if parameters.repetition_penalty not in (None, 1.0):
        processors.append(RepetitionPenaltyLogitsProcessor(parameters.repetition_penalty))
    if parameters.presence_penalty or parameters.frequency_penalty:
        processors.append(
            PresenceAndFrequencyPenalty(
                parameters.presence_penalty or 0.0, parameters.frequency_penalty or 0.0, prompt_length
            )
        )
    if parameters.temperature is not None and parameters.temperature < GREEDY_BELOW:
        return processors
    if parameters.temperature not in (None, 1.0):
        processors.append(TemperatureLogitsWarper(parameters.temperature))
    if parameters.top_k:
        processors.append(TopKLogitsWarper(parameters.top_k))
    if parameters.top_p is not None and parameters.top_p < 1.0:
        processors.append(TopPLogitsWarper(parameters.top_p))
    if parameters.min_p:
        processors.append(MinPLogitsWarper(parameters.min_p))
    seed = secrets.randbits(63) if parameters.seed is None else parameters.seed
    processors.append(GumbelNoise(seed, device))
    return processors
