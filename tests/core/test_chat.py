"""A turn from a question to its recorded answer."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import pytest

from core.chat import MAX_CHARACTERS, MAX_HISTORY_MESSAGES, Answer, Chat, ChatEvent, Question, complete
from core.database import Database
from core.errors import InvalidRequest, RequestRefused
from core.models import Models
from core.settings import Settings
from providers.errors import ContextTooLong, ModelNotFound, ProviderError
from providers.types import Message, Notice, Parameters, TextDelta
from tests.engine_watch import EngineWatch
from tests.tiny_models import SLOW_LAYERS

SHORT = Parameters(max_tokens=20, temperature=0)


@pytest.fixture
async def chat(app_settings: Settings, tmp_path: Path) -> AsyncIterator[Chat]:
    models = Models(replace(app_settings, default_model="tiny"))
    database = Database(tmp_path)
    yield Chat(models, database)
    await models.aclose()
    await database.aclose()


async def events_of(chat: Chat, question: Question) -> list[ChatEvent]:
    return [event async for event in chat.stream(question)]


async def test_an_answer_is_its_deltas(chat: Chat) -> None:
    *deltas, answer = await events_of(chat, Question("Hello", parameters=SHORT))

    assert isinstance(answer, Answer)
    assert answer.text == "".join(delta.text for delta in deltas if isinstance(delta, TextDelta))
    assert answer.model == "transformers/tiny"
    assert answer.finish_reason == "length"
    assert answer.usage.completion_tokens == 20
    assert not answer.cached


async def test_the_time_is_measured(chat: Chat) -> None:
    timings = (await complete(chat.stream(Question("Hello", parameters=SHORT)))).timings

    assert 0 < timings.first_token_ms < timings.total_ms < 60_000
    assert timings.tokens_per_second > 0


async def test_speed_counts_from_the_first_token_on(chat: Chat) -> None:
    one = (await complete(chat.stream(Question("Hello", parameters=replace(SHORT, max_tokens=1))))).timings
    many = (await complete(chat.stream(Question("Hello", parameters=replace(SHORT, max_tokens=200))))).timings

    assert one.tokens_per_second == 0
    assert many.tokens_per_second == pytest.approx(199 / (many.total_ms - many.first_token_ms) * 1000, rel=0.2)


async def test_a_conversation_keeps_its_id_and_each_turn_has_its_own(chat: Chat) -> None:
    answers = [await complete(chat.stream(Question("Hi", conversation_id="c1", parameters=SHORT))) for _ in range(2)]
    new = await complete(chat.stream(Question("Hi", parameters=SHORT)))

    assert [answer.conversation_id for answer in answers] == ["c1", "c1"]
    assert new.conversation_id not in ("", "c1")
    assert len({answer.turn_id for answer in [*answers, new]}) == 3


async def test_the_history_and_the_system_prompt_reach_the_model(chat: Chat) -> None:
    bare = await complete(chat.stream(Question("Hi", parameters=SHORT)))
    history = (Message("user", "I am Ann."), Message("assistant", "Hello Ann."))
    full = await complete(chat.stream(Question("Hi", history=history, system="Be kind.", parameters=SHORT)))
    blank = await complete(chat.stream(Question("Hi", system="  \n", parameters=SHORT)))

    assert full.usage.prompt_tokens > bare.usage.prompt_tokens + len("I am Ann.Hello Ann.Be kind.")
    assert blank.usage.prompt_tokens == bare.usage.prompt_tokens


async def test_a_long_conversation_is_shortened_with_a_notice_first_and_in_the_answer(chat: Chat) -> None:
    history = tuple(
        message for number in range(100) for message in (Message("user", f"Q{number}"), Message("assistant", "a" * 50))
    )
    first, *_, answer = await events_of(chat, Question("Hi", history=history, system="Stay.", parameters=SHORT))

    assert isinstance(first, Notice)
    assert isinstance(answer, Answer)
    assert answer.notices == (first,)
    assert "oldest messages were left out" in str(first.sentence)
    assert "2048 tokens" in str(first.sentence)
    left_out = int(str(first.sentence).split()[1])
    assert left_out % 2 == 0
    assert 0 < left_out < 200
    assert answer.usage.prompt_tokens <= 2048 - 20


async def test_a_message_that_cannot_fit_is_refused_with_its_count_and_the_limit(chat: Chat) -> None:
    with pytest.raises(ContextTooLong) as refused:
        await events_of(chat, Question("x" * 3000, parameters=SHORT))
    tokens = int(str(refused.value).split()[3])

    assert tokens == await chat.models.provider("transformers").count_tokens([Message("user", "x" * 3000)], "tiny")
    assert "at most 2028" in str(refused.value)


@pytest.mark.parametrize("message", ["", " ", "\n\t ", "\u3000\u00a0"])
async def test_an_empty_message_is_refused(chat: Chat, message: str) -> None:
    with pytest.raises(InvalidRequest, match="The message is empty. Write something first."):
        await events_of(chat, Question(message))


async def test_more_than_anyone_writes_is_refused_before_it_is_read(chat: Chat, engine: EngineWatch) -> None:
    for question in (
        Question("x" * (MAX_CHARACTERS + 1)),
        Question("x", system="x" * MAX_CHARACTERS),
        Question("x", history=(Message("user", "x"),) * (MAX_HISTORY_MESSAGES + 1)),
        Question("x", history=(Message("user", "x" * (MAX_CHARACTERS + 1)),)),
    ):
        with pytest.raises(InvalidRequest, match="at most"):
            await events_of(chat, question)
    assert chat.models.state("tiny").loaded is None


@pytest.mark.parametrize("broken", ["\ud800", "a\udfffb"])
async def test_half_a_character_is_refused_with_a_sentence_about_it(chat: Chat, broken: str) -> None:
    for question in (
        Question(broken, parameters=SHORT),
        Question("x", system=broken, parameters=SHORT),
        Question("x", history=(Message("user", broken), Message("assistant", "y")), parameters=SHORT),
    ):
        with pytest.raises((InvalidRequest, ProviderError), match="character"):
            await events_of(chat, question)


@pytest.mark.parametrize("name", ["no such model!", "empty", "pickled", "corrupt", "~nobody-here/x", "/" + "x" * 5000])
async def test_a_model_that_cannot_be_used_is_refused_with_a_sentence(chat: Chat, name: str) -> None:
    with pytest.raises(ModelNotFound) as refused:
        await events_of(chat, Question("Hi", model=name, parameters=SHORT))

    assert str(refused.value).endswith(".")
    assert "/tmp" not in str(refused.value)
    assert len(str(refused.value)) < 500


async def test_after_a_refusal_the_next_question_is_answered(chat: Chat) -> None:
    with pytest.raises((RequestRefused, ProviderError)):
        await events_of(chat, Question("Hi", model="corrupt"))

    assert (await complete(chat.stream(Question("Hi", parameters=SHORT)))).usage.completion_tokens == 20


@pytest.mark.parametrize("model", ["plain", "dialogue"])
async def test_a_model_without_a_chat_format_says_so(chat: Chat, model: str) -> None:
    answer = await complete(chat.stream(Question("Hi", model=model, parameters=SHORT)))

    assert [str(notice.sentence) for notice in answer.notices] == [
        "This model has no chat format of its own; a plain one is used."
    ]


async def test_closing_a_turn_stops_the_model(chat: Chat, engine: EngineWatch) -> None:
    question = Question("Hi", model="slow", parameters=Parameters(temperature=0, max_tokens=4000))
    async with aclosing(chat.stream(question)) as events:
        async for event in events:
            if isinstance(event, TextDelta):
                break

    assert engine.layers_until_quiet() <= SLOW_LAYERS
