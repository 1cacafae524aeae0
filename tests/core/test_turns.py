"""Turns are kept as they were, and a turn that cannot be kept is answered all the same."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from core import tables
from core.chat import Answer, Chat, ChatEvent, Question, complete
from core.database import Database
from core.errors import InvalidRequest
from core.models import Models
from core.settings import Settings
from core.turns import Turn, from_row, record
from core.users import User
from providers.types import Message, Notice, Parameters, TextDelta

SHORT = Parameters(max_tokens=20, temperature=0)


def some_turn(turn_id: str = "t1", question: str = "What is tea?", answer: str = "A drink.", **changes: Any) -> Turn:
    turn = Turn(
        id=turn_id,
        owner="local",
        conversation_id="c1",
        model="transformers/tiny",
        messages=(Message("user", question),),
        answer=answer,
        parameters=Parameters(),
        finish_reason="stop",
    )
    return replace(turn, **changes)


async def kept_turns(database: Database) -> list[Turn]:
    async with database.transaction() as connection:
        rows = await connection.execute(select(tables.turns).order_by(tables.turns.c.created_at))
        return [from_row(dict(row._mapping)) for row in rows]


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    database = Database(tmp_path / "data")
    yield database
    await database.aclose()


@pytest.fixture
async def models(app_settings: Settings) -> AsyncIterator[Models]:
    models = Models(replace(app_settings, default_model="tiny"))
    yield models
    await models.aclose()


async def test_a_turn_comes_back_as_it_was_recorded(database: Database) -> None:
    turn = some_turn(
        messages=(Message("system", "Sé amable."), Message("user", "你好\u2028\n\"' \\ 👋\0")),
        answer="¡Hola!\r\n\n  ",
        reasoning="Hm.",
        parameters=Parameters(max_tokens=5, temperature=0.1, seed=2**63 - 1, stop=("a", "\n")),
        finish_reason="length",
        prompt_tokens=3,
        completion_tokens=4,
        first_token_ms=1.5,
        tokens_per_second=20.25,
        total_ms=99.9,
        created_at=1_700_000_000.125,
    )
    await record(database, turn)

    assert await kept_turns(database) == [turn]
    assert turn.question == "你好\u2028\n\"' \\ 👋\0"


async def test_a_turn_without_a_time_happened_now(database: Database) -> None:
    before = time.time()
    await record(database, some_turn())

    assert before <= (await kept_turns(database))[0].created_at <= time.time()


async def test_text_is_kept_as_it_is_so_that_other_programs_can_search_it(database: Database) -> None:
    await record(database, some_turn(question="¿Qué es el té?"))
    async with database.transaction() as connection:
        stored = (await connection.exec_driver_sql("SELECT messages FROM turns")).scalar_one()

    assert "¿Qué es el té?" in stored
    assert json.loads(stored)[0]["role"] == "user"


async def test_an_answer_is_kept_before_it_is_given(models: Models, database: Database) -> None:
    chat = Chat(models, database)
    history = (Message("user", "I am Ann."), Message("assistant", "Hello Ann."))
    question = Question("Hi", history, system="Be kind.", conversation_id="c9", parameters=SHORT, user=User("guest-7"))
    async with aclosing(chat.stream(question)) as events:
        async for event in events:
            if isinstance(event, Answer):
                answer, kept = event, await kept_turns(database)

    assert len(kept) == 1
    turn = kept[0]
    assert (turn.id, turn.owner, turn.conversation_id) == (answer.turn_id, "guest-7", "c9")
    assert turn.id == question.turn_id
    assert turn.model == answer.model == "transformers/tiny"
    assert turn.messages == (Message("system", "Be kind."), *history, Message("user", "Hi"))
    assert (turn.answer, turn.finish_reason) == (answer.text, "length")
    assert turn.parameters == SHORT
    assert (turn.prompt_tokens, turn.completion_tokens) == (answer.usage.prompt_tokens, 20)
    assert turn.tokens_per_second == answer.timings.tokens_per_second
    assert turn.first_token_ms == answer.timings.first_token_ms
    assert turn.total_ms == answer.timings.total_ms


async def test_of_a_stopped_answer_what_was_written_is_kept(models: Models, database: Database) -> None:
    chat = Chat(models, database)
    question = Question("Hi", model="slow", parameters=Parameters(temperature=0, max_tokens=4000))
    written = ""
    async with aclosing(chat.stream(question)) as events:
        async for event in events:
            written += event.text if isinstance(event, TextDelta) else ""
            if len(written) > 5:
                break

    turn = (await kept_turns(database))[0]
    assert (turn.id, turn.finish_reason, turn.answer) == (question.turn_id, "stopped", written)
    assert turn.completion_tokens is None


async def test_of_a_cancelled_answer_what_was_written_is_kept(models: Models, database: Database) -> None:
    chat = Chat(models, database)
    question = Question("Hi", model="slow", parameters=Parameters(temperature=0, max_tokens=4000))
    begun = asyncio.Event()

    async def read() -> None:
        async for event in chat.stream(question):
            if isinstance(event, TextDelta):
                begun.set()

    reading = asyncio.create_task(read())
    await begun.wait()
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading

    turn = (await kept_turns(database))[0]
    assert turn.finish_reason == "stopped"
    assert turn.answer


async def test_an_answer_that_was_stopped_before_its_first_word_is_not_kept(models: Models, database: Database) -> None:
    events = Chat(models, database).stream(Question("x" * 1500, model="slow", parameters=Parameters(max_tokens=4000)))
    reading = asyncio.ensure_future(anext(events))
    await asyncio.sleep(0)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    await events.aclose()

    assert await kept_turns(database) == []


def data_dir_is_a_file(data_dir: Path) -> None:
    data_dir.write_text("")


def database_is_a_folder(data_dir: Path) -> None:
    (data_dir / "simpleia.db").mkdir(parents=True)


def database_is_damaged(data_dir: Path) -> None:
    data_dir.mkdir()
    (data_dir / "simpleia.db").write_bytes(b"no database at all\n" * 1000)


@pytest.mark.parametrize("breaking", [data_dir_is_a_file, database_is_a_folder, database_is_damaged])
async def test_the_answer_comes_with_a_notice_when_it_cannot_be_kept(
    models: Models, tmp_path: Path, breaking: Any
) -> None:
    breaking(tmp_path / "data")
    chat = Chat(models, Database(tmp_path / "data"))
    events: list[ChatEvent] = [event async for event in chat.stream(Question("Hello", parameters=SHORT))]
    notice, answer = events[-2:]

    assert isinstance(answer, Answer)
    assert answer.text == "".join(event.text for event in events if isinstance(event, TextDelta))
    assert answer.text
    assert isinstance(notice, Notice)
    assert answer.notices == (notice,)
    assert str(notice.sentence).startswith("This answer cannot be rated: The data")
    assert str(tmp_path) not in str(notice.sentence)


async def test_answers_are_kept_again_once_the_data_folder_is_mended(models: Models, tmp_path: Path) -> None:
    data_dir_is_a_file(tmp_path / "data")
    database = Database(tmp_path / "data")
    chat = Chat(models, database)
    lost = await complete(chat.stream(Question("Hello", parameters=SHORT)))
    (tmp_path / "data").unlink()
    kept = await complete(chat.stream(Question("Hello", parameters=SHORT)))

    assert len(lost.notices) == 1
    assert kept.notices == ()
    assert [turn.id for turn in await kept_turns(database)] == [kept.turn_id]
    await database.aclose()


async def test_stopping_an_answer_that_cannot_be_kept_says_nothing(models: Models, tmp_path: Path) -> None:
    data_dir_is_a_file(tmp_path / "data")
    chat = Chat(models, Database(tmp_path / "data"))
    async with aclosing(chat.stream(Question("Hello", parameters=SHORT))) as events:
        assert isinstance(await anext(events), TextDelta)


async def test_a_conversation_id_that_cannot_be_kept_is_refused_before_the_answer(
    models: Models, database: Database
) -> None:
    with pytest.raises(InvalidRequest, match="half of a character"):
        await complete(Chat(models, database).stream(Question("Hello", conversation_id="\ud800", parameters=SHORT)))
