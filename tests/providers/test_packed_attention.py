"""Packs against transformers itself: every architecture that takes them predicts what it predicts alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers

from providers.packed_attention import TokenCache, Work, forward, takes_packs

SIZES: dict[str, Any] = {
    "vocab_size": 300,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 256,
    "initializer_range": 0.3,
    "pad_token_id": 0,
}
TAKEN = {
    "llama": transformers.LlamaConfig(**SIZES),
    "qwen3": transformers.Qwen3Config(**SIZES),
    "qwen2": transformers.Qwen2Config(**SIZES),
    "mistral": transformers.MistralConfig(**SIZES, sliding_window=8),
    "gemma3": transformers.Gemma3TextConfig(**SIZES, sliding_window=8),
    "phi3": transformers.Phi3Config(**SIZES),
    "qwen3_moe": transformers.Qwen3MoeConfig(**SIZES, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=32),
    "gpt2": transformers.GPT2Config(vocab_size=300, n_embd=64, n_layer=3, n_head=4, initializer_range=0.3),
}
LEFT = {
    "bloom": transformers.BloomConfig(vocab_size=300, hidden_size=64, n_layer=2, n_head=4),
    "mamba": transformers.MambaConfig(vocab_size=300, hidden_size=64, num_hidden_layers=2),
    "gemma2": transformers.Gemma2Config(**SIZES),
    "dynamic": transformers.LlamaConfig(
        **SIZES, rope_parameters={"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}
    ),
}


def model_of(config: Any) -> Any:
    torch.manual_seed(0)
    return transformers.AutoModelForCausalLM.from_config(config).eval()


def prompt(seed: int, length: int) -> list[int]:
    return torch.randint(1, 300, (length,), generator=torch.Generator().manual_seed(seed)).tolist()


@pytest.mark.parametrize("name", TAKEN)
@torch.inference_mode()
def test_packs_in_pieces_predict_what_generate_writes(name: str) -> None:
    model = model_of(TAKEN[name])
    prompts = [prompt(seed, length) for seed, length in enumerate((5, 40, 23, 1))]
    alone = [
        model.generate(torch.tensor([each]), max_new_tokens=20, do_sample=False, eos_token_id=None)[0].tolist()
        for each in prompts
    ]
    assert takes_packs(model, model.config)
    texts, caches = [list(each) for each in prompts], [TokenCache() for _ in prompts]
    while any(len(text) < len(each) for text, each in zip(texts, alone, strict=True)):
        works, working = [], []
        for text, cache, whole in zip(texts, caches, alone, strict=True):
            if len(text) < len(whole):
                new = text[cache.length : cache.length + 7]
                works.append(Work(new, cache, int(cache.length + len(new) == len(text))))
                working.append(text)
        for text, work, logits in zip(working, works, forward(model, works), strict=True):
            work.cache.length += len(work.tokens)
            if work.places:
                text.append(int(logits[-1].argmax()))

    assert texts == alone


@pytest.mark.parametrize("name", LEFT)
@torch.inference_mode()
def test_what_does_not_take_packs_is_left_as_it_was(name: str) -> None:
    model = model_of(LEFT[name])
    before = model(input_ids=torch.tensor([prompt(0, 30)])).logits
    assert takes_packs(model, model.config) == 0

    assert torch.equal(model(input_ids=torch.tensor([prompt(0, 30)])).logits, before)


@torch.inference_mode()
def test_a_pass_that_fails_leaves_no_trace() -> None:
    model = model_of(TAKEN["llama"])
    takes_packs(model, model.config)
    cache, text = TokenCache(), prompt(1, 12)
    (expected,) = forward(model, [Work(text, TokenCache(), 12)])
    checks = iter([None, ValueError])

    def check() -> None:
        if error := next(checks):
            raise error

    with pytest.raises(ValueError):  # noqa: PT011
        forward(model, [Work(prompt(2, 9), cache, 1)], check)
    (found,) = forward(model, [Work(text, cache, 12)])

    assert cache.length == 0
    assert torch.equal(found, expected)


@torch.inference_mode()
def test_a_copy_goes_on_by_itself() -> None:
    model = model_of(TAKEN["llama"])
    takes_packs(model, model.config)
    one, text = TokenCache(), prompt(1, 30)
    forward(model, [Work(text, one, 0)])
    one.length = 30
    other = one.copy(20, reserve=600)
    (alone,) = forward(model, [Work(prompt(3, 4), other, 1)])
    (whole,) = forward(model, [Work(text[:20] + prompt(3, 4), TokenCache(), 1)])

    assert torch.allclose(alone, whole, atol=1e-4)
    assert (one.capacity, other.capacity) == (256, 768)
    assert other.nbytes == 3 * one.nbytes
