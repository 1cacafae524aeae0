"""What people think of the answers: a rating, a comment, a correction, tags; one of each for a person and a turn."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from sqlalchemy import ColumnElement, Select, delete, func, insert, or_, select, update

from core import tables, turns
from core.database import Database
from core.errors import HalfACharacter, InvalidRequest, NotFound
from core.turns import Turn
from core.users import User
from providers.sentences import say

Rating = Literal["up", "down"]
RATINGS = ("up", "down")
MAX_COMMENT = 5_000
MAX_CORRECTION = 100_000
MAX_TAGS = 20
MAX_TAG = 50
MAX_LISTED = 1_000


@dataclass(frozen=True)
class Opinion:
    """What a person says of an answer. `None` leaves what was said before; an empty text takes it back."""

    rating: str | None = None
    comment: str | None = None
    correction: str | None = None
    tags: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Feedback:
    """What is kept of a person's opinion on a turn; times in seconds since 1970."""

    id: str
    turn: Turn
    rating: Rating | None
    comment: str
    correction: str | None
    tags: tuple[str, ...]
    created_at: float
    updated_at: float


@dataclass(frozen=True)
class FeedbackFilter:
    """Which feedback: empty fields take all. `kind` is "up", "down" or "corrected"; `words` occur in a text."""

    kind: str = ""
    model: str = ""
    words: str = ""


@dataclass(frozen=True)
class FeedbackStore:
    """Keeps feedback. A person sees and changes only their own."""

    database: Database

    async def submit(self, user: User, turn_id: str, opinion: Opinion) -> Feedback:
        """Keep an opinion in the place of the one before; it is on the disk when this returns.

        Raises InvalidRequest, NotFound for a turn that is not this person's, and StorageFailed.
        """
        check_opinion(opinion)
        async with self.database.transaction(alone=True) as connection:
            mine = tables.turns.c.owner == user.name
            found = (
                await connection.execute(select(tables.turns).where(tables.turns.c.id == turn_id, mine))
            ).one_or_none()
            if found is None:
                raise NotFound(
                    say("There is no answer {turn_id} of yours.", turn_id=turn_id[:64]),
                    say("Give the turn_id that came with the answer."),
                )
            turn = turns.from_row(dict(found._mapping))
            if opinion.correction and opinion.correction.strip() == turn.answer.strip():
                raise InvalidRequest(
                    say("The correction is the answer itself."), say("Change it, or give a thumbs up instead.")
                )
            return await _replace(connection, user, turn, opinion)

    async def list(
        self, user: User, wanted: FeedbackFilter | None = None, limit: int = MAX_LISTED, offset: int = 0
    ) -> list[Feedback]:
        """List a person's feedback, newest first."""
        query = _query(user, wanted or FeedbackFilter()).limit(limit).offset(offset)
        async with self.database.transaction() as connection:
            return [_feedback(row._mapping) for row in await connection.execute(query)]

    async def count(self, user: User, wanted: FeedbackFilter | None = None) -> int:
        """Count a person's feedback."""
        query = select(func.count()).select_from(_query(user, wanted or FeedbackFilter()).subquery())
        async with self.database.transaction() as connection:
            return int((await connection.execute(query)).scalar_one())

    async def ratings(self, user: User, turn_ids: Sequence[str]) -> dict[str, Rating]:
        """Return how a person rated these turns; those that they did not rate are not in it."""
        row = tables.feedback
        query = select(row.c.turn_id, row.c.rating).where(
            row.c.owner == user.name, row.c.rating.is_not(None), row.c.turn_id.in_(turn_ids[-500:])
        )
        async with self.database.transaction() as connection:
            return {row.turn_id: row.rating for row in await connection.execute(query)}

    async def get(self, user: User, feedback_id: str) -> Feedback:
        """Return one feedback. Raises NotFound."""
        query = _query(user, FeedbackFilter()).where(tables.feedback.c.id == feedback_id)
        async with self.database.transaction() as connection:
            row = (await connection.execute(query)).one_or_none()
        if row is None:
            raise _unknown(feedback_id)
        return _feedback(row._mapping)

    async def delete(self, user: User, feedback_id: str) -> None:
        """Forget one feedback; the turn stays. Raises NotFound."""
        row = tables.feedback
        async with self.database.transaction() as connection:
            gone = await connection.execute(delete(row).where(row.c.id == feedback_id, row.c.owner == user.name))
        if not gone.rowcount:
            raise _unknown(feedback_id)

    async def add(self, user: User, given: Sequence[Feedback]) -> None:
        """Keep feedback that was exported elsewhere, with its turns; it replaces what is here. All or nothing."""
        async with self.database.transaction(alone=True) as connection:
            for feedback in given:
                turn = replace(feedback.turn, owner=user.name)
                known = (
                    await connection.execute(select(tables.turns.c.owner).where(tables.turns.c.id == turn.id))
                ).scalar_one_or_none()
                if known is not None and known != user.name:
                    turn = replace(turn, id=uuid.uuid4().hex)
                if known != user.name:
                    await connection.execute(insert(tables.turns).values(**turns.to_row(turn)))
                opinion = Opinion(feedback.rating or "", feedback.comment, feedback.correction or "", feedback.tags)
                await _replace(connection, user, turn, opinion)


