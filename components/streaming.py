"""Pacing of a stream for Gradio, which notices a closed tab only when something is sent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import TypeVar

T = TypeVar("T")

PING_SECONDS = 0.25


async def with_pings(events: AsyncGenerator[T, None]) -> AsyncGenerator[T | None, None]:
    """Yield the events, and `None` whenever none came for a quarter of a second; closing it closes `events`."""
    waiting: asyncio.Task[T] | None = None
    try:
        while True:
            waiting = waiting or asyncio.ensure_future(anext(events))
            done, _ = await asyncio.wait({waiting}, timeout=PING_SECONDS)
            if not done:
                yield None
                continue
            try:
                event = waiting.result()
            except StopAsyncIteration:
                return
            waiting = None
            yield event
    finally:
        if waiting is not None and not waiting.done():
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
        await events.aclose()
