"""Services on the network that break in every way, over every protocol: a sentence, and the next request is good."""

from __future__ import annotations

import asyncio
import logging
import time
import traceback
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import pytest

from core.chat import Chat, Question
from core.configuration import Configuration
from core.database import Database
from core.models import Models
from core.settings import Settings
from core.tables import turns
from providers.base import Provider
from providers.catalog import create_provider
from providers.errors import (
    ContextTooLong,
    ModelNotFound,
    PaymentRequired,
    ProviderError,
    RateLimited,
    Unauthorized,
    Unreachable,
    UpstreamFailure,
)
from providers.types import (
    ChatRequest,
    Endpoint,
    Finished,
    Message,
    Notice,
    Parameters,
    ProviderSettings,
    StreamEvent,
    TextDelta,
    Timeouts,
)
from tests.conftest import free_port
from tests.wire import talker
from tests.wire.loopback import (
    Body,
    Cut,
    Empty,
    Ends,
    Fault,
    HangUp,
    Inside,
    Silence,
    Status,
    WireServer,
    wire_server,
)
from tests.wire.ollama import NAME
from tests.wire.protocols import PROTOCOLS

KEY = "sk-canary-0123456789abcdef"
PATIENT = Timeouts(connect=2.0, first_piece=4.0, idle=4.0)
IMPATIENT = Timeouts(connect=2.0, first_piece=1.0, idle=1.0)
QUESTION = (Message("user", "Tell me something."),)


@pytest.fixture(params=PROTOCOLS)
def server(request: pytest.FixtureRequest) -> Iterator[WireServer]:
    """A server of each protocol in turn."""
    with wire_server(PROTOCOLS[request.param]()) as server:
        yield server


@pytest.fixture
async def provider(server: WireServer, request: pytest.FixtureRequest) -> AsyncIterator[Provider]:
    """Our provider of the same protocol, with a key; with little patience where the service will be silent."""
    silent = isinstance(request.node.callspec.params.get("fault"), Silence)
    provider = connect(server.protocol.name, server.url, IMPATIENT if silent else PATIENT)
    yield provider
    await provider.aclose()


def connect(protocol: str, url: str, timeouts: Timeouts = PATIENT) -> Provider:
    endpoint = Endpoint("tested", protocol, url, KEY, "TESTED_API_KEY")
    settings = ProviderSettings(Path(), Path(), Path(), endpoints=(endpoint,), timeouts=timeouts)
    return create_provider("tested", settings, lambda name: pytest.fail(name))


def asked(provider: Provider, **parameters: object) -> ChatRequest:
    model = NAME if "Ollama" in type(provider).__name__ else talker.MODEL
    values: dict[str, object] = {"max_tokens": 20, "temperature": 0.0}
    return ChatRequest(model, QUESTION, Parameters(**(values | parameters)))  # type: ignore[arg-type]


class Heard:
    """What arrived of an answer, and how it ended."""

    def __init__(self) -> None:
        self.events: list[StreamEvent] = []
        self.error: ProviderError | None = None

    @property
    def text(self) -> str:
        return "".join(event.text for event in self.events if isinstance(event, TextDelta))

    @property
    def notices(self) -> list[str]:
        return [str(event.sentence) for event in self.events if isinstance(event, Notice)]


async def listen(provider: Provider, request: ChatRequest | None = None) -> Heard:
    """Ask, and keep what arrives until the answer or an error ends it."""
    heard = Heard()
    try:
        async for event in provider.stream(request or asked(provider)):
            heard.events.append(event)
    except ProviderError as error:
        heard.error = error
    return heard


async def good_within_5_seconds(provider: Provider) -> None:
    async with asyncio.timeout(5):
        heard = await listen(provider)
    assert heard.error is None
    assert isinstance(heard.events[-1], Finished)
    assert heard.text


def check_sentence(error: ProviderError | None, kind: type[ProviderError]) -> None:
    assert type(error) is kind, error
    assert error.hint
    assert str(error).endswith(".")
    assert KEY not in str(error)
    assert "Traceback" not in str(error)


