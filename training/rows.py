"""A row of training text and its normalised form: JSON Lines, one conversation or one plain text a line."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from core.errors import InvalidRequest
from core.feedback import Feedback
from core.feedback_files import RowError, numbered_lines, parse_messages, parse_object
from providers.sentences import Sentence, say
from providers.types import Message

HELD_OUT_SHARE = 0.1
FEWEST_FOR_HELD_OUT = 5
COLUMNS = '{"prompt": "...", "completion": "..."}'


@dataclass(frozen=True)
class Row:
    """A conversation whose last message is learnt, or a plain `text` that is learnt whole.

    `group` names what must not be split between training and held-out part; `source` says where the row is from.
    """

    messages: tuple[Message, ...] = ()
    text: str = ""
    group: str = ""
    source: str = ""
    held_out: bool = False


@dataclass(frozen=True)
class RowReport:
    """What became of the rows that were given."""

    given: int
    duplicates: int = 0
    errors: tuple[RowError, ...] = ()
    warnings: tuple[Sentence, ...] = ()


def from_feedback(rows: Iterable[Feedback], with_thumbs_up: bool) -> list[Row]:
    """Turn corrections into rows, and answers that were rated up, if wanted."""
    learnt = []
    for each in rows:
        answer = each.correction or (each.turn.answer if with_thumbs_up and each.rating == "up" else None)
        if answer and answer.strip():
            messages = (*each.turn.messages, Message("assistant", answer))
            learnt.append(Row(messages, group=each.turn.conversation_id, source=f"turn {each.turn.id}"))
    return learnt


def from_file(content: bytes) -> tuple[list[Row], tuple[RowError, ...]]:
    """Read JSON Lines of {"prompt", "completion"} or {"messages"}, or plain lines; report each row that is left out.

    Raises InvalidRequest for a file that is no text or too large.
    """
    lines = list(numbered_lines(content))
    is_json = bool(lines) and lines[0][1].lstrip().startswith(("{", "["))
    rows: list[Row] = []
    errors: list[RowError] = []
    for number, line in lines:
        try:
            row = _from_object(line) if is_json else Row(text=line.strip(), group=line.strip())
        except InvalidRequest as error:
            errors.append(RowError(number, error.message))
        else:
            rows.append(replace(row, source=f"row {number}"))
    return rows, tuple(errors)


def prepare(rows: Sequence[Row], given: int, errors: tuple[RowError, ...] = ()) -> tuple[list[Row], RowReport]:
    """Drop rows that occur twice and choose the held-out part, by whole groups. Raises InvalidRequest for no row."""
    unique = list({(row.messages, row.text): row for row in reversed(rows)}.values())[::-1]
    if not unique:
        raise InvalidRequest(
            say("The dataset is empty: {reason}", reason=errors[0].reason)
            if errors
            else say("The dataset would be empty."),
            say("Correct some answers in the chat first, or import a file with {columns} rows.", columns=COLUMNS),
        )
    held_out = _held_out_groups(unique)
    few = say(
        "With fewer than {needed} conversations all rows are trained on, and none is left to measure with.",
        needed=FEWEST_FOR_HELD_OUT,
    )
    warnings = () if held_out else (few,)
    split = [replace(row, held_out=row.group in held_out) for row in unique]
    return split, RowReport(given, len(rows) - len(unique), errors, warnings)


def to_line(row: Row) -> str:
    """Write the normalised form of a row."""
    body = {"messages": [message.to_json() for message in row.messages]} if row.messages else {"text": row.text}
    return json.dumps(body | {"held_out": row.held_out, "source": row.source}, ensure_ascii=False) + "\n"


def from_line(line: str) -> Row:
    """Read the normalised form of a row."""
    data = json.loads(line)
    return Row(
        messages=tuple(Message(**message) for message in data.get("messages", ())),
        text=data.get("text", ""),
        source=data["source"],
        held_out=data["held_out"],
    )


def _held_out_groups(rows: Sequence[Row]) -> frozenset[str]:
    """Choose a tenth of the groups, at least one; none where rows are few.

    The choice depends on what is in them alone, and takes in turn from each answer that is taught, so that no answer
    loses more of its rows than another.
    """
    first = {row.group: row for row in reversed(rows)}
    if len(first) < FEWEST_FOR_HELD_OUT:
        return frozenset()
    by_chance = sorted(
        first, key=lambda group: hashlib.sha256(to_line(replace(first[group], source="")).encode()).digest()
    )
    seen: Counter[str] = Counter()
    turns: dict[str, int] = {}
    for group in by_chance:
        answer = first[group].messages[-1].content if first[group].messages else ""
        turns[group] = seen[answer]
        seen[answer] += 1
    in_turn = sorted(by_chance, key=lambda group: turns[group])
    return frozenset(in_turn[: max(1, round(HELD_OUT_SHARE * len(in_turn)))])


def _from_object(line: str) -> Row:
    row = parse_object(line)
    if "messages" in row:
        messages = parse_messages(row["messages"])
        if messages[-1].role != "assistant":
            raise InvalidRequest(say("The last of messages must be the assistant's."))
    else:
        missing = [name for name in ("prompt", "completion") if name not in row]
        if missing:
            raise InvalidRequest(
                say(
                    "The row has no {missing}; its columns are {columns}.",
                    missing=" and ".join(missing),
                    columns=", ".join(map(str, row))[:200] or "none",
                )
            )
        texts = [row["prompt"], row["completion"]]
        if not all(isinstance(text, str) for text in texts):
            raise InvalidRequest(say("prompt and completion must be texts."))
        messages = (Message("user", texts[0]), Message("assistant", texts[1]))
    if not messages[-1].content.strip():
        raise InvalidRequest(say("The completion is empty."))
    if not any(message.content.strip() for message in messages if message.role == "user"):
        raise InvalidRequest(say("The prompt is empty."))
    group = " ".join(next(message.content for message in messages if message.role == "user").lower().split())
    return Row(messages, group=group)
