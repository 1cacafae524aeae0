"""Feedback as a file: what is written is read back, and what cannot be read is told row by row."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from core import feedback_files
from core.database import Database
from core.errors import InvalidRequest
from core.feedback import FeedbackStore, Opinion
from core.feedback_files import MAX_BYTES, MAX_ROWS, numbered_lines, parse_feedback, to_lines
from core.turns import record
from core.users import LOCAL, User
from providers.types import Message
from tests.core.test_turns import some_turn

GOOD: dict[str, Any] = {"messages": [{"role": "user", "content": "Hi"}], "answer": "Hello", "rating": "up"}


def line(**changes: Any) -> str:
    return json.dumps(GOOD | changes, ensure_ascii=False)


def parsed(*lines: str, ending: str = "\n") -> feedback_files.FeedbackFile:
    return parse_feedback("".join(each + ending for each in lines).encode())


def reason_for(row: str) -> str:
    """Return why a row is left out of a file that has a good one before."""
    file = parsed(line(), row)
    assert len(file.feedback) == 1
    assert [error.row for error in file.errors] == [2]
    return str(file.errors[0].reason)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[FeedbackStore]:
    database = Database(tmp_path)
    yield FeedbackStore(database)
    await database.aclose()


async def test_what_is_exported_is_imported_by_somebody_else_as_it_was(store: FeedbackStore) -> None:
    talk = (
        Message("system", "Be\u2028kind."),
        Message("user", "¿Qué?"),
        Message("assistant", "Té"),
        Message("user", "\n"),
    )
    await record(store.database, some_turn("t1", messages=talk, answer='A "b"\\\r\n👋', created_at=5.25))
    await record(store.database, some_turn("t2"))
    await store.submit(LOCAL, "t1", Opinion("down", "Too\nshort.", "Mejor: té.", ("tono", "x y")))
    await store.submit(LOCAL, "t2", Opinion("up"))
    exported = await store.list(LOCAL)
    other = FeedbackStore(Database(store.database.file.parent / "other"))
    file = parse_feedback("".join(to_lines(exported)).encode())
    await other.add(User("guest-1"), file.feedback)
    imported = {each.turn.id: each for each in await other.list(User("guest-1"))}
    await other.database.aclose()

    assert file.errors == ()
    for before in exported:
        after = imported[before.turn.id]
        assert (after.rating, after.comment, after.correction, after.tags) == (
            before.rating,
            before.comment,
            before.correction,
            before.tags,
        )
        assert after.turn == replace(
            before.turn, owner="guest-1", finish_reason="imported", created_at=before.created_at
        )


def test_a_file_has_one_readable_line_for_each() -> None:
    row = parsed(line(comment="¿Té?\n\u2028")).feedback[0]
    written = list(to_lines([row, row]))

    assert len(written) == 2
    assert all(each.endswith("}\n") and each.count("\n") == 1 and "¿Té?" in each for each in written)
    assert json.loads(written[0]).keys() == {
        "turn_id",
        "conversation_id",
        "model",
        "messages",
        "answer",
        "rating",
        "comment",
        "correction",
        "tags",
        "created_at",
    }


def test_a_row_needs_only_its_messages_and_an_opinion() -> None:
    before = time.time()
    first, second = parsed(line(), line()).feedback

    assert first.turn.id != second.turn.id
    assert first.turn.conversation_id != second.turn.conversation_id
    assert (first.turn.question, first.turn.answer, first.rating) == ("Hi", "Hello", "up")
    assert (first.comment, first.correction, first.tags) == ("", None, ())
    assert before <= first.turn.created_at <= time.time()


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r", "\n\n", "\r\n  \r\n"])
def test_any_line_ending_is_read(ending: str) -> None:
    assert len(parsed(line(), line(), ending=ending).feedback) == 2


def test_empty_lines_count_in_the_numbers_of_rows() -> None:
    file = parsed("", line(), "", "broken", ending="\r\n")

    assert [error.row for error in file.errors] == [4]


def test_a_byte_order_mark_is_not_part_of_the_file() -> None:
    assert len(parse_feedback(b"\xef\xbb\xbf" + line().encode()).feedback) == 1


@pytest.mark.parametrize("character", ["\u2028", "\u2029", "\x85", "\v", "\f"])
def test_only_line_endings_end_a_line(character: str) -> None:
    assert (
        parse_feedback(json.dumps(GOOD | {"comment": f"a{character}b"}, ensure_ascii=False).encode())
        .feedback[0]
        .comment
        == f"a{character}b"
    )


def test_a_file_that_is_not_utf_8_is_refused_with_the_place() -> None:
    with pytest.raises(InvalidRequest) as refused:
        parse_feedback(line(answer="año").encode("latin-1"))
    with pytest.raises(InvalidRequest, match="not UTF-8"):
        parse_feedback(line().encode("utf-16"))

    place = line(answer="año").index("ñ")
    assert str(refused.value) == f"The file is not UTF-8 text (byte {place}). Save it as UTF-8."


@pytest.mark.parametrize("content", [b"", b"\n \r\n\t", b"\xef\xbb\xbf"])
def test_an_empty_file_is_refused(content: bytes) -> None:
    with pytest.raises(InvalidRequest) as refused:
        parse_feedback(content)

    assert str(refused.value) == ("The file holds no feedback: The file is empty. Give a file that was exported here.")


def test_a_file_without_a_good_row_is_refused_with_the_first_reason() -> None:
    with pytest.raises(InvalidRequest, match="The file holds no feedback: The row is not a JSON object."):
        parsed("[]", "broken")


def test_a_file_that_is_too_large_is_refused_before_it_is_read() -> None:
    with pytest.raises(InvalidRequest) as refused:
        parse_feedback(b"\xff" * (MAX_BYTES + 1))

    assert str(refused.value) == "The file has 10000001 bytes, and at most 10000000 are taken. Split it."


def test_a_file_with_too_many_rows_is_refused() -> None:
    assert len(list(numbered_lines(b"x\n" * (MAX_ROWS - 1)))) == MAX_ROWS - 1
    with pytest.raises(InvalidRequest, match="The file has 100001 rows, and at most 100000 are taken. Split it."):
        list(numbered_lines(b"x\n" * MAX_ROWS))


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ('{"messages": [}', "The row is not JSON; it breaks at character 15."),
        ("hello", "The row is not JSON; it breaks at character 1."),
        ("[" * 100_000, "The row is not JSON; it breaks at character 1."),
        ('{"created_at": ' + "9" * 5_000 + "}", "The row is not JSON; it breaks at character 1."),
        ('["a"]', "The row is not a JSON object."),
        ("null", "The row is not a JSON object."),
        ("{}", "messages must be a list of roles and contents."),
        (line(messages=[]), "messages must be a list of roles and contents."),
        (line(messages="Hi"), "messages must be a list of roles and contents."),
        (line(messages=["Hi"]), "messages must be a list of roles and contents."),
        (line(messages=[{"role": "tool", "content": "x"}]), "messages must be a list of roles and contents."),
        (line(messages=[{"role": ["user"], "content": "x"}]), "messages must be a list of roles and contents."),
        (line(messages=[{"role": "user", "content": None}]), "messages must be a list of roles and contents."),
        (line(messages=[{"role": "assistant", "content": "x"}]), "The last of messages must be the person's."),
        (line(answer=5), "answer must be a text."),
        (line(rating=["up"]), "rating must be a text."),
        (line(turn_id={"a": 1}), "turn_id must be a text."),
        (line(rating="sideways"), 'rating must be "up", "down", or empty to take it back.'),
        (line(comment="x" * 5_001), "The comment has 5001 characters, and at most 5000 are kept."),
        (line(tags="tone"), "tags must be a list of texts."),
        (line(tags=[1]), "tags must be a list of texts."),
        (line(tags=["x"] * 21), "At most 20 tags of 1 to 50 characters are kept."),
        (line(rating=None), "The feedback is empty."),
        (line(rating="", comment="", correction="", tags=[]), "The feedback is empty."),
        (
            json.dumps(GOOD | {"answer": "\ud800"}),
            "The text holds half of a character (a lone surrogate), which no model can read.",
        ),
    ],
)
def test_a_row_that_cannot_be_read_is_left_out_with_its_number_and_a_reason(row: str, reason: str) -> None:
    assert reason_for(row) == reason


@pytest.mark.parametrize("created_at", ["yesterday", None, [], "NaN", 1e999, -1, 0, 10**400, 1e300])
def test_a_time_that_is_none_is_now(created_at: Any) -> None:
    before = time.time()
    row = parsed(line(created_at=created_at)).feedback[0]

    assert before <= row.turn.created_at <= time.time()


def test_whole_characters_may_be_escaped() -> None:
    assert parsed(json.dumps(GOOD | {"comment": "👋"})).feedback[0].comment == "👋"


def test_ids_and_names_fit_their_columns() -> None:
    turn = parsed(line(turn_id="x" * 999, conversation_id="y" * 999, model="z" * 999)).feedback[0].turn

    assert (len(turn.id), len(turn.conversation_id), len(turn.model)) == (64, 64, 500)
