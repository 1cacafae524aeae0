"""How a model is loaded: the formats, what they take against what was estimated, and what is refused."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import DynamicCache, Gemma3ForCausalLM, Gemma3TextConfig, LlamaConfig, LlamaForCausalLM

from providers.errors import Cancelled, Rejected
from providers.int8 import FEW_ROWS, Int8Linear, to_int8
from providers.loading import folder_sizes, load_weights, make_plan, suggestion
from providers.local_folders import open_model_folder
from providers.memory import kv_bytes, weight_bytes
from providers.speed_probe import chat_seconds
from providers.transformers_local import TransformersProvider
from providers.types import ChatRequest, LoadOptions, Message, Parameters, ProviderSettings, TextDelta
from tests.conftest import BUNDLED
from tests.tiny_models import make_adapter, make_chat_model, make_plain_model

CPU = "cpu"


@pytest.mark.parametrize("rows", [1, FEW_ROWS, FEW_ROWS + 1, 300])
@pytest.mark.parametrize("outputs", [96, 70_000])
def test_an_int8_layer_computes_what_the_layer_did(rows: int, outputs: int) -> None:
    torch.manual_seed(0)
    linear = torch.nn.Linear(64, outputs, dtype=torch.bfloat16)
    given = torch.randn(2, rows, 64, dtype=torch.bfloat16)
    expected, found = linear(given).float(), Int8Linear(linear)(given).float()

    assert found.shape == expected.shape
    assert (found - expected).norm() / expected.norm() < 0.02


@pytest.mark.parametrize("tied", [True, False])
def test_an_int8_model_gives_nearly_the_same_probabilities(tied: bool) -> None:
    torch.manual_seed(0)
    config: Any = LlamaConfig(vocab_size=300, hidden_size=128, intermediate_size=256, num_hidden_layers=2,
                              num_attention_heads=2, num_key_value_heads=1, tie_word_embeddings=tied)  # fmt: skip
    model = LlamaForCausalLM(config).eval()
    tokens = torch.randint(0, 300, (1, 40))
    with torch.inference_mode():
        before = model(tokens).logits.softmax(-1)
        list(to_int8(model))
        after = model(tokens).logits.float().softmax(-1)

    assert (before - after).abs().max() < 0.02
    assert model.get_input_embeddings().weight.dtype == (torch.int8 if tied else torch.bfloat16)


@pytest.mark.parametrize(("precision", "quantization"), [("fp32", "none"), ("bf16", "none"), ("auto", "int8")])
@pytest.mark.parametrize("kind", ["starter", "untied", "gpt2"])
def test_weights_take_what_was_estimated(tmp_path: Path, kind: str, precision: str, quantization: str) -> None:
    makers: dict[str, Callable[[Path], Path]] = {"untied": make_chat_model, "gpt2": make_plain_model}
    folder = open_model_folder(makers[kind](tmp_path / kind) if kind in makers else BUNDLED / "starter")
    options = LoadOptions(device=CPU, precision=precision, quantization=quantization)
    sizes = folder_sizes(folder)
    if kind == "gpt2" and quantization == "int8":
        with pytest.raises(Rejected, match="quantization int8"):
            make_plan(folder, sizes, options)
        return
    plan = make_plan(folder, sizes, options)
    model = load_weights(folder, plan, _never())

    estimated = weight_bytes(sizes, plan.precision, plan.quantization)
    assert model.get_memory_footprint() == pytest.approx(estimated, rel=0.03)


@pytest.mark.parametrize("kind", ["grouped", "sliding"])
@pytest.mark.parametrize("tokens", [20, 200])
def test_the_cache_takes_what_was_estimated(kind: str, tokens: int) -> None:
    sizes: dict[str, Any] = {"vocab_size": 100, "hidden_size": 64, "intermediate_size": 64, "num_attention_heads": 4,
                             "num_key_value_heads": 2, "head_dim": 32}  # fmt: skip
    if kind == "grouped":
        model: Any = LlamaForCausalLM(LlamaConfig(num_hidden_layers=3, **sizes))
    else:
        model = Gemma3ForCausalLM(Gemma3TextConfig(num_hidden_layers=6, sliding_window=50, **sizes))
    cache = DynamicCache(config=model.config)
    with torch.inference_mode():
        model(torch.randint(0, 100, (1, tokens)), past_key_values=cache)
    held = sum(each.numel() * each.element_size() for layer in cache.layers for each in (layer.keys, layer.values))

    assert kv_bytes(model.config.to_dict(), tokens, 4) == pytest.approx(held, rel=0.03)


def test_the_probe_measures_every_format() -> None:
    seconds = chat_seconds()

    assert set(seconds) == {"float32", "bfloat16", "int8"}
    assert all(0 < value < math.inf for value in seconds.values())
    assert chat_seconds() is seconds


def test_small_models_stay_exact_and_large_ones_are_explained(tmp_path: Path) -> None:
    folder = open_model_folder(BUNDLED / "starter")
    plan = make_plan(folder, folder_sizes(folder), LoadOptions(device=CPU))

    assert plan.quantization == "none"
    assert "gains nothing" in str(plan.reason)
    assert suggestion(plan, folder_sizes(folder), 10**12) is None
    assert suggestion(plan, folder_sizes(folder), 1) is not None


@pytest.mark.parametrize("device", ["cuda:9", "mps", "spread"])
def test_a_device_that_is_not_there_is_refused(device: str) -> None:
    folder = open_model_folder(BUNDLED / "starter")
    if device == "mps" and torch.backends.mps.is_available():
        pytest.skip("it is there")
    with pytest.raises(Rejected, match="There is no"):
        make_plan(folder, folder_sizes(folder), LoadOptions(device=device))


async def test_a_model_answers_in_every_format_and_with_an_adapter(models_dir: Path, tmp_path: Path) -> None:
    settings = ProviderSettings(bundled_dir=BUNDLED, models_dir=models_dir, runs_dir=tmp_path)
    provider = TransformersProvider(settings)
    adapter = make_adapter(tmp_path / "run", models_dir / "tiny", "tiny") / "adapter-1"
    for quantization in ("int8", "nf4", "none"):
        loaded = await provider.load("tiny", LoadOptions(device=CPU, quantization=quantization, context_length=512))
        assert loaded.quantization == quantization
        assert loaded.context_length == 512
        texts = []
        for folder in (None, adapter, None):
            request = ChatRequest("tiny", (Message("user", "Hi"),), Parameters(max_tokens=8, temperature=0), folder)
            events = [event async for event in provider.stream(request)]
            texts.append("".join(event.text for event in events if isinstance(event, TextDelta)))
        assert texts[0] == texts[2] != texts[1]
    await provider.aclose()


async def test_a_load_can_be_cancelled_and_done_again(models_dir: Path, tmp_path: Path) -> None:
    import asyncio

    provider = TransformersProvider(ProviderSettings(BUNDLED, models_dir, tmp_path))
    load = asyncio.ensure_future(provider.load("slow", LoadOptions(device=CPU)))
    while "slow" not in provider._cancelled:
        await asyncio.sleep(0)
    provider.cancel_load("slow")
    with pytest.raises(Cancelled):
        await load

    assert provider.loaded() == []
    assert (await provider.load("slow", LoadOptions(device=CPU))).name == "slow"
    await provider.aclose()


def _never() -> Any:
    import threading

    return threading.Event()
