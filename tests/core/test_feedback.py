"""Opinions on answers: given, replaced, taken back, found again, and nobody else's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from core.database import Database
from core.errors import InvalidRequest, NotFound, StorageFailed
from core.feedback import (
    MAX_COMMENT,
    MAX_CORRECTION,
    MAX_TAG,
    MAX_TAGS,
    Feedback,
    FeedbackFilter,
    FeedbackStore,
    Opinion,
)
from core.turns import record
from core.users import LOCAL, User
from providers.types import Message
from tests.core.test_turns import kept_turns, some_turn

ANN, BOB = User("guest-ann"), User("guest-bob")


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[FeedbackStore]:
    """Feedback on three turns of the local user and one of Ann's."""
    database = Database(tmp_path)
    await record(database, some_turn("t1", "What is tea?", "A drink."))
    await record(database, some_turn("t2", "¿Qué es un ÑANDÚ?", 'Un "pájaro" 100%_\\', model="openai/gpt"))
    await record(database, some_turn("t3", "Straße?", "Eine\nStraße"))
    await record(database, some_turn("anns", owner=ANN.name))
    yield FeedbackStore(database)
    await database.aclose()


async def found(store: FeedbackStore, user: User = LOCAL, **wanted: str) -> list[str]:
    filtered = FeedbackFilter(**wanted)
    listed = [each.turn.id for each in await store.list(user, filtered)]
    assert await store.count(user, filtered) == len(listed)
    return sorted(listed)


async def test_an_opinion_is_kept_with_its_turn(store: FeedbackStore) -> None:
    opinion = Opinion("down", "Too short.", "A hot drink.", ("facts", "tone"))
    kept = await store.submit(LOCAL, "t1", opinion)

    assert (kept.rating, kept.comment, kept.correction, kept.tags) == (
        "down",
        "Too short.",
        "A hot drink.",
        ("facts", "tone"),
    )
    assert kept.turn.question == "What is tea?"
    assert kept.created_at == kept.updated_at > 0
    assert await store.list(LOCAL) == [kept]
    assert await store.get(LOCAL, kept.id) == kept


async def test_a_new_opinion_replaces_only_what_it_says(store: FeedbackStore) -> None:
    first = await store.submit(LOCAL, "t1", Opinion("up", comment="Good.", tags=("a",)))
    second = await store.submit(LOCAL, "t1", Opinion("down"))
    third = await store.submit(LOCAL, "t1", Opinion(correction="Better.", tags=("b",)))

    assert (second.rating, second.comment, second.tags) == ("down", "Good.", ("a",))
    assert (third.rating, third.comment, third.correction, third.tags) == ("down", "Good.", "Better.", ("b",))
    assert first.id == second.id == third.id
    assert first.created_at == third.created_at < third.updated_at
    assert await store.list(LOCAL) == [third]


async def test_each_part_can_be_taken_back(store: FeedbackStore) -> None:
    await store.submit(LOCAL, "t1", Opinion("up", "Good.", "Better.", ("a",)))
    await store.submit(LOCAL, "t1", Opinion(rating=""))
    await store.submit(LOCAL, "t1", Opinion(comment=""))
    kept = await store.submit(LOCAL, "t1", Opinion(correction=" \n"))

    assert (kept.rating, kept.comment, kept.correction, kept.tags) == (None, "", None, ("a",))


async def test_an_opinion_that_is_taken_back_whole_is_gone(store: FeedbackStore) -> None:
    await store.submit(LOCAL, "t1", Opinion("up", tags=("a",)))
    await store.submit(LOCAL, "t1", Opinion("", tags=()))

    assert await store.list(LOCAL) == []
    assert (await store.submit(LOCAL, "t1", Opinion(rating=""))).rating is None
    assert await store.count(LOCAL) == 0


