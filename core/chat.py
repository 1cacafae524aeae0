"""One chat turn, from a question to its recorded answer. Every door calls `Chat.stream`; there is no second path."""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import asdict, dataclass, field

from core.context import fit_context
from core.database import Database
from core.errors import HalfACharacter, InvalidRequest, StorageFailed
from core.images import check_images, check_sees, leave_out_pictures
from core.models import Models
from core.turns import Turn, record
from core.users import LOCAL, User
from providers.errors import ProviderError
from providers.sentences import say
from providers.types import (
    ChatRequest,
    Finished,
    FinishReason,
    Image,
    Message,
    ModelInfo,
    Notice,
    Parameters,
    Queued,
    ReasoningDelta,
    TextDelta,
    TokenLogprob,
    Usage,
)

MAX_CHARACTERS = 1_000_000
MAX_HISTORY_MESSAGES = 2_000
MAX_ID = 64


@dataclass(frozen=True)
class Question:
    """What a person asks: a message, the conversation before it, and who shall answer how."""

    message: str
    history: tuple[Message, ...] = ()
    model: str = ""
    system: str = ""
    conversation_id: str = ""
    parameters: Parameters = field(default_factory=Parameters)
    images: tuple[Image, ...] = ()
    session: str = field(default="", repr=False)
    user: User = LOCAL
    turn_id: str = field(default_factory=lambda: uuid.uuid4().hex)


@dataclass(frozen=True)
class Timings:
    """Measured from the question's arrival, loading excluded; speed counts from the first token on."""

    first_token_ms: float
    tokens_per_second: float
    total_ms: float


@dataclass(frozen=True)
class Answer:
    """The last event of a turn: the whole answer and what it took."""

    text: str
    reasoning: str
    model: str
    turn_id: str
    conversation_id: str
    finish_reason: FinishReason
    usage: Usage
    timings: Timings
    notices: tuple[Notice, ...]
    logprobs: tuple[TokenLogprob, ...] = ()
    cost_usd: float | None = None
    cached: bool = False


ChatEvent = TextDelta | ReasoningDelta | Notice | Queued | Answer


@dataclass
class Chat:
    """Answers questions with the models of one server."""

    models: Models
    database: Database

    async def stream(self, question: Question) -> AsyncGenerator[ChatEvent, None]:
        """Answer in events, `Answer` last. Closing the generator stops the model.

        The turn is kept before its `Answer` is given; of a stopped answer, what was written is kept.
        Raises InvalidRequest, NotAllowed, StorageFailed and the errors of `providers.errors`.
        """
        _check(question)
        models = self.models.for_session(question.session)
        model_id = models.full_id(question.model)
        info = await models.load(model_id)
        provider, name = models.split(model_id)
        with provider.hold(name):
            async with aclosing(self._answer(question, models, model_id, info)) as events:
                async for event in events:
                    yield event

    async def _answer(
        self, question: Question, models: Models, model_id: str, info: ModelInfo
    ) -> AsyncGenerator[ChatEvent, None]:
        provider, name = models.split(model_id)
        check_sees(question.images, info)
        start = time.perf_counter()
        notices: list[Notice] = []
        messages, unseen = leave_out_pictures(_messages(question), info)
        if unseen:
            notices.append(
                Notice(say("Earlier pictures that {model} does not get: {count}.", count=unseen, model=name))
            )
            yield notices[-1]
        fitted = await fit_context(messages, provider, name, info.context_length, question.parameters.max_tokens)
        if fitted.left_out:
            notices.append(
                Notice(
                    say(
                        "The {count} oldest messages were left out: they no longer fit the model's {limit} tokens.",
                        count=fitted.left_out,
                        limit=info.context_length,
                    )
                )
            )
            yield notices[-1]
        draft = _Draft(question, model_id, fitted.messages, start)
        request = ChatRequest(model=name, messages=fitted.messages, parameters=question.parameters)
        try:
            async with aclosing(provider.stream(request)) as events:
                async for event in events:
                    if isinstance(event, Finished):
                        finished = event
                        break
                    if isinstance(event, Notice):
                        notices.append(event)
                    elif not isinstance(event, Queued):
                        draft.add(event)
                    yield event
        except (asyncio.CancelledError, GeneratorExit):
            await self._keep_part(draft, "stopped")
            raise
        except ProviderError:
            await self._keep_part(draft, "incomplete")
            raise
        timings = draft.timings(finished)
        if timings.tokens_per_second:
            models.speeds[model_id] = timings.tokens_per_second
        try:
            await record(self.database, draft.turn(finished.reason, finished.usage, timings))
        except StorageFailed as error:
            notices.append(Notice(say("This answer cannot be rated: {reason}", reason=error.message)))
            yield notices[-1]
        yield draft.answer(finished, timings, tuple(notices), _cost(info, finished.usage))

    async def check_pictures(self, images: Sequence[Image], model: str, session: str) -> None:
        """Refuse pictures before anything is changed, as `stream` would: InvalidRequest, NotAllowed, ProviderError."""
        check_images(images)
        if images:
            check_sees(images, await self.models.for_session(session).find(model))

    async def _keep_part(self, draft: _Draft, finish_reason: str) -> None:
        """Keep what was written of an answer that did not come to its end."""
        if draft.text or draft.reasoning:
            with contextlib.suppress(StorageFailed):
                await asyncio.shield(record(self.database, draft.turn(finish_reason)))


