"""The public Gradio API: typed, documented functions over the same core as the page. Nothing else is public.

Gradio documents the types from the annotations and cannot read them as strings: no `from __future__` import here.
"""

import asyncio
import base64
import re
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import gradio as gr

from components.api_shapes import (
    ChatEvent,
    ChatMessage,
    ModelRow,
    Predictions,
    TokenCount,
    chat_event,
    model_row,
    predictions,
)
from components.errors import ErrorsForPage
from components.streaming import with_pings
from components.texts import language_of
from core.chat import Answer, Chat, Question, complete
from core.errors import InvalidRequest
from core.images import image_of
from core.models import Models
from core.parameters import SPECS, ParameterSpec, parse_number, parse_parameters
from core.sessions import SessionModels
from core.users import current_user
from providers.sentences import say
from providers.types import Image, Message, ModelInfo

SEQUENCES = ParameterSpec("num_return_sequences", "int", 1, 8, default=1)
MAX_LENGTH = replace(SPECS["max_tokens"], name="max_length", default=None)
DATA_URL = re.compile(r"^data:[^,]{0,100};base64,")
HISTORY_ROLES = ("user", "assistant")


@dataclass(frozen=True)
class PublicApi:
    """The endpoints, as bound methods of the services they call."""

    chats: Chat
    models: Models
    sessions: SessionModels

    def register(self) -> None:
        """Publish the endpoints in the Blocks under construction."""
        endpoints: tuple[Callable[..., Any], ...] = (
            self.chat,
            self.predict,
            self.list_models,
            self.current_model,
            self.set_model,
            self.count_tokens,
        )
        for endpoint in endpoints:
            gr.api(endpoint, api_name=endpoint.__name__, concurrency_limit=None)

    async def chat(  # type: ignore[misc]  # Gradio documents the type of one event.
        self,
        message: str,
        history: list[ChatMessage] | None = None,
        model: str = "",
        system: str = "",
        conversation_id: str = "",
        temperature: float | None = None,
        max_tokens: int | None = None,
        top_p: float | None = None,
        top_k: int | None = None,
        min_p: float | None = None,
        repetition_penalty: float | None = None,
        presence_penalty: float | None = None,
        frequency_penalty: float | None = None,
        seed: int | None = None,
        stop: list[str] | None = None,
        logprobs: int | None = None,
        json_schema: dict[str, Any] | None = None,
        images: list[str] | None = None,
        request: gr.Request | None = None,
    ) -> ChatEvent:
        """Answer a message, streamed as events.

        Events are {"type": "delta" | "reasoning" | "notice" | "queued", "text"}; a delta may be empty, to keep the
        stream alive; `queued` tells the place in the line while the machine is full.
        The last event is {"type": "done"} with the whole text, model, turn_id, conversation_id, finish_reason, usage,
        timings and notices, so `client.predict` returns it. `history` holds the earlier messages, oldest first. An
        empty `model` is the one set by /set_model in this session, else the default. Defaults: temperature 0.7,
        max_tokens 2048; parameters that are not given do not shape the answer. The same seed gives the same text.
        `images` are data URLs or base64, for models that see. The answer follows `json_schema`; `logprobs` asks for
        that many likeliest tokens at each place; `cost_usd` is told where the model's price is known.
        """
        language = language_of(request)
        with ErrorsForPage(request):
            question = Question(
                message=named_text("message", message),
                history=_history(history),
                model=self._model(model, request),
                system=named_text("system", system),
                conversation_id=named_text("conversation_id", conversation_id),
                images=_images(images),
                session=session_of(request),
                user=current_user(self.models.settings, session_of(request)),
                parameters=parse_parameters(
                    {
                        "temperature": temperature,
                        "max_tokens": max_tokens,
                        "top_p": top_p,
                        "top_k": top_k,
                        "min_p": min_p,
                        "repetition_penalty": repetition_penalty,
                        "presence_penalty": presence_penalty,
                        "frequency_penalty": frequency_penalty,
                        "seed": seed,
                        "stop": stop,
                        "logprobs": logprobs,
                        "json_schema": json_schema,
                    }
                ),
            )
            async for event in with_pings(self.chats.stream(question)):
                yield chat_event(event, language)

    async def predict(
        self,
        prompt: str,
        model: str = "",
        max_length: int | None = None,
        max_tokens: int | None = None,
        num_return_sequences: int = 1,
        temperature: float | None = None,
        top_p: float | None = None,
        top_k: int | None = None,
        min_p: float | None = None,
        repetition_penalty: float | None = None,
        presence_penalty: float | None = None,
        frequency_penalty: float | None = None,
        seed: int | None = None,
        stop: list[str] | None = None,
        logprobs: int | None = None,
        json_schema: dict[str, Any] | None = None,
        request: gr.Request | None = None,
    ) -> Predictions:
        """Answer a prompt, whole, once or several times.

        `max_length` counts the tokens of prompt and answer, `max_tokens` those of the answer; give one of them.
        `num_return_sequences` (1 to 8) answers are drawn with the seeds seed, seed+1, ...
        """
        with ErrorsForPage(request):
            count = parse_number(SEQUENCES, num_return_sequences)
            if max_length is not None and max_tokens is not None:
                raise InvalidRequest(say("Give either max_length or max_tokens, not both."))
            length = parse_number(MAX_LENGTH, max_length)
            parameters = parse_parameters(
                {
                    "max_tokens": max_tokens,
                    "temperature": temperature,
                    "top_p": top_p,
                    "top_k": top_k,
                    "min_p": min_p,
                    "repetition_penalty": repetition_penalty,
                    "presence_penalty": presence_penalty,
                    "frequency_penalty": frequency_penalty,
                    "seed": seed,
                    "stop": stop,
                    "logprobs": logprobs,
                    "json_schema": json_schema,
                }
            )
            question = Question(
                message=named_text("prompt", prompt),
                model=self._model(model, request),
                parameters=parameters,
                session=session_of(request),
                user=current_user(self.models.settings, session_of(request)),
            )
            if length is not None:
                question = await self._within_length(question, int(length))
            return predictions(await self._draw(question, int(count or 1)), language_of(request))

    async def list_models(self, request: gr.Request | None = None) -> list[ModelRow]:
        """List the models that can be asked now, with their size, context length and what they take."""
        return [self._row(model) for model in await self._models(request).list()]

    async def current_model(self, request: gr.Request | None = None) -> ModelRow:
        """Describe the model that answers this session when a call names none."""
        with ErrorsForPage(request):
            return self._row(await self._models(request).find(self._model("", request)))

    async def set_model(self, model: str, request: gr.Request | None = None) -> ModelRow:
        """Load a model and let it answer this session from now on; return it with its measured memory.

        `model` is an id from /list_models, a folder on the server's machine, or a Hugging Face id, which is downloaded.
        If it cannot be loaded, the model before stays.
        """
        with ErrorsForPage(request):
            row = self._row(await self._models(request).load(named_text("model", model), fetch=True))
        self.sessions.choose(session_of(request), row["id"])
        return row

    async def count_tokens(self, text: str, model: str = "", request: gr.Request | None = None) -> TokenCount:
        """Count the tokens of a prompt that holds this one message, chat template included."""
        with ErrorsForPage(request):
            models = self._models(request)
            model_id = models.full_id(self._model(model, request))
            info = await models.load(model_id)
            provider, name = models.split(model_id)
            tokens = await provider.count_tokens([Message("user", named_text("text", text))], name)
        return {"tokens": tokens, "exact": info.capabilities.exact_token_count, "model": model_id}

    def _row(self, info: ModelInfo) -> ModelRow:
        return model_row(info, self.models.state(f"{info.provider}/{info.name}").loaded)

    def _models(self, request: gr.Request | None) -> Models:
        return self.models.for_session(session_of(request))

    def _model(self, model: Any, request: gr.Request | None) -> str:
        return named_text("model", model) or self.sessions.chosen(session_of(request))

    async def _within_length(self, question: Question, max_length: int) -> Question:
        models = self.models.for_session(question.session)
        model_id = models.full_id(question.model)
        await models.load(model_id)
        provider, name = models.split(model_id)
        prompt_tokens = await provider.count_tokens([Message("user", question.message)], name)
        if max_length <= prompt_tokens:
            raise InvalidRequest(
                say(
                    "max_length is {length}, but the prompt alone has {tokens} tokens.",
                    length=max_length,
                    tokens=prompt_tokens,
                ),
                say("Raise max_length, or give max_tokens instead."),
            )
        return replace(question, parameters=replace(question.parameters, max_tokens=max_length - prompt_tokens))

    async def _draw(self, question: Question, count: int) -> list[Answer]:
        seed = question.parameters.seed
        seeds = [None if seed is None else seed + number for number in range(count)]
        questions = [
            replace(question, turn_id=uuid.uuid4().hex, parameters=replace(question.parameters, seed=each))
            for each in seeds
        ]
        return await asyncio.gather(*(complete(self.chats.stream(each)) for each in questions))


