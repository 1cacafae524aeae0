"""Pools: who answers, who rests, and when another one is asked."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from providers.base import Provider
from providers.catalog import create_provider
from providers.errors import ModelNotFound, ProviderError, RateLimited, Unauthorized, UpstreamFailure
from providers.types import (
    ChatRequest,
    Endpoint,
    Message,
    Notice,
    Parameters,
    Pool,
    ProviderSettings,
    TextDelta,
    Timeouts,
)
from tests.wire import talker
from tests.wire.loopback import Cut, Status, WireServer, wire_server
from tests.wire.openai import OpenAIWire

NAMES = ("one", "two")


class Group:
    """A pool with the servers behind its members."""

    def __init__(self, pool: Provider, servers: dict[str, WireServer]) -> None:
        self.pool = pool
        self.servers = servers

    @property
    def calls(self) -> int:
        return sum(len(server.chats) for server in self.servers.values())

    async def ask(self, max_tokens: int = 5) -> tuple[str, list[str]]:
        """Return the answer and the notices."""
        request = ChatRequest("both", (Message("user", "Hi"),), Parameters(temperature=0, max_tokens=max_tokens))
        events = [event async for event in self.pool.stream(request)]
        text = "".join(event.text for event in events if isinstance(event, TextDelta))
        return text, [str(event.sentence) for event in events if isinstance(event, Notice)]


@pytest.fixture
async def group() -> AsyncIterator[Group]:
    """Two servers in one pool."""
    with ExitStack() as stack:
        servers = {name: stack.enter_context(wire_server(OpenAIWire())) for name in NAMES}
        settings = ProviderSettings(
            Path(),
            Path(),
            Path(),
            endpoints=tuple(Endpoint(name, "openai", server.url) for name, server in servers.items()),
            pools=(Pool("both", tuple(f"{name}/{talker.MODEL}" for name in NAMES)),),
            timeouts=Timeouts(connect=0.5, first_piece=1, idle=1),
        )
        others: Callable[[str], Provider] = lambda name: pytest.fail(name)  # noqa: E731
        members = {name: create_provider(name, settings, others) for name in NAMES}
        yield Group(create_provider("pool", settings, members.__getitem__), servers)
        for member in members.values():
            await member.aclose()


async def test_the_least_busy_one_answers_and_is_named(group: Group) -> None:
    answers = await asyncio.gather(*(group.ask(100) for _ in range(6)))

    assert {len(server.chats) for server in group.servers.values()} == {3}
    assert {notices[0] for _, notices in answers} == {f"{name}/{talker.MODEL} answers." for name in NAMES}


async def test_another_one_is_asked_before_the_first_piece(group: Group) -> None:
    group.servers["one"].faults.append(Status(500))
    text, notices = await group.ask()

    assert text
    assert group.calls == 2
    assert any("failed" in notice for notice in notices)


async def test_nothing_is_asked_twice_after_the_first_piece(group: Group) -> None:
    for server in group.servers.values():
        server.faults.append(Cut(after=2))
    with pytest.raises(UpstreamFailure):
        await group.ask()

    assert group.calls == 1


async def test_who_failed_rests(group: Group) -> None:
    group.servers["one"].faults.append(Status(503))
    for _ in range(4):
        await group.ask()

    assert len(group.servers["one"].chats) == 1
    assert len(group.servers["two"].chats) == 4


async def test_what_is_no_answer_is_asked_of_who_lives(group: Group) -> None:
    dead, alive = group.servers.values()
    dead.stop()
    found = await group.pool.find_model("both")
    rows = await group.pool.embed(["one"], "both")

    assert found.name == "both"
    assert rows == [talker.embedding("one")]
    assert await group.pool.count_tokens([Message("user", "Hi")], "both") > 0
    assert (await group.ask())[0]
    assert not dead.chats
    assert len(alive.chats) == 1


async def test_a_wrong_key_of_one_is_no_end(group: Group) -> None:
    group.servers["one"].faults.append(Status(401))

    assert (await group.ask())[0]


async def test_a_short_rest_is_waited_for(group: Group) -> None:
    for server in group.servers.values():
        server.faults.append(Status(429, "slow", {"retry-after": "1"}))
    start = time.monotonic()
    text, _ = await group.ask()

    assert text
    assert 0.9 < time.monotonic() - start < 3
    assert group.calls == 3


async def test_a_long_rest_of_all_is_told_at_once(group: Group) -> None:
    for server in group.servers.values():
        server.faults.append(Status(429, "slow", {"retry-after": "600"}))
    start = time.monotonic()
    with pytest.raises(RateLimited):
        await group.ask()
    with pytest.raises(RateLimited, match="rest"):
        await group.ask()

    assert time.monotonic() - start < 2
    assert group.calls == 2


async def test_all_failing_ends_after_a_bounded_number_of_calls(group: Group) -> None:
    for server in group.servers.values():
        server.faults.extend([Status(401)] * 10)
    with pytest.raises((Unauthorized, RateLimited)):
        await group.ask()

    assert group.calls <= 3


async def test_the_requests_own_fault_is_not_tried_again(group: Group) -> None:
    request = ChatRequest("both", (Message("user", "word " * 5000),))
    with pytest.raises(ProviderError):
        _ = [event async for event in group.pool.stream(request)]

    assert group.calls == 1


async def test_leaving_an_answer_frees_the_member(group: Group) -> None:
    events = group.pool.stream(ChatRequest("both", (Message("user", "Hi"),), Parameters(max_tokens=400)))
    while not isinstance(await anext(events), TextDelta):
        pass
    await events.aclose()
    await asyncio.sleep(0.1)

    assert all(server.open_streams == 0 for server in group.servers.values())
    await asyncio.gather(*(group.ask(50) for _ in range(2)))
    assert {len(server.chats) for server in group.servers.values()} <= {1, 2}


async def test_a_pool_takes_what_all_members_take(group: Group) -> None:
    info = await group.pool.find_model("both")

    assert info.context_length == talker.CONTEXT
    assert "temperature" in info.capabilities.parameters
    assert [row.name for row in await group.pool.list_models()] == ["both"]


async def test_there_is_no_such_pool(group: Group) -> None:
    with pytest.raises(ModelNotFound):
        await group.pool.find_model("none")
