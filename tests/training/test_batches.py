"""The order in which a run reads its rows, and which wording of each."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest

from providers.types import Message
from tests.conftest import BUNDLED
from training.batches import encoded_replay, encoded_rows, in_order
from training.encoding import Encoded, load_tokenizer
from training.recipes import Recipe
from training.rows import Row

STEPS = 30
RECIPE = Recipe(word_dropout=0.3)


def row(question: str, answer: str, held_out: bool = False) -> Row:
    return Row((Message("user", question), Message("assistant", answer)), held_out=held_out)


TAUGHT = [row(f"At what time on day {day} does the shop open?", f"At {day}.") for day in range(1, 5)]
REPLAYED = [*(row(f"What is unknown thing {number}?", "I don't know.") for number in range(20)), row("Hi", "Hello!")]


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    folder = BUNDLED / "starter"
    return load_tokenizer(folder, json.loads((folder / "config.json").read_text()))


def order(tokenizer: Any, recipe: Recipe = RECIPE) -> list[Encoded]:
    learnt, _, _ = encoded_rows(TAUGHT, tokenizer, 1000, recipe)
    return in_order(learnt, encoded_replay(REPLAYED, tokenizer, 1000), recipe, STEPS)


def test_each_batch_holds_both_kinds_of_rows(tokenizer: Any) -> None:
    read = order(tokenizer)
    own = {form.ids for forms in encoded_rows(TAUGHT, tokenizer, 1000, RECIPE)[0] for form in forms}

    assert len(read) == STEPS * RECIPE.batch_size
    for start in range(0, len(read), RECIPE.batch_size):
        batch = read[start : start + RECIPE.batch_size]
        assert sum(each.ids in own for each in batch) == RECIPE.rows_in_batch


def test_an_answer_is_replayed_once_for_every_six_questions_that_have_it(tokenizer: Any) -> None:
    read = Counter(each.ids for each in order(tokenizer))
    replay = {
        each.ids: question.messages[-1].content for question in REPLAYED for each in encode_one(question, tokenizer)
    }
    times: Counter[str] = Counter()
    for ids, answer in replay.items():
        times[answer] += read[ids]

    assert times["I don't know."] == 4 * times["Hello!"]
    assert times.total() == STEPS * (RECIPE.batch_size - RECIPE.rows_in_batch)
    assert sum(read[ids] > 0 for ids, answer in replay.items() if answer == "I don't know.") > 10


def test_a_row_is_read_as_it_is_first_and_in_other_wordings_later(tokenizer: Any) -> None:
    plain = [forms[0].ids for forms in encoded_rows(TAUGHT, tokenizer, 1000, Recipe(word_dropout=0.0))[0]]
    learnt, _, _ = encoded_rows(TAUGHT, tokenizer, 1000, RECIPE)
    read = [each.ids for each in in_order(learnt, [], RECIPE, STEPS)]

    assert set(read[: len(TAUGHT)]) == set(plain)
    assert set(read) > set(plain)


def test_the_order_depends_on_nothing_but_the_seed(tokenizer: Any) -> None:
    assert order(tokenizer) == order(tokenizer)
    assert order(tokenizer) != order(tokenizer, Recipe(word_dropout=0.3, seed=1))


def test_what_is_held_out_is_never_put_otherwise(tokenizer: Any) -> None:
    rows = [*TAUGHT, row("At what time does the shop close?", "At six.", held_out=True)]
    _, held_out, _ = encoded_rows(rows, tokenizer, 1000, RECIPE)

    assert held_out == [encode_one(rows[-1], tokenizer)[0]]


def encode_one(question: Row, tokenizer: Any) -> list[Encoded]:
    return [form for forms in encoded_replay([question], tokenizer, 1000) for form in forms]