def session_of(request: gr.Request | None) -> str:
    """Return the name of the caller's session."""
    return str(getattr(request, "session_hash", None) or "")


def named_text(name: str, value: Any) -> str:
    """Return a value that must be a text. Raises InvalidRequest."""
    if not isinstance(value, str):
        raise InvalidRequest(say("{name} must be a text.", name=name))
    return value


def _images(images: Any) -> tuple[Image, ...]:
    """Read pictures given as data URLs or as base64 alone; other addresses are not fetched. Raises InvalidRequest."""
    texts = [] if images is None else images
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise InvalidRequest(say("images must be a list of texts: data URLs, or base64."))
    try:
        return tuple(image_of(base64.b64decode(DATA_URL.sub("", text), validate=True)) for text in texts)
    except ValueError as error:
        raise InvalidRequest(
            say("images must be a list of texts: data URLs, or base64."),
            say("Send the picture itself, not its address."),
        ) from error


def _history(history: Any) -> tuple[Message, ...]:
    entries = [] if history is None else history
    if not isinstance(entries, list) or not all(
        isinstance(entry, dict)
        and entry.get("role") in HISTORY_ROLES
        and isinstance(entry.get("content"), str)
        and set(entry) == {"role", "content"}
        for entry in entries
    ):
        raise InvalidRequest(
            say(
                'history must be a list of {example}, where the role is "user" or "assistant".',
                example='{"role": "user", "content": "..."}',
            )
        )
    return tuple(Message(entry["role"], entry["content"]) for entry in entries)
