"""Answers that follow a JSON schema: llguidance says at each step which tokens may come next.

Source: the llguidance project (guidance-ai), whose grammars vLLM, SGLang and llama.cpp use too.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import llguidance
import torch
from llguidance.hf import from_tokenizer
from transformers import LogitsProcessor, PreTrainedTokenizerBase

from providers.errors import Rejected
from providers.sentences import say


class SchemaGrammar:
    """Knows a tokenizer's tokens; making one takes about a second for a large vocabulary."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, end_tokens: frozenset[int]) -> None:
        self._tokenizer = from_tokenizer(tokenizer, eos_token=sorted(end_tokens) or None)

    def follow(self, schema: Mapping[str, Any]) -> FollowSchema:
        """Return the processor for one answer. Raises Rejected for a schema that cannot be followed."""
        try:
            grammar = llguidance.LLMatcher.grammar_from_json_schema(
                json.dumps(dict(schema)), overrides={"whitespace_flexible": False}
            )
            problem = llguidance.LLMatcher.validate_grammar(grammar, self._tokenizer)
        except ValueError as error:
            problem = str(error)
        if problem:
            raise Rejected(
                say("This JSON schema cannot be followed: {reason}.", reason=_first_line(problem)),
                provider="transformers",
                hint=say("Simplify it, or leave it out."),
            )
        return FollowSchema(llguidance.LLMatcher(self._tokenizer, grammar), self._tokenizer.vocab_size)


class FollowSchema(LogitsProcessor):
    """Forbids every token after which the answer could not follow the schema any more."""

    def __init__(self, matcher: Any, vocabulary: int) -> None:
        self._matcher = matcher
        self._vocabulary = vocabulary
        self._begun = False

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Mask scores (1, vocabulary) by the tokens of the answer so far, the newest of which is in `input_ids`."""
        if self._begun:
            self._matcher.consume_token(int(input_ids[0, -1]))
        self._begun = True
        # Not llguidance.torch, whose kernel is compiled on first use and needs a compiler on the person's machine.
        allowed = torch.frombuffer(bytearray(self._matcher.compute_logit_bias()), dtype=torch.uint8) > 0
        masked = torch.full_like(scores, -torch.inf)
        size = min(self._vocabulary, scores.shape[-1])
        places = allowed[:size].to(scores.device)
        masked[0, :size][places] = scores[0, :size][places]
        return masked


def _first_line(problem: str) -> str:
    return problem.strip().splitlines()[0][:200].rstrip(".")
