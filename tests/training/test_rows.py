"""Rows of training text: from feedback and files, without doubles, with a part held out."""

from __future__ import annotations

import json
from typing import Any

import pytest

from core.errors import InvalidRequest
from core.feedback import Feedback
from providers.types import Message
from tests.core.test_turns import some_turn
from training.rows import Row, from_feedback, from_file, from_line, prepare, to_line


def lines(*rows: Any) -> bytes:
    return "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows).encode()


def pair(prompt: str, completion: str = "Yes.") -> dict[str, str]:
    return {"prompt": prompt, "completion": completion}


def said(*texts: str) -> list[dict[str, str]]:
    return [{"role": ("user", "assistant")[index % 2], "content": text} for index, text in enumerate(texts)]


def reason_for(row: Any) -> str:
    """Return why a row is left out of a file that has a good one before."""
    rows, errors = from_file(lines(pair("Hi"), row))
    assert len(rows) == 1
    assert [error.row for error in errors] == [2]
    return str(errors[0].reason)


def some_feedback(turn_id: str, rating: Any = None, correction: str | None = None, **turn: Any) -> Feedback:
    return Feedback("f", some_turn(turn_id, **turn), rating, "", correction, (), 0, 0)


def some_rows(count: int, groups: int = 10_000) -> list[Row]:
    return [
        Row((Message("user", f"Q{number}"), Message("assistant", "A")), group=f"g{number % groups}")
        for number in range(count)
    ]


def held_out(rows: list[Row]) -> set[str]:
    return {row.group for row in prepare(rows, len(rows))[0] if row.held_out}


def test_corrections_are_learnt_and_thumbs_up_where_wanted() -> None:
    given = [
        some_feedback("t1", correction="Better."),
        some_feedback("t2", "up"),
        some_feedback("t3", "down"),
        some_feedback("t4", "up", "Even better."),
        some_feedback("t5", "up", answer=" \n"),
    ]
    corrected, all_good = from_feedback(given, with_thumbs_up=False), from_feedback(given, with_thumbs_up=True)

    assert [(row.source, row.messages[-1].content) for row in corrected] == [
        ("turn t1", "Better."),
        ("turn t4", "Even better."),
    ]
    assert [(row.source, row.messages[-1].content) for row in all_good] == [
        ("turn t1", "Better."),
        ("turn t2", "A drink."),
        ("turn t4", "Even better."),
    ]


def test_what_was_said_before_is_part_of_the_row() -> None:
    talk = (Message("system", "S"), Message("user", "1"), Message("assistant", "2"), Message("user", "3"))
    row = from_feedback([some_feedback("t1", correction="4", messages=talk, conversation_id="c7")], False)[0]

    assert row.messages == (*talk, Message("assistant", "4"))
    assert row.group == "c7"


def test_a_file_may_hold_pairs_and_conversations() -> None:
    rows, errors = from_file(lines(pair("Hi", " Hello\n"), {"messages": said("1", "2", "3", "4"), "extra": 1}))

    assert errors == ()
    assert rows[0].messages == (Message("user", "Hi"), Message("assistant", " Hello\n"))
    assert [message.content for message in rows[1].messages] == ["1", "2", "3", "4"]
    assert [row.source for row in rows] == ["row 1", "row 2"]


def test_a_file_that_begins_otherwise_holds_plain_lines() -> None:
    rows, errors = from_file("\ufeffOne line.\r\n\r\n  Another: \u2028 {x}\r\n".encode())

    assert [(row.text, row.messages, row.source) for row in rows] == [
        ("One line.", (), "row 1"),
        ("Another: \u2028 {x}", (), "row 3"),
    ]
    assert errors == ()


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ('{"prompt": "x", "completion": }', "The row is not JSON; it breaks at character 31."),
        ("plain text", "The row is not JSON; it breaks at character 1."),
        ([1], "The row is not a JSON object."),
        ({}, "The row has no prompt and completion; its columns are none."),
        ({"question": "x", "answer": "y"}, "The row has no prompt and completion; its columns are question, answer."),
        ({"prompt": "x"}, "The row has no completion; its columns are prompt."),
        ({"prompt": "x", "completion": None}, "prompt and completion must be texts."),
        ({"prompt": ["x"], "completion": "y"}, "prompt and completion must be texts."),
        (pair("x", " \n"), "The completion is empty."),
        (pair(" "), "The prompt is empty."),
        ({"messages": []}, "messages must be a list of roles and contents."),
        ({"messages": said("x")}, "The last of messages must be the assistant's."),
        ({"messages": said("x", "")}, "The completion is empty."),
        ({"messages": said("", "x")}, "The prompt is empty."),
        ({"messages": [{"role": "assistant", "content": "x"}]}, "The prompt is empty."),
        (
            {"messages": [{"role": "system", "content": "x"}, {"role": "assistant", "content": "y"}]},
            "The prompt is empty.",
        ),
        (pair("\ud800"), "The text holds half of a character (a lone surrogate), which no model can read."),
    ],
)
def test_a_row_that_cannot_be_read_is_left_out_with_its_number_and_a_reason(row: Any, reason: str) -> None:
    assert reason_for(row) == reason


