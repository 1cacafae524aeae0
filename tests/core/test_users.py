"""Who asks, and what they may do."""

from __future__ import annotations

import pytest

from core.errors import NotAllowed
from core.settings import Settings
from core.users import LOCAL, User, check_may_train, current_user


def test_without_accounts_everybody_is_the_one_local_user() -> None:
    assert current_user(Settings(), "a") == current_user(Settings(), "b") == LOCAL
    assert User("local", may_train=True) == LOCAL


def test_a_visitor_is_their_session() -> None:
    settings = Settings(auth="guest")
    ann, bob = current_user(settings, "ann"), current_user(settings, "bob")

    assert ann == current_user(settings, "ann")
    assert ann != bob
    assert LOCAL.name not in (ann.name, bob.name, current_user(settings, "local").name)


def test_a_visitors_name_fits_its_column_however_long_the_session() -> None:
    assert len(current_user(Settings(auth="guest"), "x" * 10_000).name) <= 64


def test_visitors_may_not_train() -> None:
    check_may_train(LOCAL)
    with pytest.raises(NotAllowed, match="Visitors may rate and correct answers, but not train models here"):
        check_may_train(current_user(Settings(auth="guest"), "ann"))
