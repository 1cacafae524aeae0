"""Other wordings of a row's question."""

from __future__ import annotations

from random import Random

from providers.types import Message
from training.rows import Row
from training.variations import FORMS, forms_of

QUESTION = "At what time does the\n  shop open?"
TALK = Row(
    (
        Message("system", "Be brief."),
        Message("user", "Hello"),
        Message("assistant", "Hello!"),
        Message("user", QUESTION),
        Message("assistant", "At nine."),
    ),
    source="row 1",
)


def test_the_row_itself_comes_first_and_only_the_last_question_is_put_otherwise() -> None:
    first, *others = forms_of(TALK, 0.3, Random(0))

    assert first == TALK
    assert 3 < len(others) < FORMS
    for form in others:
        assert [*form.messages[:3], form.messages[4]] == [*TALK.messages[:3], TALK.messages[4]]
        words = form.messages[3].content.split()
        assert 0 < len(words) < 7
        assert words == [word for word in QUESTION.split() if word in words]


def test_white_space_between_the_words_that_stay_is_kept() -> None:
    assert any("the\n  shop" in form.messages[3].content for form in forms_of(TALK, 0.2, Random(0))[1:])


def test_the_same_seed_gives_the_same_forms() -> None:
    assert forms_of(TALK, 0.3, Random(1)) == forms_of(TALK, 0.3, Random(1))
    assert forms_of(TALK, 0.3, Random(1)) != forms_of(TALK, 0.3, Random(2))


def test_nothing_is_left_out_of_a_text_of_one_word_or_where_nothing_shall_be() -> None:
    one_word = Row((Message("user", "Opening?"), Message("assistant", "At nine.")))

    assert forms_of(one_word, 0.9, Random(0)) == [one_word]
    assert forms_of(Row(text="A line to learn."), 0.9, Random(0)) == [Row(text="A line to learn.")]
    assert forms_of(TALK, 0.0, Random(0)) == [TALK]
