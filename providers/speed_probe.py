"""Which number format this processor is fastest in, measured once: its instructions alone do not tell.

With AVX-512 bf16, one maker's processor reads bf16 weights twice as fast as fp32 and another's half as fast.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache, partial

import torch
from torch.nn import functional

from providers.int8 import KERNEL_TYPE

LAYERS, OUTPUTS, INPUTS = 3, 2048, 4096  # Larger than most caches, as a model is.
PROMPT_ROWS = 64
ANSWER_TOKENS = 64
ROUNDS = 10

Compute = Callable[[torch.Tensor], torch.Tensor]


@cache
def chat_seconds() -> dict[str, float]:
    """Return how long a prompt and its answer take in a few layers, by format: float32, bfloat16 and int8."""
    full = [torch.full((OUTPUTS, INPUTS), 0.5) for _ in range(LAYERS)]
    half = [weight.to(torch.bfloat16) for weight in full]
    whole = [torch.ones((OUTPUTS, INPUTS), dtype=torch.int8) for _ in range(LAYERS)]
    scale = torch.ones(OUTPUTS, dtype=KERNEL_TYPE)
    plain: list[Compute] = [partial(functional.linear, weight=weight) for weight in full]
    short: list[Compute] = [partial(functional.linear, weight=weight) for weight in half]
    token: dict[str, list[Compute]] = {
        "float32": plain,
        "bfloat16": short,
        "int8": [partial(_int8, weight=w, scale=scale) for w in whole],
    }
    # With int8 weights a prompt is computed over bf16 blocks, and so takes as long as with bf16 weights.
    prompt: dict[str, list[Compute]] = {"float32": plain, "bfloat16": short, "int8": short}
    with torch.inference_mode():
        for_token, for_prompt = _times(token, 1), _times(prompt, PROMPT_ROWS, ROUNDS // 3)
    return {name: ANSWER_TOKENS * for_token[name] + for_prompt[name] for name in token}


def _int8(rows: torch.Tensor, weight: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    return torch._weight_int8pack_mm(rows, weight, scale)


def _times(ways: dict[str, list[Compute]], rows: int, rounds: int = ROUNDS) -> dict[str, float]:
    """Return the least of several times of each way, in seconds: other programs only ever add to one.

    The ways take turns, so that what disturbs one disturbs all.
    """
    least = dict.fromkeys(ways, float("inf"))
    for _ in range(rounds):
        for name, layers in ways.items():
            given = torch.ones(rows, INPUTS, dtype=torch.float32 if name == "float32" else KERNEL_TYPE)
            start = time.perf_counter()
            for layer in layers:
                layer(given)
            least[name] = min(least[name], time.perf_counter() - start)
    return least
