"""Pools whose members break in every way: the other one answers, or a sentence says why nobody did."""

from __future__ import annotations

import time
import traceback
from collections.abc import AsyncIterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from providers.base import Provider
from providers.catalog import create_provider
from providers.errors import PaymentRequired, ProviderError, RateLimited, Rejected, Unreachable, UpstreamFailure
from providers.types import (
    ChatRequest,
    Endpoint,
    Finished,
    Message,
    Notice,
    Parameters,
    Pool,
    ProviderSettings,
    TextDelta,
    Timeouts,
)
from tests.wire import talker
from tests.wire.loopback import Body, Cut, Empty, Ends, Fault, HangUp, Inside, Silence, Status, WireServer, wire_server
from tests.wire.openai import OpenAIWire

KEY = "sk-canary-0123456789abcdef"
NAMES = ("one", "two")
PATIENT = Timeouts(connect=2.0, first_piece=4.0, idle=4.0)
IMPATIENT = Timeouts(connect=2.0, first_piece=1.0, idle=1.0)


class Group:
    """A pool, and the servers of its members."""

    def __init__(self, pool: Provider, one: WireServer, two: WireServer) -> None:
        self.pool, self.one, self.two = pool, one, two
        self.notices: list[str] = []
        self.text = ""
        self.ended = False

    async def ask(self) -> ProviderError | None:
        """Ask, and keep what arrives; return the error that ended it."""
        self.notices, self.text, self.ended = [], "", False
        request = ChatRequest("both", (Message("user", "Hi"),), Parameters(temperature=0, max_tokens=20))
        try:
            async for event in self.pool.stream(request):
                self.text += event.text if isinstance(event, TextDelta) else ""
                self.ended = isinstance(event, Finished)
                if isinstance(event, Notice):
                    self.notices.append(str(event.sentence))
        except ProviderError as error:
            return error
        return None

    @property
    def calls(self) -> tuple[int, int]:
        return len(self.one.chats), len(self.two.chats)


@pytest.fixture
async def group(request: pytest.FixtureRequest) -> AsyncIterator[Group]:
    """Two servers in one pool, of which the first is asked first; with little patience where one will be silent."""
    silent = hasattr(request.node, "callspec") and isinstance(request.node.callspec.params.get("fault"), Silence)
    with ExitStack() as stack:
        servers = [stack.enter_context(wire_server(OpenAIWire())) for _ in NAMES]
        endpoints = [Endpoint(name, "openai", server.url, KEY) for name, server in zip(NAMES, servers, strict=True)]
        settings = ProviderSettings(
            Path(),
            Path(),
            Path(),
            endpoints=tuple(endpoints),
            pools=(Pool("both", tuple(f"{name}/{talker.MODEL}" for name in NAMES)),),
            timeouts=IMPATIENT if silent else PATIENT,
        )
        members = {name: create_provider(name, settings, lambda name: pytest.fail(name)) for name in NAMES}
        for member in members.values():
            await member.list_models()
        yield Group(create_provider("pool", settings, members.__getitem__), *servers)
        for member in members.values():
            await member.aclose()


BROKEN = [
    Silence(),
    HangUp(),
    Body(b"<html><body>It works!</body></html>", "text/html"),
    Body(b'data: {"choices": [{"del\n\n{"mess\n', "text/event-stream"),
    Body(b"data: " + b"x" * 10_000_000, "text/event-stream"),
    Empty(),
    Cut(after=0),
    Status(401, f"Incorrect API key provided: {KEY}"),
    Status(402, "no credits"),
    Status(404, "model not found"),
    Status(429, "slow down", {"retry-after": "3600"}),
    Status(429, "slow down", {"retry-after": "soon"}),
    Status(500, KEY),
    Status(503, "overloaded", {"retry-after": "3600"}),
]


@pytest.mark.parametrize("fault", BROKEN, ids=lambda value: str(value)[:40])
async def test_before_the_first_piece_the_other_one_answers(group: Group, fault: Fault) -> None:
    group.one.faults.append(fault)
    start = time.monotonic()

    assert await group.ask() is None
    assert group.ended
    assert group.calls == (1, 1)
    assert any("one/talker failed" in notice for notice in group.notices)
    assert group.notices[-1] == "two/talker answers."
    assert KEY not in "".join(group.notices)
    assert time.monotonic() - start < 5
    assert await group.ask() is None
    assert group.calls == (1, 2), "the one that failed rests"


@pytest.mark.parametrize(
    "fault",
    [Silence(after=3), Cut(after=3), Cut(after=3, within_a_character=True), Ends(after=3), Inside(500)],
    ids=lambda value: str(value)[:40],
)
async def test_within_an_answer_nobody_else_is_asked(group: Group, fault: Fault) -> None:
    group.one.faults.append(fault)
    error = await group.ask()

    assert isinstance(error, UpstreamFailure)
    assert error.hint
    assert group.text
    assert group.calls == (1, 0)
    assert await group.ask() is None
    assert group.calls == (1, 1)


async def test_when_all_fail_the_last_reason_is_told_without_the_key(group: Group) -> None:
    for server in (group.one, group.two):
        server.faults.extend([Status(500, f"broken for {KEY}")] * 3)
    error = await group.ask()

    assert isinstance(error, UpstreamFailure | RateLimited)
    assert error.hint
    assert KEY not in "".join(traceback.format_exception(error))
    assert sum(group.calls) <= 3


async def test_when_all_want_to_be_paid_it_says_so(group: Group) -> None:
    for server in (group.one, group.two):
        server.faults.append(Status(402, "no credits"))

    assert isinstance(await group.ask(), PaymentRequired)
    assert group.calls == (1, 1)


async def test_what_the_request_itself_caused_is_not_asked_elsewhere(group: Group) -> None:
    group.one.faults.append(Status(400, "stop must be a string"))

    assert type(await group.ask()) is Rejected
    assert group.calls == (1, 0)
    assert await group.ask() is None


async def test_when_nobody_listens_it_says_where(group: Group) -> None:
    group.one.stop()
    group.two.stop()
    error = await group.ask()

    assert isinstance(error, Unreachable | RateLimited)
    assert error.hint
    assert any("127.0.0.1" in notice for notice in group.notices)


async def test_the_one_that_is_gone_is_not_waited_for(group: Group) -> None:
    group.one.stop()
    start = time.monotonic()

    assert await group.ask() is None
    assert time.monotonic() - start < 3