def test_the_columns_of_a_row_are_told_in_short() -> None:
    assert len(reason_for({"x" * 10_000: 1})) < 300


def test_a_file_that_is_no_text_is_refused() -> None:
    with pytest.raises(InvalidRequest, match=r"The file is not UTF-8 text \(byte 0\)"):
        from_file(b"\xff\xfe\0")


def test_rows_that_occur_twice_are_kept_once_and_counted() -> None:
    rows, _ = from_file(lines(pair("a"), pair("b"), pair("a"), pair("a", "No."), pair("a")))
    kept, report = prepare(rows, 5)

    assert sorted(row.source for row in kept) == ["row 1", "row 2", "row 4"]
    assert (report.given, report.duplicates) == (5, 2)


def test_nothing_to_learn_is_refused_with_what_to_do() -> None:
    with pytest.raises(InvalidRequest) as refused:
        prepare([], 0)
    with pytest.raises(InvalidRequest, match="The dataset is empty: The row is not a JSON object. Correct some"):
        prepare(*from_file(b"[]")[:1], given=1, errors=from_file(b"[]")[1])

    assert str(refused.value) == (
        "The dataset would be empty. Correct some answers in the chat first, "
        'or import a file with {"prompt": "...", "completion": "..."} rows.'
    )


@pytest.mark.parametrize(("count", "groups"), [(5, 1), (14, 1), (15, 2), (100, 10), (1000, 100)])
def test_a_tenth_is_held_out_and_at_least_one(count: int, groups: int) -> None:
    assert len(held_out(some_rows(count))) == groups


@pytest.mark.parametrize("count", [1, 4])
def test_of_few_rows_none_is_held_out_and_that_is_said(count: int) -> None:
    kept, report = prepare(some_rows(count), count)

    assert not any(row.held_out for row in kept)
    assert [str(warning) for warning in report.warnings] == [
        "With fewer than 5 conversations all rows are trained on, and none is left to measure with."
    ]
    assert prepare(some_rows(5), 5)[1].warnings == ()


def test_a_conversation_is_never_split() -> None:
    kept, _ = prepare(some_rows(100, groups=20), 100)
    inside = {row.group for row in kept if row.held_out}

    assert len(inside) == 2
    assert sum(row.held_out for row in kept) == 10
    assert not inside & {row.group for row in kept if not row.held_out}


def test_the_same_question_in_a_file_is_one_group_however_it_is_written() -> None:
    rows, _ = from_file(
        lines(pair("What is  Tea?", "1"), pair(" what is tea?\n", "2"), {"messages": said("WHAT is tea?", "3")})
    )

    assert len({row.group for row in rows}) == 1


def test_the_same_rows_are_held_out_in_any_order() -> None:
    rows = some_rows(50)

    assert held_out(rows) == held_out(rows[::-1]) == held_out([*rows, *rows])


def test_more_rows_leave_most_of_those_held_out_where_they_were() -> None:
    assert len(held_out(some_rows(200)) & held_out(some_rows(210))) >= 15


@pytest.mark.parametrize(
    "row",
    [
        Row(
            (Message("system", "S"), Message("user", "¿\u2028?"), Message("assistant", '"\n')),
            source="t",
            held_out=True,
        ),
        Row(text="Plain\u2029 text", source="row 1"),
    ],
)
def test_a_row_comes_back_from_its_line(row: Row) -> None:
    assert from_line(to_line(row)) == row
    assert to_line(row).count("\n") == 1
