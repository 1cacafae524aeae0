"""Between the page's entries and the conversation: which turn an entry is, and which thumb is pressed."""

from __future__ import annotations

from typing import Any

import pytest

from components.transcript import (
    BLOCK_CHARACTERS,
    answer_entry,
    conversation,
    entry_text,
    figures_entry,
    growing_entry,
    reasoning_entry,
    shown_ratings,
    turn_id_of,
    up_to_last_question,
    user_entry,
    warning_entry,
    whole,
)
from core.chat import Answer, Timings
from providers.types import Message, Usage

ENTRIES = [
    user_entry("Hi"),
    reasoning_entry("Hm.", "en"),
    answer_entry("Hello", "t1"),
    warning_entry("It was cut."),
    user_entry("Who are you?"),
    answer_entry("A model", "t2"),
    answer_entry("Written before turns were kept"),
]


def test_an_answer_knows_its_turn() -> None:
    assert [turn_id_of(entry) for entry in ENTRIES] == ["", "", "t1", "", "", "t2", ""]
    assert turn_id_of(answer_entry("x", "turn-1")) == "turn-1"


@pytest.mark.parametrize(
    "entry", [{}, {"metadata": None}, {"metadata": {}}, {"metadata": {"id": None}}, {"metadata": {"id": 5}}]
)
def test_an_entry_from_elsewhere_has_no_turn(entry: dict[str, Any]) -> None:
    assert turn_id_of(entry) == ""


def test_a_thumb_is_shown_for_each_entry_that_is_not_the_persons() -> None:
    assert shown_ratings(ENTRIES, {"t1": "up", "t2": "down", "t3": "up"}) == [None, "Like", None, "Dislike", None]
    assert shown_ratings(ENTRIES, {}) == [None] * 5
    assert shown_ratings([], {"t1": "up"}) == []


@pytest.mark.parametrize(("estimated", "beginning"), [(False, "✓ 12 tokens · "), (True, "✓ ≈ 12 tokens · ")])
def test_tokens_that_nobody_counted_are_shown_as_about_so_many(estimated: bool, beginning: str) -> None:
    usage, timings = Usage(3, 12, estimated), Timings(100.0, 20.0, 700.0)
    answer = Answer("Hello", "", "openai/x", "t1", "c1", "stop", usage, timings, ())
    assert entry_text(figures_entry(answer, "en")).startswith(beginning)


def test_a_turns_id_changes_nothing_in_the_conversation() -> None:
    assert conversation(ENTRIES[:6]) == (
        Message("user", "Hi"),
        Message("assistant", "Hello"),
        Message("user", "Who are you?"),
        Message("assistant", "A model"),
    )
    assert up_to_last_question(ENTRIES) == ENTRIES[:5]


def test_a_growing_answer_is_in_blocks_that_end_at_blank_lines_outside_of_code() -> None:
    code = "```python\n" + "x = 1\n\n" * BLOCK_CHARACTERS + "```\n\n"
    answer = "A paragraph.\n\n" * 1000 + code + "The end"

    entry = growing_entry(answer, "1")
    blocks = [block["text"] for block in entry["content"]]

    assert entry_text(entry) == answer
    assert len(blocks) > 4
    assert all(block.endswith("\n\n") and block.count("```") % 2 == 0 for block in blocks[:-1])
    assert blocks[-1] == "The end"
    assert whole([user_entry("Hi"), entry]) == [user_entry("Hi"), answer_entry(answer, "1")]


def test_an_earlier_block_stays_as_it_is_while_the_answer_grows() -> None:
    answer = "A paragraph.\n\n" * 1000
    early, late = (growing_entry(answer[:end], "1")["content"] for end in (8000, 12_000))

    assert early[:-1] == late[: len(early) - 1]