def check_opinion(opinion: Opinion) -> None:
    """Raise InvalidRequest for an opinion that is empty, too long, or of unknown ratings."""
    if opinion == Opinion():
        raise InvalidRequest(say("The feedback is empty."), say("Give a rating, a comment, a correction or tags."))
    if opinion.rating not in (None, "", *RATINGS):
        raise InvalidRequest(say('rating must be "up", "down", or empty to take it back.'))
    for name, text, limit in (
        ("comment", opinion.comment, MAX_COMMENT),
        ("correction", opinion.correction, MAX_CORRECTION),
    ):
        if text is not None and len(text) > limit:
            raise InvalidRequest(
                say(
                    "The {name} has {length} characters, and at most {limit} are kept.",
                    name=name,
                    length=len(text),
                    limit=limit,
                ),
                say("Shorten it."),
            )
        if any("\ud800" <= character <= "\udfff" for character in text or ""):
            raise HalfACharacter
    tags = opinion.tags or ()
    if len(tags) > MAX_TAGS or any(not tag.strip() or len(tag) > MAX_TAG for tag in tags):
        raise InvalidRequest(
            say("At most {count} tags of 1 to {length} characters are kept.", count=MAX_TAGS, length=MAX_TAG)
        )


async def _replace(connection: Any, user: User, turn: Turn, opinion: Opinion) -> Feedback:
    row = tables.feedback
    mine = (row.c.owner == user.name) & (row.c.turn_id == turn.id)
    before = (await connection.execute(select(row).where(mine))).one_or_none()
    now = time.time()
    kept: dict[str, Any] = (
        dict(before._mapping)
        if before
        else {
            "id": uuid.uuid4().hex,
            "owner": user.name,
            "turn_id": turn.id,
            "rating": None,
            "comment": "",
            "correction": None,
            "tags": [],
            "created_at": now,
        }
    )
    kept["updated_at"] = now
    if opinion.rating is not None:
        kept["rating"] = opinion.rating or None
    if opinion.comment is not None:
        kept["comment"] = opinion.comment
    if opinion.correction is not None:
        kept["correction"] = opinion.correction if opinion.correction.strip() else None
    if opinion.tags is not None:
        kept["tags"] = list(opinion.tags)
    empty = not (kept["rating"] or kept["comment"] or kept["correction"] or kept["tags"])
    if empty:
        await connection.execute(delete(row).where(mine))
    elif before:
        await connection.execute(update(row).where(mine).values(**kept))
    else:
        await connection.execute(insert(row).values(**kept))
    shown = {key: value for key, value in kept.items() if key not in ("owner", "turn_id")}
    return Feedback(**shown | {"turn": turn, "tags": tuple(kept["tags"])})


def _query(user: User, wanted: FeedbackFilter) -> Select[Any]:
    row, turn = tables.feedback, tables.turns
    query = (
        select(row, *(column.label(f"turn_{column.name}") for column in turn.c if column.name != "id"))
        .join(turn, row.c.turn_id == turn.c.id)
        .where(row.c.owner == user.name)
        .order_by(row.c.updated_at.desc(), row.c.id)
    )
    if wanted.kind in RATINGS:
        query = query.where(row.c.rating == wanted.kind)
    elif wanted.kind == "corrected":
        query = query.where(row.c.correction.is_not(None))
    elif wanted.kind:
        raise InvalidRequest(say('kind must be "up", "down", "corrected", or empty for all.'))
    if wanted.model:
        query = query.where(turn.c.model == wanted.model)
    if words := wanted.words.strip():
        message = func.json_each(turn.c.messages).table_valued("value")
        said = func.json_extract(message.c.value, "$.content")
        in_messages = select(message.c.value).where(_holds(said, words)).exists()
        texts = (turn.c.answer, row.c.comment, row.c.correction)
        query = query.where(or_(in_messages, *(_holds(text, words) for text in texts)))
    return query


def _holds(text: ColumnElement[Any], words: str) -> ColumnElement[bool]:
    return func.instr(func.casefold(text), words.casefold()) > 0


def _feedback(row: Any) -> Feedback:
    turn = {name.removeprefix("turn_"): value for name, value in row.items() if name.startswith("turn_")}
    own = {name: value for name, value in row.items() if not name.startswith("turn_") and name != "owner"}
    return Feedback(**own | {"turn": turns.from_row(turn), "tags": tuple(row["tags"])})


def _unknown(feedback_id: str) -> NotFound:
    return NotFound(
        say("There is no feedback {feedback_id} of yours.", feedback_id=feedback_id[:64]),
        say("List your feedback to see what there is."),
    )
