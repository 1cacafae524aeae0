"""Feedback as JSON Lines: one object a line, with the whole turn, so that it can be read back anywhere."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, get_args

from core.errors import HalfACharacter, InvalidRequest
from core.feedback import Feedback, Opinion, check_opinion
from core.turns import Turn
from providers.sentences import Sentence, say
from providers.types import Message, Parameters, Role

MAX_BYTES = 10_000_000
MAX_ROWS = 100_000
LATEST = 1e11  # seconds since 1970


@dataclass(frozen=True)
class RowError:
    """Why the row with this number, counted from 1, was left out."""

    row: int
    reason: Sentence


@dataclass(frozen=True)
class FeedbackFile:
    """What could be read of a file, and what could not."""

    feedback: tuple[Feedback, ...]
    errors: tuple[RowError, ...]


def to_lines(rows: Iterable[Feedback]) -> Iterator[str]:
    """Write feedback as JSON Lines."""
    for row in rows:
        yield (
            json.dumps(
                {
                    "turn_id": row.turn.id,
                    "conversation_id": row.turn.conversation_id,
                    "model": row.turn.model,
                    "messages": [message.to_json() for message in row.turn.messages],
                    "answer": row.turn.answer,
                    "rating": row.rating,
                    "comment": row.comment,
                    "correction": row.correction,
                    "tags": list(row.tags),
                    "created_at": row.created_at,
                },
                ensure_ascii=False,
            )
            + "\n"
        )


def parse_feedback(content: bytes) -> FeedbackFile:
    """Read what `to_lines` wrote. Raises InvalidRequest for a file that is too large or has no good row."""
    rows: list[Feedback] = []
    errors: list[RowError] = []
    for number, line in numbered_lines(content):
        try:
            rows.append(_feedback(parse_object(line)))
        except InvalidRequest as error:
            errors.append(RowError(number, error.message))
    if not rows:
        reason = errors[0].reason if errors else say("The file is empty.")
        raise InvalidRequest(
            say("The file holds no feedback: {reason}", reason=reason), say("Give a file that was exported here.")
        )
    return FeedbackFile(tuple(rows), tuple(errors))


def numbered_lines(content: bytes) -> Iterator[tuple[int, str]]:
    """Yield the lines that hold something, with their numbers from 1. Raises InvalidRequest for too much or no text."""
    if len(content) > MAX_BYTES:
        raise InvalidRequest(
            say("The file has {size} bytes, and at most {limit} are taken.", size=len(content), limit=MAX_BYTES),
            say("Split it."),
        )
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidRequest(
            say("The file is not UTF-8 text (byte {position}).", position=error.start), say("Save it as UTF-8.")
        ) from error
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    if len(lines) > MAX_ROWS:
        raise InvalidRequest(
            say("The file has {count} rows, and at most {limit} are taken.", count=len(lines), limit=MAX_ROWS),
            say("Split it."),
        )
    for number, line in enumerate(lines, start=1):
        if line.strip():
            yield number, line


def parse_object(line: str) -> dict[str, Any]:
    """Read one JSON object. Raises InvalidRequest that says where it breaks."""
    try:
        row = json.loads(line, parse_constant=lambda _: None)
        json.dumps(row, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise HalfACharacter from error
    except (ValueError, RecursionError) as error:
        place = getattr(error, "colno", 1)
        raise InvalidRequest(say("The row is not JSON; it breaks at character {place}.", place=place)) from error
    if not isinstance(row, dict):
        raise InvalidRequest(say("The row is not a JSON object."))
    return row


def parse_messages(value: Any) -> tuple[Message, ...]:
    """Read a list of messages. Raises InvalidRequest."""
    good = isinstance(value, list) and all(
        isinstance(each, dict) and each.get("role") in get_args(Role) and isinstance(each.get("content"), str)
        for each in value
    )
    if not good or not value:
        raise InvalidRequest(say("messages must be a list of roles and contents."))
    return tuple(Message(each["role"], each["content"]) for each in value)


def _feedback(row: dict[str, Any]) -> Feedback:
    messages = parse_messages(row.get("messages"))
    if messages[-1].role != "user":
        raise InvalidRequest(say("The last of messages must be the person's."))
    texts = {name: row.get(name) or "" for name in ("answer", "comment", "correction", "turn_id", "conversation_id")}
    texts |= {"model": row.get("model") or "", "rating": row.get("rating") or ""}
    for name, value in texts.items():
        if not isinstance(value, str):
            raise InvalidRequest(say("{name} must be a text.", name=name))
    tags = row.get("tags") or []
    if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
        raise InvalidRequest(say("tags must be a list of texts."))
    created = row.get("created_at")
    opinion = Opinion(
        texts["rating"] or None, texts["comment"] or None, texts["correction"] or None, tuple(tags) or None
    )
    check_opinion(opinion)
    turn = Turn(
        id=texts["turn_id"][:64] or uuid.uuid4().hex,
        owner="",
        conversation_id=texts["conversation_id"][:64] or uuid.uuid4().hex,
        model=texts["model"][:500],
        messages=messages,
        answer=texts["answer"],
        parameters=Parameters(),
        finish_reason="imported",
        created_at=float(created) if isinstance(created, int | float) and 0 < created < LATEST else time.time(),
    )
    return Feedback(
        id="",
        turn=turn,
        rating=opinion.rating,  # type: ignore[arg-type]  # check_opinion knows the ratings.
        comment=texts["comment"],
        correction=opinion.correction,
        tags=tuple(tags),
        created_at=turn.created_at,
        updated_at=turn.created_at,
    )
