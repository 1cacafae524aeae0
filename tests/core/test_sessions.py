"""Who chose which model."""

from __future__ import annotations

from core.sessions import MAX_SESSIONS, SessionModels


def test_each_session_has_its_own_choice() -> None:
    sessions = SessionModels()
    sessions.choose("ann", "transformers/a")
    sessions.choose("bob", "transformers/b")
    sessions.choose("ann", "transformers/c")

    assert sessions.chosen("ann") == "transformers/c"
    assert sessions.chosen("bob") == "transformers/b"
    assert sessions.chosen("new") == ""


def test_the_session_that_chose_longest_ago_is_forgotten() -> None:
    sessions = SessionModels()
    for number in range(MAX_SESSIONS):
        sessions.choose(f"session {number}", "model")
    sessions.choose("session 0", "model")
    sessions.choose("one more", "model")

    assert sessions.chosen("session 0") == "model"
    assert sessions.chosen("session 1") == ""
    assert sessions.chosen("session 2") == "model"
