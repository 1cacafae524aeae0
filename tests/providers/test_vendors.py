"""What each vendor is sent, and what is read from it: thinking, pictures, parameters, embeddings, schemas."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from providers.base import Provider
from providers.catalog import create_provider
from providers.errors import MissingKey, ModelNotFound, Rejected
from providers.remote import RemoteProvider
from providers.types import (
    ChatRequest,
    Endpoint,
    Image,
    Message,
    Parameters,
    Progress,
    ProviderSettings,
    ReasoningDelta,
    StreamEvent,
)
from tests.wire import talker
from tests.wire.loopback import WireServer, wire_server
from tests.wire.ollama import NAME
from tests.wire.protocols import PROTOCOLS

SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}}
PICTURE = Image("image/png", b"\x89PNG\r\n\x1a\n")


class Connected:
    """A provider, its scripted server, and the name of its model."""

    def __init__(self, protocol: str, server: WireServer) -> None:
        endpoint = Endpoint("tested", protocol, server.url, "sk-0123456789")
        settings = ProviderSettings(Path(), Path(), Path(), endpoints=(endpoint,))
        self.provider: Provider = create_provider("tested", settings, lambda name: pytest.fail(name))
        self.server = server
        self.model = NAME if protocol == "ollama" else talker.MODEL

    async def ask(self, *messages: Message, **parameters: Any) -> list[StreamEvent]:
        request = ChatRequest(self.model, messages or (Message("user", "Hi"),), Parameters(**parameters))
        return [event async for event in self.provider.stream(request)]

    @property
    def body(self) -> Any:
        """What the last question was sent as."""
        return self.server.chats[-1].body


@pytest.fixture
async def vendor(request: pytest.FixtureRequest) -> AsyncIterator[Connected]:
    """The vendor that the test names."""
    with wire_server(PROTOCOLS[request.param]()) as server:
        connected = Connected(request.param, server)
        yield connected
        await connected.provider.aclose()


def on(*names: str) -> pytest.MarkDecorator:
    """Run a test on these vendors."""
    return pytest.mark.parametrize("vendor", names, indirect=True)


EVERY = on(*PROTOCOLS)


@EVERY
async def test_a_parameter_that_is_not_given_is_not_sent(vendor: Connected) -> None:
    await vendor.ask()
    sent = str(vendor.body)

    assert not [name for name in ("temperature", "top_p", "topP", "seed", "penalty", "stop") if name in sent]


@on("openai", "huggingface", "gemini", "ollama")
async def test_a_schema_is_sent_by_the_vendors_own_means(vendor: Connected) -> None:
    await vendor.ask(json_schema=SCHEMA)

    assert str(SCHEMA["properties"]) in str(vendor.body)


@on("anthropic")
async def test_thinking_is_kept_apart(vendor: Connected) -> None:
    thoughts = [event.text for event in await vendor.ask() if isinstance(event, ReasoningDelta)]

    assert thoughts == ["Let me see… ¿qué?"]


@on("anthropic", "gemini")
async def test_the_system_prompt_is_where_the_vendor_wants_it(vendor: Connected) -> None:
    await vendor.ask(Message("system", "Be brief."), Message("user", "Hi"))
    place = vendor.body.get("system") or vendor.body["systemInstruction"]

    assert "Be brief." in str(place)
    assert "Be brief." not in str(vendor.body.get("messages") or vendor.body["contents"])


@EVERY
async def test_a_picture_travels_inside_the_message(vendor: Connected) -> None:
    await vendor.ask(Message("user", "What is this?", (PICTURE,)))

    assert "iVBORw0KGgo" in str(vendor.body), "its base64"


@on("openai", "huggingface", "gemini", "ollama")
async def test_texts_are_embedded(vendor: Connected) -> None:
    rows = await vendor.provider.embed(["one", "two"], vendor.model)

    assert rows == [talker.embedding("one"), talker.embedding("two")]


@on("huggingface")
async def test_an_address_is_no_model_to_embed_with(vendor: Connected) -> None:
    with pytest.raises(ModelNotFound):
        await vendor.provider.embed(["one"], "http://elsewhere.example/model")


@pytest.mark.parametrize(
    ("model", "taken"),
    [
        ("claude-3-5-haiku-20241022", {"temperature", "top_p", "top_k"}),
        ("claude-sonnet-4-20250514", {"temperature", "top_p", "top_k"}),
        ("claude-opus-4-6", {"temperature", "top_p", "top_k"}),
        ("claude-opus-4-7", set()),
        ("claude-sonnet-5", set()),
    ],
)
def test_claude_is_sent_no_sampling_that_it_refuses(model: str, taken: set[str]) -> None:
    provider = create_provider("anthropic", ProviderSettings(Path(), Path(), Path()), lambda name: pytest.fail(name))

    assert provider.capabilities(model).parameters & {"temperature", "top_p", "top_k"} == taken


def test_of_temperature_and_top_p_newer_claudes_are_sent_one() -> None:
    provider = create_provider("anthropic", ProviderSettings(Path(), Path(), Path()), lambda name: pytest.fail(name))
    assert isinstance(provider, RemoteProvider)
    given = Parameters(temperature=0.5, top_p=0.9)
    sent, notices = provider._taken(given, provider._describe("claude-sonnet-4-5-20250929"))

    assert (sent.temperature, sent.top_p) == (0.5, None)
    assert "top_p" in str(notices[0].sentence)
    for older in ("claude-3-5-haiku-20241022", "claude-sonnet-4-20250514"):
        assert provider._taken(given, provider._describe(older)) == (given, [])


@on("anthropic")
async def test_a_vendor_without_embeddings_says_so(vendor: Connected) -> None:
    with pytest.raises(Rejected, match="no embeddings"):
        await vendor.provider.embed(["one"], vendor.model)


@on("ollama")
async def test_ollama_is_always_told_the_context(vendor: Connected) -> None:
    await vendor.ask()

    assert vendor.body["options"]["num_ctx"] == talker.CONTEXT


@on("ollama")
async def test_a_missing_model_is_pulled_with_progress(vendor: Connected) -> None:
    download = vendor.provider.download(talker.MODEL)
    assert download is not None
    steps = [step async for step in download]

    assert {step.total for step in steps} >= {4000}
    assert max(step.done for step in steps) == 4000
    assert all(isinstance(step, Progress) for step in steps)


@on("ollama")
async def test_a_model_may_be_named_without_its_tag(vendor: Connected) -> None:
    assert (await vendor.provider.find_model(talker.MODEL)).name == NAME


@EVERY
async def test_the_list_is_asked_for_once_a_minute(vendor: Connected) -> None:
    for _ in range(5):
        await vendor.provider.find_model(vendor.model)
        await vendor.provider.list_models()
    lists = [each for each in vendor.server.requests if each.path.endswith(("/models", "/tags"))]

    assert len(lists) == 1


@pytest.mark.parametrize("name", ["openai", "anthropic", "gemini", "huggingface"])
async def test_a_vendor_without_a_key_lists_nothing_and_says_which_variable(name: str) -> None:
    settings = ProviderSettings(Path(), Path(), Path(), endpoints=(Endpoint(name, name),))
    provider = create_provider(name, settings, lambda other: pytest.fail(other))

    assert await provider.list_models() == []
    with pytest.raises(MissingKey, match=str(provider.info.key_variable)):
        await provider.find_model("some-model")
    await provider.aclose()
