"""The engine behind the provider: a switch while eight chats run, closed streams, and a long day."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from core.settings import ROOT
from providers.transformers_local import TransformersProvider
from providers.types import (
    ChatRequest,
    EngineLimits,
    LoadOptions,
    Message,
    Parameters,
    ProviderSettings,
    Queued,
    StreamEvent,
    TextDelta,
)

SOAK_SECONDS = 20 * 60
GREEDY = Parameters(temperature=0, max_tokens=60)


@pytest.fixture
async def provider(models_dir: Path) -> AsyncIterator[TransformersProvider]:
    settings = ProviderSettings(
        bundled_dir=ROOT / "models",
        models_dir=models_dir,
        runs_dir=models_dir.parent / "runs",
        load_options=LoadOptions(device="cpu"),
        resident_models=1,
        engine_limits=EngineLimits(batched=8),
    )
    provider = TransformersProvider(settings)
    yield provider
    await provider.aclose()


def asked(model: str, text: str, parameters: Parameters = GREEDY) -> ChatRequest:
    return ChatRequest(model, (Message("user", text),), parameters)


async def text_of(provider: TransformersProvider, request: ChatRequest) -> str:
    return "".join([event.text async for event in provider.stream(request) if isinstance(event, TextDelta)])


async def test_a_switch_while_eight_chats_run_ends_none_of_them(provider: TransformersProvider) -> None:
    requests = [asked("tiny", f"{number}") for number in range(8)]
    alone = [await text_of(provider, request) for request in requests]
    chats = [asyncio.ensure_future(text_of(provider, request)) for request in requests]
    await asyncio.sleep(0.05)
    await provider.unload("tiny")
    await provider.load("other")

    assert await asyncio.gather(*chats) == alone
    assert list(provider.engines()) == ["other"]
    assert await text_of(provider, asked("other", "0"))


async def test_models_share_the_memory_for_conversations(provider: TransformersProvider) -> None:
    provider._settings = replace(provider._settings, resident_models=3)
    for name in ("tiny", "other", "slow"):
        await provider.load(name)
    limits = [figures.cache_limit_bytes for figures in provider.engines().values()]

    assert limits[0] > 1.2 * limits[1] > 1.44 * limits[2] > 0


async def test_closed_streams_and_cancelled_jobs_free_their_places(provider: TransformersProvider) -> None:
    endless = Parameters(temperature=0, max_tokens=10_000)
    await provider.load("slow")
    streams = [provider.stream(asked("slow", f"{number}", endless)) for number in range(10)]
    begun = [asyncio.ensure_future(anext(stream)) for stream in streams]
    events: list[StreamEvent] = list(await asyncio.gather(*begun))
    assert sorted(event.place for event in events if isinstance(event, Queued)) == [1, 2]
    figures = provider.engines()["slow"]
    assert (figures.running, figures.waiting) == (8, 2)
    start = time.monotonic()
    for stream in streams:
        await stream.aclose()
    while (figures := provider.engines()["slow"]).running or figures.waiting:
        await asyncio.sleep(0.01)

    assert time.monotonic() - start < 2


@pytest.mark.long
@pytest.mark.timeout(SOAK_SECONDS + 300)
async def test_memory_is_flat_over_a_long_day(provider: TransformersProvider) -> None:
    """People chat and leave for twenty minutes; what they leave is bounded."""
    limit = 64 * 2**20
    await provider.load("tiny")
    provider._resident["tiny"]._engine._budget = limit
    process, sizes, number = psutil.Process(), [], 0
    start = time.monotonic()
    while time.monotonic() - start < SOAK_SECONDS:
        number += 1

        async def chat(person: int, turn: int = number) -> None:
            request = asked("tiny", f"{turn} {person} " * (1 + (turn * person) % 40), Parameters(max_tokens=80))
            async with aclosing(provider.stream(request)) as events:
                async for _ in events:
                    if (turn + person) % 5 == 0:
                        break

        await asyncio.gather(*(chat(person) for person in range(8)))
        assert provider.engines()["tiny"].cache_bytes <= limit
        if number % 50 == 0:
            gc.collect()
            sizes.append(process.memory_info().rss)

    settled = sizes[len(sizes) // 4 :]
    assert max(settled) <= 1.05 * settled[0]
