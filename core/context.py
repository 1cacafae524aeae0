"""Making a conversation fit the model's context: whole turns leave, oldest first; the system prompt stays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from providers.base import Provider
from providers.errors import ContextTooLong
from providers.sentences import say
from providers.types import Message

ANSWER_SHARE = 4


@dataclass(frozen=True)
class FittedConversation:
    """The messages that fit, and how many earlier messages were left out."""

    messages: tuple[Message, ...]
    left_out: int


async def fit_context(
    messages: Sequence[Message], provider: Provider, model: str, context_length: int | None, max_tokens: int | None
) -> FittedConversation:
    """Drop whole turns from the front until the prompt leaves room for an answer.

    The room is `max_tokens`, but at most a quarter of the context. Raises ContextTooLong when the last message alone,
    with the system prompt, does not fit.
    """
    if context_length is None:
        return FittedConversation(tuple(messages), 0)
    limit = context_length - min(max_tokens or context_length, context_length // ANSWER_SHARE)
    system = [message for message in messages if message.role == "system"]
    talk = [message for message in messages if message.role != "system"]
    starts = [index for index, message in enumerate(talk) if message.role == "user"] or [0]

    async def tokens_from(start: int) -> int:
        return await provider.count_tokens([*system, *talk[start:]], model)

    if await tokens_from(0) <= limit:
        return FittedConversation((*system, *talk), 0)
    if (alone := await tokens_from(starts[-1])) > limit:
        raise ContextTooLong(
            say(
                "This message has {tokens} tokens with its system prompt, and {model} takes at most {limit}.",
                tokens=alone,
                model=model,
                limit=limit,
            ),
            provider=provider.info.key,
            hint=say("Shorten it, or choose a model with a longer context."),
        )
    low, high = 0, len(starts) - 1
    while low < high:
        middle = (low + high) // 2
        if await tokens_from(starts[middle]) <= limit:
            high = middle
        else:
            low = middle + 1
    return FittedConversation((*system, *talk[starts[low] :]), starts[low])