async def test_opinions_at_the_same_time_are_all_kept(store: FeedbackStore) -> None:
    await asyncio.gather(*(store.count(LOCAL) for _ in range(5)))
    for turn_id in ("t1", "t2", "t3"):
        await asyncio.gather(
            store.submit(LOCAL, turn_id, Opinion(rating="up")),
            store.submit(LOCAL, turn_id, Opinion(comment="Good.")),
            store.submit(LOCAL, turn_id, Opinion(tags=("a",))),
        )

    assert [(each.rating, each.comment, each.tags) for each in await store.list(LOCAL)] == [("up", "Good.", ("a",))] * 3


@pytest.mark.parametrize("turn_id", ["", "no such turn", "anns", "' OR 1=1 --", "x" * 10_000])
async def test_a_turn_that_is_unknown_or_another_persons_is_not_found(store: FeedbackStore, turn_id: str) -> None:
    with pytest.raises(NotFound, match="of yours. Give the turn_id that came with the answer.") as refused:
        await store.submit(LOCAL, turn_id, Opinion(rating="up"))

    assert len(str(refused.value)) < 200
    assert await store.count(LOCAL) == await store.count(ANN) == 0


@pytest.mark.parametrize("correction", ["A drink.", "  A drink.\n"])
async def test_a_correction_that_is_the_answer_is_refused(store: FeedbackStore, correction: str) -> None:
    with pytest.raises(InvalidRequest, match="The correction is the answer itself. Change it, or give a thumbs up"):
        await store.submit(LOCAL, "t1", Opinion(correction=correction))


