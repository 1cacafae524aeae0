"""How a conversation is shortened; a provider that counts characters makes the numbers plain."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence

import pytest

from core.context import fit_context
from providers.base import Provider
from providers.errors import ContextTooLong
from providers.types import (
    Capabilities,
    ChatRequest,
    Message,
    ModelInfo,
    ProviderInfo,
    ProviderSettings,
    StreamEvent,
)


class CountingProvider(Provider):
    """Counts each character as a token, and how often it was asked."""

    info = ProviderInfo("counting", "Counting", local=True, docs_url="")

    def __init__(self, settings: ProviderSettings | None = None) -> None:
        self.counts = 0

    async def count_tokens(self, messages: Sequence[Message], model: str) -> int:
        self.counts += 1
        return sum(len(message.content) for message in messages)

    async def list_models(self) -> list[ModelInfo]:
        return []

    async def find_model(self, model: str) -> ModelInfo:
        raise NotImplementedError

    def stream(self, request: ChatRequest) -> AsyncGenerator[StreamEvent, None]:
        raise NotImplementedError

    def capabilities(self, model: str) -> Capabilities:
        raise NotImplementedError

    async def aclose(self) -> None:
        pass


SYSTEM = Message("system", "s" * 10)


def turns(count: int, size: int = 10) -> list[Message]:
    """Return `count` questions with answers, and a last question, of `size` characters each."""
    talk = [
        message for _ in range(count) for message in (Message("user", "q" * size), Message("assistant", "a" * size))
    ]
    return [*talk, Message("user", "?" * size)]


async def fitted(messages: list[Message], context: int | None = 100, max_tokens: int | None = 20) -> list[Message]:
    return list((await fit_context(messages, CountingProvider(), "model", context, max_tokens)).messages)


async def test_what_fits_is_untouched() -> None:
    messages = [SYSTEM, *turns(3)]

    assert await fitted(messages) == messages


async def test_a_model_of_unknown_context_takes_everything() -> None:
    messages = turns(1000)

    assert await fitted(messages, context=None) == messages


async def test_the_oldest_whole_turns_leave_and_the_system_prompt_stays() -> None:
    fit = await fit_context([SYSTEM, *turns(6)], CountingProvider(), "model", 100, 20)

    assert list(fit.messages) == [SYSTEM, *turns(3)]
    assert fit.left_out == 6


async def test_as_much_as_possible_is_kept() -> None:
    for count in range(1, 30):
        kept = await fitted([SYSTEM, *turns(count)])
        assert kept[1].role == "user"
        assert kept[-1] == turns(1)[-1]
        assert len(kept) == min(1 + 2 * count + 1, 8)


async def test_at_most_a_quarter_is_reserved_for_the_answer() -> None:
    assert sum(len(message.content) for message in await fitted(turns(30), max_tokens=100_000)) == 70
    assert sum(len(message.content) for message in await fitted(turns(30), max_tokens=None)) == 70
    assert sum(len(message.content) for message in await fitted(turns(30), max_tokens=1)) == 90


async def test_several_questions_in_a_row_and_a_leading_answer_stay_whole() -> None:
    messages = [Message("assistant", "a" * 50), Message("user", "q" * 30), Message("user", "?" * 30)]

    assert await fitted(messages) == messages[1:]


async def test_a_message_that_cannot_fit_is_refused_with_its_count_and_the_limit() -> None:
    with pytest.raises(ContextTooLong) as refused:
        await fitted([SYSTEM, *turns(2), Message("user", "x" * 71)])

    assert "81 tokens" in str(refused.value)
    assert "at most 80" in str(refused.value)


async def test_few_counts_shorten_a_long_conversation() -> None:
    provider = CountingProvider()
    await fit_context(turns(1000), provider, "model", 100, 20)

    assert provider.counts <= 14