@pytest.mark.parametrize(
    ("fault", "kind", "calls"),
    [
        (Silence(), UpstreamFailure, 1),
        (Body(b"<html><body>It works!</body></html>", "text/html"), UpstreamFailure, 1),
        (Body(b'{"choices": [{"del', "application/json"), UpstreamFailure, 1),
        (Body(b'data: {"choices": [{"del\n\n{"mess\n', "text/event-stream"), UpstreamFailure, 1),
        (Body(b"data: " + b"x" * 10_000_000, "text/event-stream"), UpstreamFailure, 1),
        (Empty(), UpstreamFailure, 1),
        (Cut(after=0), UpstreamFailure, 1),
        (Status(401, f"Incorrect API key provided: {KEY}"), Unauthorized, 1),
        (Status(404, "model not found"), ModelNotFound, 1),
        (Status(429, "slow down", {"retry-after": "3600"}), RateLimited, 1),
        (Status(302, "moved", {"location": "http://127.0.0.1:9/"}), UpstreamFailure, 1),
    ],
    ids=lambda value: str(value)[:40],
)
async def test_before_the_first_piece(
    server: WireServer, provider: Provider, fault: Fault, kind: type[ProviderError], calls: int
) -> None:
    server.faults.append(fault)
    start = time.monotonic()
    heard = await listen(provider)

    check_sentence(heard.error, kind)
    assert heard.text == ""
    assert len(server.chats) == calls
    assert time.monotonic() - start < 5
    await good_within_5_seconds(provider)


@pytest.mark.parametrize(
    "fault",
    [Silence(after=3), Cut(after=3), Cut(after=3, within_a_character=True), Ends(after=3), Inside(500)],
    ids=lambda value: str(value)[:40],
)
async def test_within_an_answer_what_was_written_is_kept_and_nothing_is_asked_twice(
    server: WireServer, provider: Provider, fault: Fault
) -> None:
    whole = (await listen(provider)).text
    server.requests.clear()
    server.faults.append(fault)
    heard = await listen(provider)

    check_sentence(heard.error, UpstreamFailure)
    assert heard.text
    assert whole.startswith(heard.text)
    assert len(server.chats) == 1
    await good_within_5_seconds(provider)


async def test_a_limit_within_an_answer_is_told_as_one(server: WireServer, provider: Provider) -> None:
    server.faults.append(Inside(429, "rate limit exceeded"))
    heard = await listen(provider)

    assert heard.text
    check_sentence(heard.error, RateLimited)
    assert len(server.chats) == 1
    assert "rate limit" in str(heard.error)
    assert "{" not in str(heard.error), "the vendor's words, not its JSON"


async def test_a_key_that_is_revoked_within_a_conversation(server: WireServer, provider: Provider) -> None:
    await good_within_5_seconds(provider)
    server.faults.append(Status(401, f"The key {KEY} was revoked"))
    heard = await listen(provider)

    check_sentence(heard.error, Unauthorized)
    assert heard.error is not None
    assert "TESTED_API_KEY" in str(heard.error.hint)


async def test_500_then_good_is_two_calls(server: WireServer, provider: Provider) -> None:
    server.faults.append(Status(500))
    heard = await listen(provider)

    assert heard.error is None
    assert heard.text
    assert len(server.chats) == 2
    assert any("asked again" in notice for notice in heard.notices)


async def test_500_for_ever_is_three_calls(server: WireServer, provider: Provider) -> None:
    server.faults.extend([Status(500)] * 9)
    heard = await listen(provider)

    check_sentence(heard.error, UpstreamFailure)
    assert len(server.chats) == 3


async def test_a_short_retry_after_is_waited_for(server: WireServer, provider: Provider) -> None:
    server.faults.append(Status(429, "slow down", {"retry-after": "1"}))
    start = time.monotonic()
    heard = await listen(provider)

    assert heard.error is None
    assert 1 <= time.monotonic() - start < 2.5
    assert len(server.chats) == 2


async def test_a_503_with_a_retry_after_is_waited_for_too(server: WireServer, provider: Provider) -> None:
    server.faults.append(Status(503, "overloaded", {"retry-after": "1"}))
    start = time.monotonic()
    heard = await listen(provider)

    assert heard.error is None
    assert 1 <= time.monotonic() - start < 2.5
    assert len(server.chats) == 2
    server.faults.append(Status(503, "overloaded", {"retry-after": "600"}))
    heard = await listen(provider)
    check_sentence(heard.error, UpstreamFailure)
    assert "600" in str(heard.error)
    assert len(server.chats) == 3


