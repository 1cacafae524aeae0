"""The settings of a run: checked at the door, with defaults that fit the model and the data."""

from __future__ import annotations

import json
from typing import Any

import pytest

from core.errors import InvalidRequest
from training.recipes import SPECS, Recipe, parse_recipe, recipe_from_json, recipe_json


@pytest.mark.parametrize("values", [None, {}, dict.fromkeys(SPECS)])
def test_nothing_given_is_the_default(values: dict[str, Any] | None) -> None:
    assert parse_recipe(values) == Recipe()


def test_what_is_given_is_taken_in_its_type() -> None:
    recipe = parse_recipe({"epochs": 2, "rank": 8.0, "learning_rate": 1e-3, "replay": 0, "seed": 7})

    assert recipe == Recipe(epochs=2.0, rank=8, learning_rate=1e-3, replay=0.0, seed=7)
    assert isinstance(recipe.rank, int)
    assert isinstance(recipe.epochs, float)


@pytest.mark.parametrize("name", list(SPECS))
def test_the_bounds_are_inclusive_and_nothing_beyond_them_is_taken(name: str) -> None:
    spec = SPECS[name]
    for value in (spec.minimum, spec.maximum):
        assert getattr(parse_recipe({name: value}), name) == value
    for beyond in (spec.minimum - 1, spec.maximum + 1, float("inf"), float("nan"), "1", True, [1]):
        with pytest.raises(InvalidRequest, match=f"{name} must be a"):
            parse_recipe({name: beyond})


@pytest.mark.parametrize("name", ["rank", "batch_size", "max_length", "seed"])
def test_whole_numbers_have_no_fraction(name: str) -> None:
    with pytest.raises(InvalidRequest, match=f"{name} must be a whole number from"):
        parse_recipe({name: 20.5})


def test_an_unknown_setting_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InvalidRequest) as refused:
        parse_recipe({"epoch": 3})

    assert str(refused.value) == (
        "There is no setting epoch. "
        "The settings are: epochs, learning_rate, rank, dropout, word_dropout, batch_size, max_length, replay, seed."
    )
    with pytest.raises(InvalidRequest) as refused:
        parse_recipe({"x" * 10_000: 3})
    assert len(str(refused.value)) < 300


@pytest.mark.parametrize("values", [[], "epochs", 3, [("epochs", 3)]])
def test_a_recipe_is_an_object(values: Any) -> None:
    with pytest.raises(InvalidRequest, match="The recipe must be an object of settings"):
        parse_recipe(values)


@pytest.mark.parametrize(
    ("recipe", "rows", "steps"),
    [
        (Recipe(), 1, 140),
        (Recipe(), 100, 140),
        (Recipe(), 200, 201),
        (Recipe(), 1000, 1002),
        (Recipe(replay=0), 1000, 300),
        (Recipe(epochs=1), 1000, 334),
        (Recipe(epochs=1), 1, 1),
        (Recipe(epochs=0.01), 1, 1),
        (Recipe(epochs=2.5), 10, 9),
        (Recipe(epochs=1, batch_size=1, replay=0.9), 10, 10),
    ],
)
def test_the_steps_follow_from_the_rows(recipe: Recipe, rows: int, steps: int) -> None:
    assert recipe.steps(rows) == steps


@pytest.mark.parametrize(
    ("recipe", "rows", "share"),
    [
        (Recipe(), 20, 0.15),
        (Recipe(), 138, 0.15),
        (Recipe(), 139, 0.0),
        (Recipe(), 200, 0.0),
        (Recipe(epochs=50), 20, 0.0),
        (Recipe(word_dropout=0.0), 20, 0.0),
        (Recipe(word_dropout=0.3), 1000, 0.3),
    ],
)
def test_words_are_left_out_of_few_rows_unless_it_is_said_otherwise(recipe: Recipe, rows: int, share: float) -> None:
    assert recipe.share_left_out(rows) == share


@pytest.mark.parametrize(
    ("batch_size", "replay", "own"), [(8, 0.5, 4), (8, 0, 8), (8, 0.9, 1), (1, 0.5, 1), (1, 0.9, 1), (256, 0.25, 192)]
)
def test_a_batch_holds_at_least_one_row_of_the_dataset(batch_size: int, replay: float, own: int) -> None:
    assert Recipe(batch_size=batch_size, replay=replay).rows_in_batch == own


def test_the_learning_rate_suits_the_width_unless_it_is_given() -> None:
    assert Recipe(learning_rate=1e-3).rate(64) == 1e-3
    assert Recipe().rate(2000) == pytest.approx(2.5e-4)
    assert Recipe().rate(256) == pytest.approx(1.23e-3, rel=0.01)
    assert Recipe().rate(4096) < Recipe().rate(2000) < Recipe().rate(64) < 0.01


def test_a_recipe_comes_back_from_json() -> None:
    recipe = Recipe(epochs=1.5, rank=4, replay=0.25)

    assert recipe_from_json(json.loads(json.dumps(recipe_json(recipe)))) == recipe


def test_a_recipe_of_another_version_is_read_without_what_is_no_more() -> None:
    assert recipe_from_json({"rank": 4, "alpha": 32}) == Recipe(rank=4)
