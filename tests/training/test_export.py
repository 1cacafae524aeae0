"""Models as GGUF files: what llama.cpp reads from them is what transformers computes."""

from __future__ import annotations

import json
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import gguf
import numpy
import pytest
import torch

from core.errors import InvalidRequest
from core.settings import ROOT
from providers.gguf_files import GgufFile
from providers.llama_cpp_engine import Engine, start_engine
from providers.transformers_local import TransformersProvider
from providers.types import ChatRequest, LoadOptions, Message, Parameters, ProviderSettings, TextDelta
from tests.tiny_models import make_adapter, make_chat_model, make_mergeable_model, make_plain_model
from training.export import FileType, export_gguf

STARTER = ROOT / "models" / "starter"
QUESTIONS = (
    "Who are you?",
    "¿Quién eres?",
    "Hello!",
    "¡Hola!",
    "What can I do here?",
    "¿Qué puedo hacer aquí?",
    "What is temperature?",
    "¿Qué es la temperatura?",
    "How do I change the model?",
    "¿Cómo cambio de modelo?",
    "Thank you",
    "Gracias",
    "Bye",
    "Adiós",
    "How do I fine-tune a model?",
    "¿Cómo afino un modelo?",
    "What is the capital of France?",
    "¿Cuál es la capital de España?",
    "Tell me a story about 2 + 2 = 4 🙂",
    "Cuéntame algo de la niñez",
)


SIZES: dict[str, Any] = {
    "vocab_size": 1792,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "head_dim": 64,
    "max_position_embeddings": 2048,
    "bos_token_id": 0,
    "pad_token_id": 1,
    "eos_token_id": 3,
}


def settings(folder: Path) -> ProviderSettings:
    return ProviderSettings(ROOT / "models", folder, folder, load_options=LoadOptions(device="cpu"))


async def answers(provider: Any, model: str, questions: tuple[str, ...] = QUESTIONS) -> list[str]:
    """Return greedy answers of at most 48 tokens."""
    texts = []
    for question in questions:
        request = ChatRequest(model, (Message("user", question),), Parameters(temperature=0, max_tokens=48))
        events = [event async for event in provider.stream(request)]
        texts.append("".join(event.text for event in events if isinstance(event, TextDelta)))
    return texts


@pytest.fixture
async def engines(tmp_path: Path) -> AsyncIterator[Any]:
    """Start llama.cpp on exported files; it ends with the test."""
    started: list[Engine] = []

    async def start(source: Path, file_type: FileType = "f32", adapter: Path | None = None) -> Engine:
        file = export_gguf(source, tmp_path / f"{source.name}-{file_type}-{len(started)}.gguf", file_type, adapter)
        started.append(
            await start_engine(GgufFile(file.stem, file, "folder"), LoadOptions(device="cpu"), settings(tmp_path))
        )
        return started[-1]

    yield start
    for engine in started:
        await engine.aclose()


async def test_the_starter_answers_as_in_transformers(engines: Any, tmp_path: Path) -> None:
    transformers = TransformersProvider(settings(tmp_path))
    expected = await answers(transformers, "starter")
    await transformers.aclose()

    assert await answers((await engines(STARTER, "f32")).api, "model") == expected
    assert await answers((await engines(STARTER, "f16")).api, "model") == expected


async def test_eight_bits_are_enough_to_say_who_it_is(engines: Any) -> None:
    engine = await engines(STARTER, "q8_0")

    assert all("simpleIA" in text for text in await answers(engine.api, "model", QUESTIONS[:2]))


async def test_the_prompt_has_as_many_tokens_as_in_transformers(engines: Any, tmp_path: Path) -> None:
    transformers = TransformersProvider(settings(tmp_path))
    engine = await engines(STARTER, "f16")
    for question in QUESTIONS:
        messages = (Message("system", "Sé breve, 123."), Message("user", question))
        assert await engine.count_tokens(messages) == await transformers.count_tokens(messages, "starter")
    await transformers.aclose()


async def test_a_merged_adapter_answers_as_beside_its_base(engines: Any, tmp_path: Path) -> None:
    base = make_mergeable_model(tmp_path / "tiny")
    make_adapter(tmp_path / "runs" / "tiny-1", base, "tiny")
    adapter = next((tmp_path / "runs" / "tiny-1").rglob("adapter_config.json")).parent
    transformers = TransformersProvider(settings(tmp_path))
    request = ChatRequest("tiny", (Message("user", "Hi"),), Parameters(temperature=0, max_tokens=24), adapter)
    events = [event async for event in transformers.stream(request)]
    expected = "".join(event.text for event in events if isinstance(event, TextDelta))
    alone = await answers(transformers, "tiny", ("Hi",))
    await transformers.aclose()
    merged = await answers((await engines(base, "f32", adapter)).api, "model", ("Hi",))

    assert merged[0][:24] == expected[:24]
    assert alone[0][:24] != expected[:24], "the adapter changes nothing"