@pytest.mark.parametrize(
    "fault", [Status(402, "no credits"), Status(429, "You exceeded your current quota: insufficient_quota")]
)
async def test_an_empty_account_is_told_as_one(server: WireServer, provider: Provider, fault: Status) -> None:
    server.faults.append(fault)
    heard = await listen(provider)

    check_sentence(heard.error, PaymentRequired)
    assert heard.error is not None
    assert "balance" in str(heard.error.hint)
    assert len(server.chats) == 1


@pytest.mark.parametrize("fault", [HangUp(), HangUp(reset=True)], ids=["closed", "reset"])
async def test_a_kept_connection_that_was_given_up_is_not_the_end(
    server: WireServer, provider: Provider, fault: Fault
) -> None:
    """The list of models came over it just before; two of the clients open another one for an answer."""
    server.faults.append(fault)
    heard = await listen(provider)

    if server.protocol.name in ("huggingface", "ollama"):
        check_sentence(heard.error, Unreachable)
        assert len(server.chats) == 1
    else:
        assert heard.error is None
        assert heard.text
        assert len(server.chats) == 2


@pytest.mark.parametrize("fault", [HangUp(), HangUp(reset=True)], ids=["closed", "reset"])
async def test_who_hangs_up_on_a_new_connection_may_have_begun_and_is_not_asked_twice(
    server: WireServer, provider: Provider, fault: Fault
) -> None:
    server.keeps_connections = False
    server.faults.append(fault)
    heard = await listen(provider)

    check_sentence(heard.error, Unreachable)
    assert len(server.chats) == 1
    await good_within_5_seconds(provider)


async def test_a_long_retry_after_is_told_at_once(server: WireServer, provider: Provider) -> None:
    server.faults.append(Status(429, "slow down", {"retry-after": "3600"}))
    heard = await listen(provider)

    assert isinstance(heard.error, RateLimited)
    if server.protocol.name != "ollama":  # Its client keeps no headers of a refusal.
        assert heard.error.retry_after == 3600
        assert "3600" in str(heard.error.hint)


async def test_a_retry_after_that_is_none_is_survived(server: WireServer, provider: Provider) -> None:
    server.faults.append(Status(429, "slow down", {"retry-after": "soon"}))
    heard = await listen(provider)

    assert heard.error is None
    assert len(server.chats) == 2


async def test_stop_while_it_waits_to_ask_again(server: WireServer, provider: Provider) -> None:
    server.faults.append(Status(429, "slow down", {"retry-after": "15"}))
    listening = asyncio.ensure_future(listen(provider))
    while not server.chats:
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.1)
    start = time.monotonic()
    listening.cancel()
    await asyncio.gather(listening, return_exceptions=True)

    assert time.monotonic() - start < 1
    assert len(server.chats) == 1


@pytest.mark.parametrize("fault", [None, Silence(after=2)], ids=["writing", "silent"])
async def test_stop_closes_the_connection(server: WireServer, provider: Provider, fault: Fault | None) -> None:
    if fault:
        server.faults.append(fault)
    events: AsyncGenerator[StreamEvent, None] = provider.stream(asked(provider, max_tokens=400))
    async with aclosing(events):
        async for event in events:
            if isinstance(event, TextDelta):
                break
        assert server.open_streams == 1
    deadline = time.monotonic() + 1
    while server.open_streams and time.monotonic() < deadline:
        await asyncio.sleep(0.01)

    assert server.open_streams == 0
    await good_within_5_seconds(provider)


async def test_stop_before_the_first_byte_closes_the_connection(server: WireServer, provider: Provider) -> None:
    server.faults.append(Silence())
    listening = asyncio.ensure_future(listen(provider))
    while not server.open_streams:
        await asyncio.sleep(0.01)
    listening.cancel()
    await asyncio.gather(listening, return_exceptions=True)
    deadline = time.monotonic() + 1
    while server.open_streams and time.monotonic() < deadline:
        await asyncio.sleep(0.01)

    assert server.open_streams == 0
    assert len(server.chats) == 1


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (Body(b"<html><body>It works!</body></html>", "text/html"), UpstreamFailure),
        (Body(b'{"data": [{"id', "application/json"), UpstreamFailure),
        (Body(b"[1, 2]", "application/json"), UpstreamFailure),
        (Body(b'{"data": "' + b"x" * 10_000_000, "application/json"), UpstreamFailure),
        (Status(302, "moved", {"location": "http://127.0.0.1:9/"}), UpstreamFailure),
        (Status(401, f"Incorrect API key provided: {KEY}"), Unauthorized),
        (Status(429, "slow down"), RateLimited),
    ],
    ids=lambda value: str(value)[:40],
)
async def test_the_list_of_models_breaks(
    server: WireServer, provider: Provider, fault: Fault, kind: type[ProviderError]
) -> None:
    server.other_faults.append(fault)
    heard = await listen(provider)

    check_sentence(heard.error, kind)
    assert "{" not in str(heard.error), "the vendor's words, not its JSON"
    assert server.chats == []
    await good_within_5_seconds(provider)