@pytest.mark.parametrize(
    ("opinion", "sentence"),
    [
        (Opinion(), "The feedback is empty. Give a rating, a comment, a correction or tags."),
        (Opinion("sideways"), 'rating must be "up", "down", or empty to take it back.'),
        (Opinion("UP"), 'rating must be "up", "down", or empty to take it back.'),
        (Opinion(comment="x" * 5_001), "The comment has 5001 characters, and at most 5000 are kept. Shorten it."),
        (
            Opinion(correction="x" * (MAX_CORRECTION + 1)),
            "The correction has 100001 characters, and at most 100000 are kept. Shorten it.",
        ),
        (Opinion(tags=("",)), "At most 20 tags of 1 to 50 characters are kept."),
        (Opinion(tags=(" ",)), "At most 20 tags of 1 to 50 characters are kept."),
        (Opinion(tags=("x" * 51,)), "At most 20 tags of 1 to 50 characters are kept."),
        (Opinion(tags=("x",) * 21), "At most 20 tags of 1 to 50 characters are kept."),
    ],
)
async def test_an_opinion_that_cannot_be_kept_is_refused(store: FeedbackStore, opinion: Opinion, sentence: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        await store.submit(LOCAL, "t1", opinion)

    assert str(refused.value) == sentence
    assert await store.count(LOCAL) == 0


@pytest.mark.parametrize(
    "opinion", [Opinion(comment="\ud800"), Opinion(correction="a\udfff"), Opinion(tags=("\udc00",))]
)
async def test_half_a_character_is_refused_wherever_it_is(store: FeedbackStore, opinion: Opinion) -> None:
    with pytest.raises(InvalidRequest, match="half of a character"):
        await store.submit(LOCAL, "t1", opinion)
    with pytest.raises(InvalidRequest, match="half of a character"):
        await store.submit(LOCAL, "\ud800", Opinion("up"))
    with pytest.raises(InvalidRequest, match="half of a character"):
        await store.count(LOCAL, FeedbackFilter(words="\ud800"))


async def test_the_longest_that_is_taken_is_kept(store: FeedbackStore) -> None:
    opinion = Opinion("up", "ñ" * MAX_COMMENT, "👋" * MAX_CORRECTION, ("é" * MAX_TAG,) * MAX_TAGS)
    kept = await store.submit(LOCAL, "t1", opinion)

    assert await store.get(LOCAL, kept.id) == kept
    assert Opinion(kept.rating, kept.comment, kept.correction, kept.tags) == opinion


async def test_feedback_is_listed_newest_first_and_in_pages(store: FeedbackStore) -> None:
    for turn_id in ("t1", "t2", "t3", "t1"):
        await store.submit(LOCAL, turn_id, Opinion("up"))

    assert [each.turn.id for each in await store.list(LOCAL)] == ["t1", "t3", "t2"]
    assert [each.turn.id for each in await store.list(LOCAL, limit=1, offset=1)] == ["t3"]


async def test_feedback_is_found_by_its_kind_and_model(store: FeedbackStore) -> None:
    await store.submit(LOCAL, "t1", Opinion("up"))
    await store.submit(LOCAL, "t2", Opinion("down"))
    await store.submit(LOCAL, "t3", Opinion("down", correction="Better."))

    assert await found(store) == ["t1", "t2", "t3"]
    assert await found(store, kind="up") == ["t1"]
    assert await found(store, kind="down") == ["t2", "t3"]
    assert await found(store, kind="corrected") == ["t3"]
    assert await found(store, model="openai/gpt") == ["t2"]
    assert await found(store, model="openai/gpt", kind="up") == []
    assert await found(store, model="openai") == []
    with pytest.raises(InvalidRequest, match='kind must be "up", "down", "corrected", or empty for all'):
        await store.list(LOCAL, FeedbackFilter(kind="sideways"))


@pytest.mark.parametrize(
    ("words", "turns"),
    [
        ("tea", ["t1"]),
        ("  TEA ", ["t1"]),
        ("drink", ["t1"]),
        ("ñandú", ["t2"]),
        ("ÑANDÚ", ["t2"]),
        ("PÁJARO", ["t2"]),
        ("strasse", ["t3"]),
        ("eine\nstraße", ["t3"]),
        ('un "pájaro"', ["t2"]),
        ("100%_\\", ["t2"]),
        ("%", ["t2"]),
        ("_", ["t2"]),
        ("comentario útil", ["t1"]),
        ("corrección", ["t3"]),
        ("content", []),
        ("user", []),
        ("", ["t1", "t2", "t3"]),
        (" \n", ["t1", "t2", "t3"]),
        ("x" * 60_000, []),
    ],
)
async def test_words_are_found_in_what_was_said_and_in_the_opinion(
    store: FeedbackStore, words: str, turns: list[str]
) -> None:
    await store.submit(LOCAL, "t1", Opinion("up", comment="Comentario ÚTIL"))
    await store.submit(LOCAL, "t2", Opinion("up"))
    await store.submit(LOCAL, "t3", Opinion(correction="Una CORRECCIÓN"))

    assert await found(store, words=words) == turns


async def test_words_are_found_in_what_was_said_before(store: FeedbackStore) -> None:
    messages = (
        Message("system", "Be kind."),
        Message("user", "One"),
        Message("assistant", "Two"),
        Message("user", "3"),
    )
    await record(store.database, some_turn("long", messages=messages))
    await store.submit(LOCAL, "long", Opinion("up"))

    for words in ("be KIND", "one", "two", "3"):
        assert await found(store, words=words) == ["long"]


async def test_nobody_sees_or_changes_what_is_another_persons(store: FeedbackStore) -> None:
    mine = await store.submit(LOCAL, "t1", Opinion("up", "Mine."))
    anns = await store.submit(ANN, "anns", Opinion("down", "Ann's."))

    assert await store.list(ANN) == [anns]
    assert await found(store, BOB) == []
    assert await found(store, ANN, words="Mine") == []
    assert await store.ratings(ANN, ["t1", "anns"]) == {"anns": "down"}
    for attempt in (store.get(ANN, mine.id), store.delete(ANN, mine.id), store.get(BOB, anns.id)):
        with pytest.raises(NotFound, match="There is no feedback .* of yours. List your feedback to see what there is"):
            await attempt
    assert await store.list(LOCAL) == [mine]


async def test_forgotten_feedback_is_gone_and_its_turn_stays(store: FeedbackStore) -> None:
    kept = await store.submit(LOCAL, "t1", Opinion("up"))
    await store.delete(LOCAL, kept.id)

    assert await store.list(LOCAL) == []
    assert "t1" in [turn.id for turn in await kept_turns(store.database)]
    with pytest.raises(NotFound):
        await store.delete(LOCAL, kept.id)


async def test_feedback_goes_with_its_turn(store: FeedbackStore) -> None:
    await store.submit(LOCAL, "t1", Opinion("up"))
    await store.submit(LOCAL, "t2", Opinion("up"))
    async with store.database.transaction() as connection:
        await connection.exec_driver_sql("DELETE FROM turns WHERE id = 't1'")
        left = (await connection.exec_driver_sql("SELECT turn_id FROM feedback")).scalars().all()

    assert left == ["t2"]


async def test_ratings_are_those_of_the_turns_asked_for(store: FeedbackStore) -> None:
    await store.submit(LOCAL, "t1", Opinion("up"))
    await store.submit(LOCAL, "t2", Opinion(comment="No thumb."))
    await store.submit(LOCAL, "t3", Opinion("down"))

    assert await store.ratings(LOCAL, ["t1", "t2", "none"]) == {"t1": "up"}
    assert await store.ratings(LOCAL, []) == {}
    assert await store.ratings(LOCAL, [*map(str, range(2_000)), "t3"]) == {"t3": "down"}


def exported(turn_id: str = "new", **opinion: str) -> Feedback:
    turn = some_turn(turn_id, "Imported?", "Yes.", owner="", finish_reason="imported", created_at=5.0)
    feedback = Feedback(
        id="", turn=turn, rating="up", comment="", correction=None, tags=(), created_at=5.0, updated_at=5.0
    )
    return replace(feedback, **opinion)  # type: ignore[arg-type]  # Only texts are changed here.


async def test_imported_feedback_is_kept_with_its_turns(store: FeedbackStore) -> None:
    await store.add(LOCAL, [exported("new"), exported("newer", comment="Good.")])
    kept = {each.turn.id: each for each in await store.list(LOCAL)}

    assert kept.keys() == {"new", "newer"}
    assert kept["newer"].comment == "Good."
    assert kept["new"].turn == replace(exported().turn, owner="local")


async def test_imported_feedback_replaces_what_is_here(store: FeedbackStore) -> None:
    await store.submit(LOCAL, "t1", Opinion("down", "Old.", "Old.", ("old",)))
    await store.add(LOCAL, [exported("t1", correction="New.")])
    kept = (await store.list(LOCAL))[0]

    assert (kept.rating, kept.comment, kept.correction, kept.tags) == ("up", "", "New.", ())
    assert kept.turn.answer == "A drink."


async def test_importing_twice_changes_nothing(store: FeedbackStore) -> None:
    for _ in range(2):
        await store.add(LOCAL, [exported("new")])

    assert await found(store) == ["new"]


async def test_an_imported_turn_with_the_id_of_another_persons_becomes_ones_own(store: FeedbackStore) -> None:
    await store.submit(ANN, "anns", Opinion("down"))
    await store.add(LOCAL, [exported("anns")])
    mine, anns = (await store.list(LOCAL))[0], (await store.list(ANN))[0]

    assert mine.turn.id != "anns"
    assert mine.turn.answer == "Yes."
    assert (anns.turn.id, anns.turn.answer, anns.rating) == ("anns", "A drink.", "down")


async def test_an_import_that_fails_keeps_nothing(store: FeedbackStore) -> None:
    with pytest.raises(InvalidRequest):
        await store.add(LOCAL, [exported("new"), exported("broken", comment="\ud800")])

    assert await found(store) == []
    assert "new" not in [turn.id for turn in await kept_turns(store.database)]


async def test_feedback_that_cannot_be_stored_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    store = FeedbackStore(Database(tmp_path / "file"))
    with pytest.raises(StorageFailed, match="The data could not be stored"):
        await store.submit(LOCAL, "t1", Opinion("up"))