def test_every_weight_is_in_the_file(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    source = make_mergeable_model(tmp_path / "tiny")
    reader = gguf.GGUFReader(export_gguf(source, tmp_path / "tiny.gguf", "f32"))
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    weights = load_file(source / "model.safetensors")

    assert len(tensors) == len(weights)
    embedding = tensors["token_embd.weight"].data.reshape(-1)
    assert numpy.array_equal(embedding, weights["model.embed_tokens.weight"].float().numpy().reshape(-1))
    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    assert reader.fields["llama.context_length"].contents() == config["max_position_embeddings"]
    assert "{% generation" not in str(reader.fields["tokenizer.chat_template"].contents())


def test_qwen3_is_written_without_rearranging(tmp_path: Path) -> None:
    source = make_qwen(tmp_path / "qwen")
    reader = gguf.GGUFReader(export_gguf(source, tmp_path / "qwen.gguf", "f32"))
    from safetensors.torch import load_file

    weights = load_file(source / "model.safetensors")
    tensors = {tensor.name: tensor.data.reshape(-1) for tensor in reader.tensors}
    query = weights["model.layers.0.self_attn.q_proj.weight"].float().numpy().reshape(-1)

    assert numpy.array_equal(tensors["blk.0.attn_q.weight"], query)
    assert "blk.0.attn_q_norm.weight" in tensors


async def test_qwen3_answers_as_in_transformers(engines: Any, tmp_path: Path) -> None:
    source = make_qwen(tmp_path / "qwen")
    transformers = TransformersProvider(settings(tmp_path))
    expected = await answers(transformers, "qwen", ("Hi", "What?"))
    await transformers.aclose()
    found = await answers((await engines(source, "f32")).api, "model", ("Hi", "What?"))

    assert [text[:16] for text in found] == [text[:16] for text in expected]


def edit(file: Path, **changes: Any) -> None:
    data = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps(data | changes), encoding="utf-8")


def make_qwen(folder: Path) -> Path:
    """Save a Qwen3 of 0.3 million weights with the starter's tokenizer: llama.cpp wants one that has merges."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    return _save(folder, Qwen3ForCausalLM(Qwen3Config(**SIZES, num_key_value_heads=1, tie_word_embeddings=False)))


def _save(folder: Path, model: Any) -> Path:
    torch.manual_seed(0)
    for weight in model.parameters():
        if weight.dim() > 1:
            torch.nn.init.normal_(weight, std=0.3)
    model.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(STARTER / name, folder / name)
    return folder


def test_what_cannot_be_written_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    target = tmp_path / "out" / "model.gguf"
    target.parent.mkdir()
    plain = make_plain_model(tmp_path / "plain")
    llama = make_mergeable_model(tmp_path / "llama")
    scaled = Path(shutil.copytree(llama, tmp_path / "scaled"))
    edit(scaled / "config.json", rope_parameters={"rope_type": "linear", "factor": 2.0, "rope_theta": 10000.0})
    strange = Path(shutil.copytree(llama, tmp_path / "strange"))
    edit(strange / "tokenizer.json", pre_tokenizer={"type": "Whitespace"})
    shallow = Path(shutil.copytree(llama, tmp_path / "shallow"))
    edit(shallow / "config.json", num_hidden_layers=3)
    deep = Path(shutil.copytree(llama, tmp_path / "deep"))
    edit(deep / "config.json", num_hidden_layers=1)
    bytewise = make_chat_model(tmp_path / "bytewise")
    for source in (bytewise, plain, scaled, strange, shallow, deep):
        with pytest.raises(InvalidRequest) as refused:
            export_gguf(source, target)
        assert refused.value.hint
        assert list(target.parent.iterdir()) == [], source.name


def test_an_adapter_that_is_no_plain_lora_is_refused(tmp_path: Path) -> None:
    base = make_mergeable_model(tmp_path / "tiny")
    make_adapter(tmp_path / "runs" / "tiny-1", base, "tiny")
    adapter = next((tmp_path / "runs" / "tiny-1").rglob("adapter_config.json"))
    edit(adapter, use_dora=True)
    with pytest.raises(InvalidRequest, match="no plain LoRA"):
        export_gguf(base, tmp_path / "out.gguf", "f16", adapter.parent)
    assert not (tmp_path / "out.gguf").exists()
