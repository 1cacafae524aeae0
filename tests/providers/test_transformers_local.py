"""The local engine against transformers itself."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from core.settings import ROOT
from providers.base import Provider
from providers.catalog import PROVIDERS, create_provider
from providers.errors import OutOfMemory, UpstreamFailure
from providers.local_folders import open_model_folder
from providers.local_model import AnswerCancelled, LocalModel
from providers.own_thread import NAME
from providers.transformers_local import TransformersProvider
from providers.types import (
    ChatRequest,
    Finished,
    LoadOptions,
    Message,
    Parameters,
    ProviderSettings,
    StreamEvent,
    TextDelta,
)

QUESTION = (Message("user", "Hola, ¿qué tal?"),)


@pytest.fixture(scope="module")
def tiny(models_dir: Path) -> LocalModel:
    return LocalModel("tiny", open_model_folder(models_dir / "tiny"), LoadOptions("cpu"))


def answer_of(model: LocalModel, messages: tuple[Message, ...], parameters: Parameters) -> list[StreamEvent]:
    events: list[StreamEvent] = []
    model.answer(ChatRequest(model.info.name, messages, parameters), events.append, threading.Event())
    return events


def text_of(events: list[StreamEvent]) -> str:
    return "".join(event.text for event in events if isinstance(event, TextDelta))


@pytest.mark.parametrize("name", ["tiny", "other", "starter"])
def test_temperature_0_is_what_bare_generate_writes(models_dir: Path, name: str) -> None:
    folder = ROOT / "models" / name if name == "starter" else models_dir / name
    model = LocalModel(name, open_model_folder(folder), LoadOptions("cpu"))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    bare = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, model.info.precision))
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": QUESTION[0].content}],
        add_generation_prompt=True,
        return_dict=True,
        return_tensors="pt",
    )
    tokens = bare.generate(**prompt, do_sample=False, max_new_tokens=80, pad_token_id=0)[0, prompt.input_ids.shape[1] :]
    expected = tokenizer.decode(tokens, skip_special_tokens=True)
    events = answer_of(model, QUESTION, Parameters(temperature=0, max_tokens=80))

    assert text_of(events) == expected.rstrip("\ufffd")
    assert isinstance(events[-1], Finished)
    assert events[-1].usage.completion_tokens == len(tokens)


async def test_the_thread_that_loaded_a_model_ends(models_dir: Path) -> None:
    provider = TransformersProvider(ProviderSettings(models_dir, models_dir, models_dir))

    def computing() -> list[str]:
        return [thread.name for thread in threading.enumerate() if thread.name.startswith(NAME)]

    loading = asyncio.ensure_future(provider.load("tiny", LoadOptions("cpu")))
    while not computing() and not loading.done():
        await asyncio.sleep(0)
    assert computing()
    await loading
    for _ in range(100):
        if computing():
            await asyncio.sleep(0.01)
    assert not computing()
    await provider.aclose()


def test_each_sampling_parameter_takes_effect(tiny: LocalModel) -> None:
    base = Parameters(temperature=1.0, seed=1, max_tokens=40)
    plain = text_of(answer_of(tiny, QUESTION, base))
    for changes in (
        {"temperature": 0.3},
        {"top_p": 0.3},
        {"top_k": 2},
        {"min_p": 0.5},
        {"repetition_penalty": 2.0},
        {"presence_penalty": 2.0},
        {"frequency_penalty": 2.0},
        {"seed": 2},
        {"max_tokens": 10},
    ):
        changed = text_of(answer_of(tiny, QUESTION, Parameters(**{**base.__dict__, **changes})))
        assert changed != plain, changes


def test_a_cancelled_answer_raises_before_the_next_layer(tiny: LocalModel) -> None:
    cancelled = threading.Event()
    events: list[StreamEvent] = []

    def emit(event: StreamEvent) -> None:
        events.append(event)
        cancelled.set()

    with pytest.raises(AnswerCancelled):
        tiny.answer(ChatRequest("tiny", QUESTION, Parameters(max_tokens=500)), emit, cancelled)

    assert len(events) == 1


def test_an_answer_after_a_cancelled_one_is_whole(tiny: LocalModel) -> None:
    parameters = Parameters(temperature=0, max_tokens=30)
    before = text_of(answer_of(tiny, QUESTION, parameters))
    cancelled = threading.Event()
    cancelled.set()
    with pytest.raises(AnswerCancelled):
        tiny.answer(ChatRequest("tiny", QUESTION, parameters), lambda _: None, cancelled)

    assert text_of(answer_of(tiny, QUESTION, parameters)) == before


@pytest.mark.parametrize(
    ("broken", "told"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), OutOfMemory),
        (MemoryError(), OutOfMemory),
        (RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes."), OutOfMemory),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), UpstreamFailure),
        (ValueError("a bug in a library"), UpstreamFailure),
        (IndexError("index out of range in self"), UpstreamFailure),
    ],
    ids=str,
)
def test_what_breaks_in_the_engine_is_told_as_a_sentence(
    models_dir: Path, broken: Exception, told: type[Exception]
) -> None:
    model = LocalModel("tiny", open_model_folder(models_dir / "tiny"), LoadOptions("cpu"))
    before = answer_of(model, QUESTION, Parameters(temperature=0, max_tokens=5))

    def breaks(*_: object) -> None:
        raise broken

    hook = torch.nn.modules.module.register_module_forward_pre_hook(breaks)
    try:
        with pytest.raises(told) as error:
            answer_of(model, QUESTION, Parameters(max_tokens=5))
    finally:
        hook.remove()

    assert str(broken) not in str(error.value) or not str(broken)
    assert answer_of(model, QUESTION, Parameters(temperature=0, max_tokens=5)) == before


def test_the_loaded_model_tells_its_real_size(tiny: LocalModel, models_dir: Path) -> None:
    bytes_each = 2 if tiny.info.precision == "bfloat16" else 4
    on_disk = (models_dir / "tiny/model.safetensors").stat().st_size

    assert tiny.info.device == "cpu"
    assert tiny.info.memory_bytes == pytest.approx(on_disk * bytes_each / 4, rel=0.05)
    assert tiny.info.context_length == 2048
    assert tiny.info.load_seconds > 0


def test_a_provider_is_made_by_its_key() -> None:
    settings = ProviderSettings(bundled_dir=Path("x"), models_dir=Path("y"), runs_dir=Path("z"))

    def other(key: str) -> Provider:
        return create_provider(key, settings, other)

    assert all(other(key).info.key == key for key in PROVIDERS)
    with pytest.raises(KeyError):
        other("nobody")