async def test_a_page_of_html_is_no_answer_that_broke_off(server: WireServer, provider: Provider) -> None:
    server.faults.append(Body(b"<html><body>It works!</body></html>", "text/html"))
    heard = await listen(provider)

    assert "no answer" in str(heard.error)
    assert "address" in str(heard.error)


async def test_a_conversation_that_is_too_long(server: WireServer, provider: Provider) -> None:
    long = replace(asked(provider), messages=(Message("user", "word " * 5000),))
    heard = await listen(provider, long)

    check_sentence(heard.error, ContextTooLong)
    # Ollama would shorten the prompt without a word, so it is not asked.
    assert len(server.chats) == (0 if server.protocol.name == "ollama" else 1)


async def test_nobody_listens(server: WireServer) -> None:
    provider = connect(server.protocol.name, f"http://127.0.0.1:{free_port()}{server.protocol.base_path}")
    heard = await listen(provider)
    await provider.aclose()

    check_sentence(heard.error, Unreachable)
    assert "127.0.0.1" in str(heard.error)


async def test_a_name_that_nobody_knows(server: WireServer, tries_network: None) -> None:
    provider = connect(server.protocol.name, f"http://no-such-host.invalid:1{server.protocol.base_path}")
    heard = await listen(provider)
    await provider.aclose()

    check_sentence(heard.error, Unreachable)


async def test_the_server_is_started_again(server: WireServer, provider: Provider) -> None:
    await good_within_5_seconds(provider)
    port = server.port
    server.stop()
    assert isinstance((await listen(provider)).error, Unreachable | UpstreamFailure)
    with wire_server(PROTOCOLS[server.protocol.name](), port):
        await good_within_5_seconds(provider)


async def test_a_redirect_is_not_followed(server: WireServer, provider: Provider) -> None:
    with wire_server(PROTOCOLS[server.protocol.name]()) as elsewhere:
        server.faults.append(Status(307, "moved", {"location": elsewhere.url}))
        heard = await listen(provider)

        check_sentence(heard.error, UpstreamFailure)
        assert "another address" in str(heard.error)
        assert elsewhere.requests == []
        await good_within_5_seconds(provider)


async def test_the_key_goes_to_its_server_and_into_no_log(
    server: WireServer, provider: Provider, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    for fault in (Status(401, KEY), Status(500, KEY), Status(400, KEY), Inside(500, KEY), Cut()):
        server.faults.append(fault)
        heard = await listen(provider, asked(provider))
        assert KEY not in str(heard.error)
        if heard.error:
            assert KEY not in "".join(traceback.format_exception(heard.error))

    assert any(KEY in str(request.headers) for request in server.requests)
    assert KEY not in caplog.text


async def test_a_part_of_an_answer_is_kept_as_incomplete(server: WireServer, tmp_path: Path) -> None:
    endpoint = Endpoint("tested", server.protocol.name, server.url, KEY)
    settings = Settings(
        data_dir=tmp_path, configuration=Configuration(endpoints=(endpoint,)), timeouts=PATIENT, device="cpu"
    )
    models, database = Models(settings), Database(tmp_path)
    model = f"tested/{NAME if server.protocol.name == 'ollama' else talker.MODEL}"
    server.faults.append(Cut(after=4))
    with pytest.raises(UpstreamFailure):
        async for _ in Chat(models, database).stream(Question("Tell me something.", model=model)):
            pass
    async with database.transaction() as connection:
        row = (await connection.execute(turns.select())).one()
    await models.aclose()
    await database.aclose()

    assert row.finish_reason == "incomplete"
    assert row.answer
