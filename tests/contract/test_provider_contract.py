"""What every provider keeps. A new provider is a line in the catalog and a fixture `<key>_subject` here."""

from __future__ import annotations

import asyncio
import gc
import json
import subprocess
import sys
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import fields
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from core.settings import ROOT
from providers.base import LocalProvider, Provider
from providers.catalog import PROVIDERS, create_provider
from providers.errors import ContextTooLong, ModelNotFound
from providers.types import (
    ChatRequest,
    Endpoint,
    Finished,
    LoadOptions,
    Message,
    Notice,
    Parameters,
    Pool,
    ProviderSettings,
    ReasoningDelta,
    StreamEvent,
    TextDelta,
)
from tests.engine_watch import EngineWatch
from tests.serving import cached_model, transformers_serve
from tests.tiny_models import SLOW_LAYERS, make_adapter, make_mergeable_model
from tests.wire import talker
from tests.wire.gemini import GeminiWire
from tests.wire.loopback import wire_server
from tests.wire.ollama import NAME as OLLAMA_NAME
from tests.wire.ollama import OllamaWire
from tests.wire.openai import OpenAIWire
from training.export import export_gguf

LOCAL = ("transformers", "llama_cpp")
# Clients of the catalog on a second server, which neither of them was written with.
ON_SERVE = ("openai_serve", "huggingface_serve")
KEY = "sk-contract-0123456789"
GREETING = (Message("system", "Be brief."), Message("user", "Hola, ¿qué tal? 👋"))
LONG_PROMPT = (Message("user", "x" * 10_000),)


class Subject(NamedTuple):
    """A provider and a model of it that writes at least 60 tokens of anything; `members` are closed with it."""

    provider: Provider
    model: str
    members: tuple[Provider, ...] = ()
    is_llama_cpp: bool = False
    is_serve: bool = False


MakeSubject = Callable[[], Subject]


class LocalSubject(NamedTuple):
    """A provider with `resident` models in memory at most, and three small models of it and a slow one."""

    make: Callable[..., LocalProvider]
    models: tuple[str, str, str]
    slow: str


@pytest.fixture(scope="module")
def transformers_local_subject(models_dir: Path) -> LocalSubject:
    """Random weights, made on the spot."""

    def make(resident: int = 2, parallel: int = 4) -> LocalProvider:
        provider = create_provider(
            "transformers",
            ProviderSettings(
                bundled_dir=ROOT / "models",
                models_dir=models_dir,
                runs_dir=models_dir.parent / "runs",
                load_options=LoadOptions(device="cpu"),
                resident_models=resident,
                parallel_answers=parallel,
            ),
            alone,
        )
        assert isinstance(provider, LocalProvider)
        return provider

    return LocalSubject(make, ("tiny", "other", "plain"), "slow")


@pytest.fixture(scope="module")
def transformers_subject(transformers_local_subject: LocalSubject) -> Iterator[Subject]:
    """One provider for the tests that only ask."""
    provider = transformers_local_subject.make()
    yield Subject(provider, transformers_local_subject.models[0])
    asyncio.run(provider.aclose())


@pytest.fixture(scope="module")
def tuned_subject(
    transformers_local_subject: LocalSubject, models_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Subject]:
    """An adapter on a model that another provider holds."""
    engine = transformers_local_subject.make()
    runs = tmp_path_factory.mktemp("runs")
    make_adapter(runs / "tiny-1", models_dir / "tiny", "tiny")
    settings = ProviderSettings(bundled_dir=ROOT / "models", models_dir=models_dir, runs_dir=runs)
    yield Subject(create_provider("tuned", settings, lambda _: engine), "tiny-1")
    asyncio.run(engine.aclose())


