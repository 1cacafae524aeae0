"""The turns that were answered, as they are kept: a question, what was said before it, and the answer."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import insert

from core import tables
from core.database import Database
from providers.types import Message, Parameters


@dataclass(frozen=True)
class Turn:
    """A question (the last of `messages`) and its answer; `created_at` in seconds since 1970."""

    id: str
    owner: str
    conversation_id: str
    model: str
    messages: tuple[Message, ...]
    answer: str
    parameters: Parameters
    finish_reason: str
    reasoning: str = ""
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    first_token_ms: float | None = None
    tokens_per_second: float | None = None
    total_ms: float | None = None
    created_at: float = 0.0

    @property
    def question(self) -> str:
        """What the person asked."""
        return self.messages[-1].content


async def record(database: Database, turn: Turn) -> None:
    """Keep a turn; it is on the disk when this returns. Raises StorageFailed."""
    async with database.transaction() as connection:
        await connection.execute(insert(tables.turns).values(**to_row(turn)))


def to_row(turn: Turn) -> dict[str, Any]:
    """Return a turn as the columns of its table; without a time it happened now."""
    row = asdict(turn)
    row["messages"] = [message.to_json() for message in turn.messages]
    row["created_at"] = turn.created_at or time.time()
    return row


def from_row(row: dict[str, Any]) -> Turn:
    """Return the turn of a table's row."""
    parameters = row["parameters"]
    return Turn(
        **row
        | {
            "messages": tuple(Message(**message) for message in row["messages"]),
            "parameters": Parameters(**parameters | {"stop": tuple(parameters.get("stop") or ())}),
        }
    )
