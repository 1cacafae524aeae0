"""Ending a stream that has become silent, with one timer for the whole stream instead of one for each piece."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import TypeVar

T = TypeVar("T")


async def patient(pieces: AsyncGenerator[T, None], first: float, between: float) -> AsyncGenerator[T, None]:
    """Yield the pieces; raise TimeoutError when none comes for `first` seconds, later for `between` seconds."""
    watch = _Watch(first)
    try:
        while True:
            watch.task = asyncio.current_task()
            watch.since = watch.loop.time()
            try:
                piece = await anext(pieces)
            except StopAsyncIteration:
                return
            except asyncio.CancelledError:
                if watch.task is not None or watch.cancelled is None or watch.cancelled.uncancel() > 0:
                    raise
                raise TimeoutError from None
            watch.task = None
            watch.patience = between
            yield piece
    finally:
        watch.timer.cancel()
        await pieces.aclose()


class _Watch:
    """Cancels the task that waits for a piece, once it has waited for too long; looks only now and then."""

    def __init__(self, patience: float) -> None:
        self.loop = asyncio.get_running_loop()
        self.patience = patience
        self.since = self.loop.time()
        self.task: asyncio.Task[object] | None = None
        self.cancelled: asyncio.Task[object] | None = None
        self.timer = self.loop.call_later(patience, self._look)

    def _look(self) -> None:
        left = self.since + self.patience - self.loop.time()
        if self.task is not None and left <= 0:
            self.cancelled, self.task = self.task, None
            self.cancelled.cancel()
            return
        self.timer = self.loop.call_later(max(left, self.patience / 10), self._look)
