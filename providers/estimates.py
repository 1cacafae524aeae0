"""A guess of the number of tokens, for services that do not count them."""

from __future__ import annotations

from collections.abc import Sequence

from providers.types import Message

BYTES_PER_TOKEN = 4
CHARACTERS_PER_TOKEN = 4
TOKENS_PER_MESSAGE = 4
TOKENS_PER_IMAGE = 1000


def estimate_text(text: str) -> int:
    """Guess the tokens of a text: a token for every four bytes of UTF-8, which is near for English and Spanish."""
    return -(-len(text.encode()) // BYTES_PER_TOKEN)


def estimate_messages(messages: Sequence[Message]) -> int:
    """Guess the tokens of a prompt."""
    return sum(
        estimate_text(message.content) + TOKENS_PER_MESSAGE + TOKENS_PER_IMAGE * len(message.images)
        for message in messages
    )
