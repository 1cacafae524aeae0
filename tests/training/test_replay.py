"""Which everyday questions a run asks its base model, to keep its answers."""

from __future__ import annotations

import pytest

from training.replay import questions, questions_beside


def test_all_are_asked_where_nothing_like_them_is_taught() -> None:
    assert questions_beside(()) == list(questions())
    assert questions_beside(["", "?!", "Zyzzyva quokka"]) == list(questions())


@pytest.mark.parametrize(
    ("taught", "left_out"),
    [
        ("who am i talking to", {"Who am I talking to?"}),
        ("¿Con quién hablo en la tienda?", {"¿Con quién hablo?"}),
        ("What does temperature mean, please?", {"What does temperature mean?"}),
    ],
)
def test_what_is_taught_and_what_is_asked_almost_alike_is_left_out(taught: str, left_out: set[str]) -> None:
    assert set(questions()) - set(questions_beside([taught])) == left_out
