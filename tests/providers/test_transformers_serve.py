"""OpenAI's client and huggingface_hub's on `transformers serve`, a server that neither of them was written with."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from core.settings import ROOT
from providers.base import Provider
from providers.catalog import create_provider
from providers.transformers_local import TransformersProvider
from providers.types import (
    ChatRequest,
    Endpoint,
    Finished,
    LoadOptions,
    Message,
    Parameters,
    ProviderSettings,
    TextDelta,
)
from tests.serving import transformers_serve

MODEL = "models/starter"
QUESTION = (Message("user", "¿Quién eres?"),)


@pytest.fixture(scope="module")
def serve_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of `transformers serve` with the starter."""
    with transformers_serve(MODEL, tmp_path_factory.mktemp("cache")) as url:
        yield url


@pytest.fixture(params=["openai", "huggingface"])
async def provider(request: pytest.FixtureRequest, serve_url: str) -> AsyncIterator[Provider]:
    """Each client in turn."""
    endpoint = Endpoint("serve", request.param, serve_url)
    settings = ProviderSettings(Path(), Path(), Path(), endpoints=(endpoint,))
    provider = create_provider("serve", settings, lambda name: pytest.fail(name))
    yield provider
    await provider.aclose()


async def test_it_answers_as_in_this_process(provider: Provider, tmp_path: Path) -> None:
    here = TransformersProvider(
        ProviderSettings(ROOT / "models", tmp_path, tmp_path, load_options=LoadOptions(device="cpu"))
    )
    parameters = Parameters(temperature=0.0, max_tokens=30)
    texts = []
    for asked, model in ((here, "starter"), (provider, MODEL)):
        events = [event async for event in asked.stream(ChatRequest(model, QUESTION, parameters))]
        texts.append("".join(event.text for event in events if isinstance(event, TextDelta)))
        assert isinstance(events[-1], Finished)
        assert events[-1].reason == "length"
        assert events[-1].usage.completion_tokens == 30
    await here.aclose()

    assert texts[0][:40] == texts[1][:40]


async def test_an_answer_comes_in_pieces_and_ends_by_itself(provider: Provider) -> None:
    request = ChatRequest(MODEL, QUESTION, Parameters(temperature=0.0, max_tokens=200))
    events = [event async for event in provider.stream(request)]

    assert sum(isinstance(event, TextDelta) for event in events) > 5
    assert isinstance(events[-1], Finished)
    assert events[-1].reason == "stop"
    assert events[-1].usage.prompt_tokens > 5


async def test_leaving_an_answer_leaves_the_server_good(provider: Provider) -> None:
    events = provider.stream(ChatRequest(MODEL, QUESTION, Parameters(max_tokens=400)))
    while not isinstance(await anext(events), TextDelta):
        pass
    await events.aclose()
    again = [event async for event in provider.stream(ChatRequest(MODEL, QUESTION, Parameters(max_tokens=5)))]

    assert isinstance(again[-1], Finished)