class _Draft:
    """An answer while it is written."""

    def __init__(self, question: Question, model_id: str, messages: tuple[Message, ...], start: float) -> None:
        self._question = question
        self._model_id = model_id
        self._messages = messages
        self._conversation_id = question.conversation_id or uuid.uuid4().hex
        self._start = start
        self._first_token: float | None = None
        self.text: list[str] = []
        self.reasoning: list[str] = []
        self.logprobs: list[TokenLogprob] = []

    def add(self, event: TextDelta | ReasoningDelta) -> None:
        self._first_token = self._first_token or time.perf_counter()
        if isinstance(event, TextDelta):
            self.text.append(event.text)
            self.logprobs.extend(event.logprobs)
        else:
            self.reasoning.append(event.text)

    def timings(self, finished: Finished) -> Timings:
        """Measure until now."""
        end = time.perf_counter()
        return _timings(self._start, self._first_token or end, end, finished.usage.completion_tokens)

    def answer(
        self, finished: Finished, timings: Timings, notices: tuple[Notice, ...], cost_usd: float | None
    ) -> Answer:
        return Answer(
            text="".join(self.text),
            reasoning="".join(self.reasoning),
            model=self._model_id,
            turn_id=self._question.turn_id,
            conversation_id=self._conversation_id,
            finish_reason=finished.reason,
            usage=finished.usage,
            timings=timings,
            notices=notices,
            logprobs=tuple(self.logprobs),
            cost_usd=cost_usd,
        )

    def turn(self, finish_reason: str, usage: Usage | None = None, timings: Timings | None = None) -> Turn:
        """Return what is kept of it."""
        return Turn(
            id=self._question.turn_id,
            owner=self._question.user.name,
            conversation_id=self._conversation_id,
            model=self._model_id,
            messages=self._messages,
            answer="".join(self.text),
            reasoning="".join(self.reasoning),
            parameters=self._question.parameters,
            finish_reason=finish_reason,
            prompt_tokens=usage.prompt_tokens if usage else None,
            completion_tokens=usage.completion_tokens if usage else None,
            **asdict(timings) if timings else {},
        )


async def complete(events: AsyncIterator[ChatEvent]) -> Answer:
    """Fold a turn's events into its answer."""
    async for event in events:
        if isinstance(event, Answer):
            return event
    raise RuntimeError("the turn ended without an answer")


def _check(question: Question) -> None:
    if not question.message.strip():
        raise InvalidRequest(say("The message is empty."), say("Write something first."))
    if len(question.conversation_id) > MAX_ID:
        raise InvalidRequest(say("conversation_id has at most {limit} characters.", limit=MAX_ID))
    if len(question.history) > MAX_HISTORY_MESSAGES:
        raise InvalidRequest(
            say(
                "The conversation has {count} messages, and at most {limit} are taken.",
                count=len(question.history),
                limit=MAX_HISTORY_MESSAGES,
            )
        )
    check_images(question.images)
    contents = (message.content for message in _messages(question))
    texts = [*contents, *question.parameters.stop, question.conversation_id]
    if (length := sum(map(len, texts))) > MAX_CHARACTERS:
        raise InvalidRequest(
            say(
                "The conversation has {length} characters, and at most {limit} are taken.",
                length=length,
                limit=MAX_CHARACTERS,
            )
        )
    if any("\ud800" <= character <= "\udfff" for text in texts for character in text):
        raise HalfACharacter


def _messages(question: Question) -> list[Message]:
    system = [Message("system", question.system)] if question.system.strip() else []
    return [*system, *question.history, Message("user", question.message, question.images)]


def _cost(info: ModelInfo, usage: Usage) -> float | None:
    """Return what a turn cost in US dollars, where the model's price is known."""
    if info.price is None:
        return None
    return (usage.prompt_tokens * info.price.input + usage.completion_tokens * info.price.output) / 1_000_000


def _timings(start: float, first_token: float, end: float, tokens: int) -> Timings:
    decoding = end - first_token
    return Timings(
        first_token_ms=round((first_token - start) * 1000, 1),
        tokens_per_second=round((tokens - 1) / decoding, 2) if tokens > 1 and decoding > 0 else 0.0,
        total_ms=round((end - start) * 1000, 1),
    )
