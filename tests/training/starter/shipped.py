"""The shipped starter, and conversations as it is asked them."""

from __future__ import annotations

from tests.conftest import BUNDLED
from training.starter.corpus import Conversation
from training.starter.questions import Message
from training.starter.skills import SPELLED

FOLDER = BUNDLED / "starter"


def messages_of(conversation: Conversation) -> list[Message]:
    """Write a conversation as the chat template takes it."""
    system = [{"role": "system", "content": conversation.system}] if conversation.system is not None else []
    return system + [
        {"role": role, "content": content.replace(SPELLED, "")}
        for turn in conversation.turns
        for role, content in (("user", turn.question), ("assistant", turn.answer))
    ]