@pytest.fixture(scope="module")
def gguf_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three small random models as GGUF files, a slow one, and a broken one."""
    folder = tmp_path_factory.mktemp("gguf")
    weights = tmp_path_factory.mktemp("weights")
    for seed, name in enumerate(("one", "two", "three")):
        export_gguf(make_mergeable_model(weights / name, seed), folder / f"{name}.gguf", "f32")
    export_gguf(make_mergeable_model(weights / "slow", layers=200, context_length=16_384), folder / "slow.gguf", "f32")
    (folder / "corrupt.gguf").write_bytes((folder / "one.gguf").read_bytes()[:100_000])
    return folder


@pytest.fixture(scope="module")
def llama_cpp_local_subject(gguf_dir: Path) -> LocalSubject:
    """llama.cpp on random weights."""

    def make(resident: int = 2, parallel: int = 4) -> LocalProvider:
        settings = ProviderSettings(
            bundled_dir=gguf_dir,
            models_dir=gguf_dir,
            runs_dir=gguf_dir,
            load_options=LoadOptions(device="cpu"),
            resident_models=resident,
            parallel_answers=parallel,
        )
        provider = create_provider("llama_cpp", settings, alone)
        assert isinstance(provider, LocalProvider)
        return provider

    return LocalSubject(make, ("one", "two", "three"), "slow")


@pytest.fixture(scope="module")
def llama_cpp_subject(llama_cpp_local_subject: LocalSubject) -> MakeSubject:
    """llama.cpp on random weights; its connections belong to one event loop."""
    return lambda: Subject(llama_cpp_local_subject.make(), "one", is_llama_cpp=True)


@pytest.fixture(scope="module")
def llama_server(gguf_dir: Path) -> Iterator[str]:
    """The address of llama.cpp's own HTTP server, which speaks OpenAI's protocol and Anthropic's."""
    process = subprocess.Popen(
        [sys.executable, "-m", "providers.llama_cpp_server"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    options = {"path": str(gguf_dir / "one.gguf"), "key": KEY, "context_length": 2048}
    try:
        assert process.stdin
        assert process.stdout
        process.stdin.write(json.dumps(options | {"parallel": 4, "gpu_layers": 0, "threads": 2}) + "\n")
        process.stdin.flush()
        yield json.loads(process.stdout.readline())["address"]
    finally:
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def openai_subject(llama_server: str) -> MakeSubject:
    """OpenAI's client on llama.cpp's server."""
    return lambda: remote("openai", f"{llama_server}/v1", "model")._replace(is_llama_cpp=True)


@pytest.fixture(scope="module")
def huggingface_subject(llama_server: str) -> MakeSubject:
    """huggingface_hub's client on llama.cpp's server."""
    return lambda: remote("huggingface", f"{llama_server}/v1", "model")._replace(is_llama_cpp=True)


@pytest.fixture(scope="module")
def served_model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """The address of `transformers serve`, and a random model of its cache that it serves."""
    cache = tmp_path_factory.mktemp("cache")
    make_mergeable_model(cached_model(cache, "tests/one"), samples=True)
    with transformers_serve("tests/one", cache) as url:
        yield url, "tests/one"


@pytest.fixture(scope="module")
def openai_serve_subject(served_model: tuple[str, str]) -> MakeSubject:
    """OpenAI's client on `transformers serve`."""
    return lambda: remote("openai", *served_model, 2048)._replace(is_serve=True)


@pytest.fixture(scope="module")
def huggingface_serve_subject(served_model: tuple[str, str]) -> MakeSubject:
    """huggingface_hub's client on `transformers serve`."""
    return lambda: remote("huggingface", *served_model, 2048)._replace(is_serve=True)


@pytest.fixture(scope="module")
def anthropic_subject(llama_server: str) -> MakeSubject:
    """Anthropic's client on llama.cpp's server."""
    return lambda: remote("anthropic", llama_server, "model")._replace(is_llama_cpp=True)


@pytest.fixture(scope="module")
def gemini_subject() -> Iterator[MakeSubject]:
    """Google's client on a scripted server."""
    with wire_server(GeminiWire()) as server:
        yield lambda: remote("gemini", server.url, talker.MODEL)


@pytest.fixture(scope="module")
def ollama_subject() -> Iterator[MakeSubject]:
    """Ollama's client on a scripted server."""
    with wire_server(OllamaWire()) as server:
        yield lambda: remote("ollama", server.url, OLLAMA_NAME)


@pytest.fixture(scope="module")
def pool_subject() -> Iterator[MakeSubject]:
    """A pool of two scripted servers."""
    with wire_server(OpenAIWire()) as one, wire_server(OpenAIWire()) as two:
        endpoints = (Endpoint("one", "openai", one.url), Endpoint("two", "openai", two.url))
        pool = Pool("both", (f"one/{talker.MODEL}", f"two/{talker.MODEL}"))
        settings = ProviderSettings(Path(), Path(), Path(), endpoints=endpoints, pools=(pool,))

        def make() -> Subject:
            members = {name: create_provider(name, settings, alone) for name in ("one", "two")}
            return Subject(create_provider("pool", settings, members.__getitem__), "both", tuple(members.values()))

        yield make


def remote(protocol: str, url: str, model: str, context_length: int | None = None) -> Subject:
    """Return a provider that talks to an address of a test."""
    endpoint = Endpoint(protocol, protocol, url, KEY, context_length=context_length)
    settings = ProviderSettings(Path(), Path(), Path(), endpoints=(endpoint,))
    return Subject(create_provider(protocol, settings, alone), model)


def alone(key: str) -> Provider:
    """Stand for the other providers where there are none."""
    raise KeyError(key)


@pytest.fixture(params=(*sorted(PROVIDERS), *ON_SERVE))
async def subject(request: pytest.FixtureRequest) -> AsyncIterator[Subject]:
    """Each provider of the catalog in turn; those with connections are made for each test."""
    made: Subject | MakeSubject = request.getfixturevalue(f"{request.param}_subject")
    if isinstance(made, Subject):
        yield made
        return
    subject = made()
    yield subject
    for provider in (subject.provider, *subject.members):
        await provider.aclose()


@pytest.fixture(params=("transformers", "tuned", "llama_cpp"))
async def limited(request: pytest.FixtureRequest) -> AsyncIterator[Subject]:
    """Those that have the weights on this machine, so that they know where the context ends."""
    made: Subject | MakeSubject = request.getfixturevalue(f"{request.param}_subject")
    subject = made if isinstance(made, Subject) else made()
    yield subject
    if not isinstance(made, Subject):
        await subject.provider.aclose()


@pytest.fixture(params=("transformers",))
def torch_local(request: pytest.FixtureRequest) -> LocalSubject:
    """Each provider in turn whose engine is torch in this process."""
    subject: LocalSubject = request.getfixturevalue(f"{request.param}_local_subject")
    return subject


@pytest.fixture(params=LOCAL)
def local(request: pytest.FixtureRequest) -> LocalSubject:
    """Each provider in turn whose weights are in this process."""
    subject: LocalSubject = request.getfixturevalue(f"{request.param}_local_subject")
    return subject


@pytest.fixture
async def closing() -> AsyncIterator[list[Provider]]:
    """Providers to close after the test."""
    providers: list[Provider] = []
    yield providers
    for provider in providers:
        await provider.aclose()


def asked(subject: Subject, messages: tuple[Message, ...] = GREETING, **parameters: object) -> ChatRequest:
    values: dict[str, object] = {"max_tokens": 40, "temperature": 0.0}
    return ChatRequest(subject.model, messages, Parameters(**(values | parameters)))  # type: ignore[arg-type]


async def all_events(provider: Provider, request: ChatRequest) -> list[StreamEvent]:
    return [event async for event in provider.stream(request)]


def text_of(events: list[StreamEvent]) -> str:
    return "".join(event.text for event in events if isinstance(event, TextDelta))


def end_of(events: list[StreamEvent]) -> Finished:
    assert isinstance(events[-1], Finished)
    return events[-1]


async def answer(subject: Subject, messages: tuple[Message, ...] = GREETING, **parameters: object) -> str:
    return text_of(await all_events(subject.provider, asked(subject, messages, **parameters)))


@contextmanager
def without_garbage_collection() -> Iterator[None]:
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def living_weights() -> list[torch.nn.Parameter]:
    return [thing for thing in gc.get_objects() if type(thing) is torch.nn.Parameter]


async def until_text(events: AsyncGenerator[StreamEvent, None]) -> None:
    while not isinstance(await anext(events), TextDelta):
        pass


async def test_deltas_come_first_and_finished_last_and_once(subject: Subject) -> None:
    events = await all_events(subject.provider, asked(subject))

    kinds = [type(event) for event in events]
    assert kinds[-1] is Finished
    assert kinds.count(Finished) == 1
    assert kinds.count(TextDelta) > 1, "the answer is streamed"
    assert set(kinds) <= {TextDelta, ReasoningDelta, Notice, Finished}
    assert all(event.text for event in events if isinstance(event, TextDelta))


async def test_usage_counts_the_tokens_read_and_written(subject: Subject) -> None:
    usage = end_of(await all_events(subject.provider, asked(subject, max_tokens=17))).usage
    longer = end_of(await all_events(subject.provider, asked(subject, (*GREETING, *GREETING[1:]), max_tokens=17))).usage

    assert usage.completion_tokens == 17
    assert longer.prompt_tokens > usage.prompt_tokens > 0


async def test_count_tokens_is_what_usage_says(subject: Subject) -> None:
    counted = await subject.provider.count_tokens(GREETING, subject.model)
    usage = end_of(await all_events(subject.provider, asked(subject, max_tokens=1))).usage

    if subject.provider.capabilities(subject.model).exact_token_count:
        assert counted == usage.prompt_tokens
    else:
        assert 1 / 3 < counted / usage.prompt_tokens < 3


async def test_text_is_whole_characters(subject: Subject) -> None:
    for seed in range(5):
        events = await all_events(subject.provider, asked(subject, temperature=1.5, seed=seed, max_tokens=60))
        for event in events:
            if isinstance(event, TextDelta):
                event.text.encode()
                assert not event.text.endswith("\ufffd"), "a character was cut"


async def test_max_tokens_ends_with_length(subject: Subject) -> None:
    end = end_of(await all_events(subject.provider, asked(subject, max_tokens=5)))

    assert end.reason == "length"
    assert end.usage.completion_tokens == 5


async def test_a_stop_sequence_ends_the_answer_before_it(subject: Subject) -> None:
    whole = await answer(subject)
    for start in range(2, len(whole) // 2, 3):
        stop = whole[start : start + 4]
        events = await all_events(subject.provider, asked(subject, stop=(stop,)))

        assert text_of(events) == whole[: whole.index(stop)]
        assert end_of(events).reason == "stop"
        assert end_of(events).usage.completion_tokens < 40


async def test_the_earliest_of_several_stop_sequences_counts(subject: Subject) -> None:
    whole = await answer(subject)
    first, second = whole[5:8], whole[14:17]

    assert await answer(subject, stop=(second, "never written", first)) == whole[: whole.index(first)]


async def test_a_stop_sequence_that_only_begins_is_not_lost(subject: Subject) -> None:
    if subject.is_llama_cpp:
        pytest.xfail("llama.cpp's server drops what it held back for a stop sequence when max_tokens comes first")
    whole = await answer(subject)

    assert await answer(subject, stop=(whole[-3:] + "and more",)) == whole


async def test_the_same_seed_writes_the_same_text(subject: Subject) -> None:
    if "seed" not in subject.provider.capabilities(subject.model).parameters:
        pytest.skip("this protocol has no seed")
    texts = [await answer(subject, temperature=1.0, seed=7) for _ in range(2)]
    others = {await answer(subject, temperature=1.0, seed=seed) for seed in range(4)}

    assert texts[0] == texts[1]
    assert len(others) == 4


async def test_without_a_seed_answers_differ(subject: Subject) -> None:
    assert await answer(subject, temperature=1.0) != await answer(subject, temperature=1.0)


async def test_temperature_0_takes_no_chances(subject: Subject) -> None:
    assert len({await answer(subject, seed=seed) for seed in (None, 1, 2)}) == 1


async def test_capabilities_name_parameters_and_the_rest_is_noticed(subject: Subject) -> None:
    taken = subject.provider.capabilities(subject.model).parameters
    values = {"stop": ("x",), "temperature": 0.5, "top_p": 0.5, "min_p": 0.1, "repetition_penalty": 1.2}
    names = {field.name for field in fields(Parameters)}

    assert taken <= names
    for name in names - taken:
        events = await all_events(subject.provider, asked(subject, GREETING, **{name: values.get(name, 1)}))
        assert any(isinstance(event, Notice) and name in str(event.sentence) for event in events)


async def test_two_streams_at_once_are_those_of_each_alone(subject: Subject) -> None:
    has_seed = "seed" in subject.provider.capabilities(subject.model).parameters
    # llama.cpp rounds differently in a batch with others: by chance, or far into an answer, a token then changes.
    # `transformers serve` has one source of chance for all.
    rounds = subject.is_llama_cpp or subject.is_serve
    chance: dict[str, object] = {"temperature": 1.0, "seed": 3} if has_seed and not rounds else {}
    questions = [
        asked(subject, (Message("user", f"Question {number}"),), max_tokens=16 if rounds else 60, **chance)
        for number in range(4)
    ]
    alone = [text_of(await all_events(subject.provider, question)) for question in questions]
    together = await asyncio.gather(*(all_events(subject.provider, question) for question in questions))

    assert len(set(alone)) == 4
    assert [text_of(events) for events in together] == alone


async def test_streams_at_once_take_turns(subject: Subject) -> None:
    async with (
        aclosing(subject.provider.stream(asked(subject, max_tokens=200))) as one,
        aclosing(subject.provider.stream(asked(subject, max_tokens=200))) as two,
    ):
        await asyncio.wait_for(asyncio.gather(until_text(one), until_text(two)), 60)


async def test_closing_one_stream_leaves_the_other(subject: Subject) -> None:
    whole = await answer(subject, max_tokens=60)
    left = subject.provider.stream(asked(subject, max_tokens=200))
    await until_text(left)
    kept = asyncio.create_task(all_events(subject.provider, asked(subject, max_tokens=60)))
    await left.aclose()

    assert text_of(await kept) == whole


async def test_counting_while_answering_disturbs_neither(subject: Subject) -> None:
    whole = await answer(subject, max_tokens=60)
    counted = await subject.provider.count_tokens(GREETING, subject.model)
    results = await asyncio.gather(
        *(answer(subject, max_tokens=60) for _ in range(3)),
        *(subject.provider.count_tokens(GREETING, subject.model) for _ in range(20)),
    )

    assert results == [whole] * 3 + [counted] * 20


@pytest.mark.parametrize("name", ["", "no such model!", "../tiny", "a/b/c", "/nowhere/at/all", "~", "x" * 300])
async def test_an_unknown_model_is_not_found(subject: Subject, name: str) -> None:
    with pytest.raises(ModelNotFound) as stream_error:
        await all_events(subject.provider, ChatRequest(name, GREETING))
    with pytest.raises(ModelNotFound):
        await subject.provider.find_model(name)

    assert str(stream_error.value).endswith(".")


async def test_the_model_is_listed(subject: Subject) -> None:
    listed = {model.name: model for model in await subject.provider.list_models()}

    assert listed[subject.model].provider == subject.provider.info.key
    assert (await subject.provider.find_model(subject.model)).name == subject.model


async def test_a_prompt_longer_than_the_context_is_refused(subject: Subject) -> None:
    if subject.is_serve:
        pytest.xfail("transformers serve reads beyond a model's context")
    await answer(subject, max_tokens=1)
    limit = (await subject.provider.find_model(subject.model)).context_length
    assert limit is not None
    with pytest.raises(ContextTooLong, match=str(limit)):
        await answer(subject, (Message("user", "word " * limit),))


async def test_an_answer_that_reaches_the_context_says_so(limited: Subject) -> None:
    await answer(limited, max_tokens=1)
    limit = (await limited.provider.find_model(limited.model)).context_length
    assert limit is not None
    question = (Message("user", "x" * (limit // 2)),)
    events = await all_events(limited.provider, asked(limited, question, max_tokens=100_000))

    assert end_of(events).reason == "length"
    assert end_of(events).usage.prompt_tokens + end_of(events).usage.completion_tokens == limit
    assert any(isinstance(event, Notice) and str(limit) in str(event.sentence) for event in events)


async def test_closing_ends_the_engine_within_a_token(
    torch_local: LocalSubject, closing: list[Provider], engine: EngineWatch
) -> None:
    provider = torch_local.make()
    closing.append(provider)
    events = provider.stream(ChatRequest(torch_local.slow, GREETING, Parameters(temperature=0, max_tokens=4000)))
    await until_text(events)
    await events.aclose()

    assert engine.layers_until_quiet() <= SLOW_LAYERS


async def test_closing_in_the_prompt_phase_ends_the_engine(
    torch_local: LocalSubject, closing: list[Provider], engine: EngineWatch
) -> None:
    provider = torch_local.make()
    closing.append(provider)
    await provider.load(torch_local.slow)
    loading = engine.layers
    events = provider.stream(ChatRequest(torch_local.slow, LONG_PROMPT, Parameters(max_tokens=1)))
    first = asyncio.ensure_future(anext(events))
    await asyncio.to_thread(engine.wait_until_busy)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    await events.aclose()

    assert engine.layers_until_quiet() <= 1
    assert engine.layers - loading < SLOW_LAYERS / 2


async def test_a_closed_stream_gives_its_place_to_the_next(
    torch_local: LocalSubject, closing: list[Provider], engine: EngineWatch
) -> None:
    provider = torch_local.make(parallel=1)
    closing.append(provider)
    slow = ChatRequest(torch_local.slow, LONG_PROMPT, Parameters(max_tokens=1))
    quick = ChatRequest(torch_local.models[0], GREETING, Parameters(max_tokens=3))
    await provider.load(torch_local.slow)
    await provider.load(torch_local.models[0])
    events = provider.stream(slow)
    first = asyncio.ensure_future(anext(events))
    await asyncio.to_thread(engine.wait_until_busy)
    waiting = asyncio.ensure_future(all_events(provider, quick))
    never_begun = asyncio.ensure_future(all_events(provider, slow))
    first.cancel()
    never_begun.cancel()
    await asyncio.gather(first, never_begun, return_exceptions=True)
    await events.aclose()

    assert end_of(await asyncio.wait_for(waiting, 5)).usage.completion_tokens == 3


async def test_many_ask_and_the_model_is_loaded_once(local: LocalSubject, closing: list[Provider]) -> None:
    provider = local.make()
    closing.append(provider)
    loaded = await asyncio.gather(*(provider.load(local.models[0]) for _ in range(8)))

    assert len({id(model) for model in loaded}) == 1
    assert loaded[0].memory_bytes > 0
    assert [model.name for model in provider.loaded()] == [local.models[0]]


async def test_who_leaves_does_not_stop_the_load_of_the_others(local: LocalSubject, closing: list[Provider]) -> None:
    provider = local.make()
    closing.append(provider)
    first = asyncio.ensure_future(provider.load(local.models[0]))
    second = asyncio.ensure_future(provider.load(local.models[0]))
    await asyncio.sleep(0)
    first.cancel()

    assert (await second).name == local.models[0]


async def test_unload_gives_the_memory_back_at_once(torch_local: LocalSubject, closing: list[Provider]) -> None:
    provider = torch_local.make()
    closing.append(provider)
    gc.collect()
    before = {id(weight) for weight in living_weights()}
    await all_events(provider, ChatRequest(torch_local.models[0], GREETING, Parameters(max_tokens=2)))
    weights = [weakref.ref(weight) for weight in living_weights() if id(weight) not in before]
    assert weights
    with without_garbage_collection():
        await provider.unload(torch_local.models[0])
        for _ in range(10):
            await asyncio.sleep(0)
        assert [weight for weight in weights if weight() is not None] == []
    assert provider.loaded() == []


async def test_the_model_used_longest_ago_leaves(local: LocalSubject, closing: list[Provider]) -> None:
    provider = local.make(resident=2)
    closing.append(provider)
    one, two, three = local.models
    await provider.load(one)
    await provider.load(two)
    await provider.load(one)
    await provider.load(three)

    assert {model.name for model in provider.loaded()} == {one, three}


async def test_loads_at_once_keep_the_limit(local: LocalSubject, closing: list[Provider]) -> None:
    provider = local.make(resident=1)
    closing.append(provider)
    await asyncio.gather(*(provider.load(model) for model in local.models))

    assert len(provider.loaded()) == 1


async def test_a_model_that_answers_never_leaves(local: LocalSubject, closing: list[Provider]) -> None:
    provider = local.make(resident=1)
    closing.append(provider)
    one, two, _ = local.models
    async with aclosing(
        provider.stream(ChatRequest(local.slow, GREETING, Parameters(temperature=0, max_tokens=4000)))
    ) as events:
        await until_text(events)
        await provider.load(one)
        assert local.slow in {model.name for model in provider.loaded()}
        await until_text(events)
    await provider.load(two)

    assert {model.name for model in provider.loaded()} == {two}


async def test_models_loaded_at_once_are_those_loaded_alone(local: LocalSubject, closing: list[Provider]) -> None:
    alone = []
    for model in local.models:
        provider = local.make()
        closing.append(provider)
        alone.append(await answer(Subject(provider, model)))
    for _ in range(3):
        provider = local.make(resident=3)
        closing.append(provider)
        together = await asyncio.gather(*(answer(Subject(provider, model)) for model in local.models))

        assert together == alone


async def test_a_load_changes_nothing_in_an_answer_that_runs(local: LocalSubject, closing: list[Provider]) -> None:
    provider = local.make(resident=2)
    closing.append(provider)
    one, two, _ = local.models
    alone = await answer(Subject(provider, one), max_tokens=400, temperature=1.0, seed=1)
    beside = asyncio.ensure_future(answer(Subject(provider, one), max_tokens=400, temperature=1.0, seed=1))
    while not beside.done():
        await provider.load(two)
        await provider.unload(two)

    assert await beside == alone


async def test_a_failed_load_leaves_the_model_before(
    local: LocalSubject, closing: list[Provider], models_dir: Path
) -> None:
    provider = local.make(resident=2)
    closing.append(provider)
    await provider.load(local.models[0])
    await provider.load(local.models[1])
    with pytest.raises(ModelNotFound):
        await provider.load("corrupt")

    assert local.models[1] in [model.name for model in provider.loaded()]
