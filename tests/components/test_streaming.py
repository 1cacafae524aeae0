"""A stream that is silent still shows signs of life, and closing it closes what it reads."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest

from components.streaming import with_pings


async def test_events_pass_and_silence_pings() -> None:
    go_on = asyncio.Event()

    async def events() -> AsyncGenerator[int, None]:
        yield 1
        await go_on.wait()
        yield 2

    seen: list[int | None] = []
    async for event in with_pings(events()):
        seen.append(event)
        if event is None:
            go_on.set()

    assert [event for event in seen if event is not None] == [1, 2]
    assert None in seen


@pytest.mark.parametrize("silent", [True, False])
async def test_closing_it_closes_what_it_reads(silent: bool) -> None:
    closed = asyncio.Event()

    async def events() -> AsyncGenerator[int, None]:
        try:
            yield 1
            await asyncio.Event().wait()
        finally:
            closed.set()

    async with aclosing(with_pings(events())) as stream:
        async for event in stream:
            if event is None or not silent:
                break

    assert closed.is_set()


async def test_an_error_passes_through() -> None:
    async def events() -> AsyncGenerator[int, None]:
        yield 1
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        async for _ in with_pings(events()):
            pass
