"""Google's Gemini API.

Source: the Gemini API reference, `models.streamGenerateContent`, `models.countTokens` and `models.embedContent`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from providers.errors import ProviderError, RateLimited, UpstreamFailure
from providers.estimates import estimate_messages
from providers.http_client import leaving_nothing_open
from providers.http_errors import retry_after_seconds
from providers.prices import price_of
from providers.remote import RemoteProvider
from providers.types import (
    Capabilities,
    ChatRequest,
    Finished,
    FinishReason,
    Message,
    ModelInfo,
    ProviderInfo,
    ReasoningDelta,
    StreamEvent,
    TextDelta,
    TokenLogprob,
    Usage,
)

if TYPE_CHECKING:
    from google.genai import Client
    from google.genai.types import Candidate, Model

TAKEN = frozenset(
    {
        "max_tokens",
        "temperature",
        "top_p",
        "top_k",
        "presence_penalty",
        "frequency_penalty",
        "seed",
        "stop",
        "logprobs",
        "json_schema",
    }
)
ROLES = {"user": "user", "assistant": "model"}
REASONS: dict[str, FinishReason] = {"STOP": "stop", "MAX_TOKENS": "length"}


class GeminiProvider(RemoteProvider):
    """Answers from Google's Gemini models."""

    package = "google.genai"
    info = ProviderInfo(
        key="gemini",
        label="Google Gemini",
        local=False,
        docs_url="https://ai.google.dev/api",
        needs="a key",
        key_variable="GEMINI_API_KEY",
        base_url="https://generativelanguage.googleapis.com",
        offers=frozenset({"images", "reasoning", "embeddings"}),
    )

    async def count_tokens(self, messages: Sequence[Message], model: str) -> int:
        self._check_key()
        system, contents = _wire(messages)
        # This API counts no system instruction; as a message it has as many tokens.
        told = [{"role": "user", "parts": [{"text": system}]}] if system else []
        try:
            counted = await self._client().aio.models.count_tokens(model=model, contents=[*told, *contents])
        except Exception as error:
            translated = self._translated(error)
            if isinstance(translated, (RateLimited, UpstreamFailure)):
                return estimate_messages(messages)  # The answer need not fail because its count did.
            raise translated from self._cause(error)
        return counted.total_tokens or 0

    async def embed(self, texts: Sequence[str], model: str) -> list[list[float]]:
        self._check_key()
        try:
            answer = await self._client().aio.models.embed_content(model=model, contents=cast(Any, list(texts)))
        except Exception as error:
            raise self._translated(error) from self._cause(error)
        return [list(row.values or ()) for row in answer.embeddings or ()]

    async def _list(self) -> list[ModelInfo] | None:
        models = await self._client().aio.models.list(config={"page_size": 1000})
        return [self._listed_model(model) async for model in models if _is_for_chat(model)]

    async def _events(self, request: ChatRequest) -> AsyncGenerator[StreamEvent, None]:
        system, contents = _wire(request.messages)
        read, written, reason = 0, 0, ""
        call = self._client().aio.models.generate_content_stream(
            model=request.model, contents=contents, config=self._config(request, system)
        )
        async with aclosing(leaving_nothing_open(call)) as chunks:
            async for chunk in chunks:
                if chunk.prompt_feedback and chunk.prompt_feedback.block_reason:
                    reason = "BLOCKED"
                for candidate in chunk.candidates or ():
                    for event in _pieces(candidate):
                        yield event
                    reason = candidate.finish_reason.value if candidate.finish_reason else reason
                if usage := chunk.usage_metadata:
                    read = usage.prompt_token_count or read
                    written = (usage.candidates_token_count or 0) + (usage.thoughts_token_count or 0) or written
        if reason:
            yield Finished(REASONS.get(reason, "filtered"), Usage(read, written))

    def _config(self, request: ChatRequest, system: str) -> Any:
        values = request.parameters
        config: Any = {
            "system_instruction": system or None,
            "max_output_tokens": values.max_tokens,
            "temperature": values.temperature,
            "top_p": values.top_p,
            "top_k": values.top_k,
            "presence_penalty": values.presence_penalty,
            "frequency_penalty": values.frequency_penalty,
            "seed": values.seed,
            "stop_sequences": list(values.stop) or None,
        }
        if values.logprobs is not None:
            config |= {"response_logprobs": True, "logprobs": values.logprobs}
        if values.json_schema is not None:
            config |= {"response_mime_type": "application/json", "response_json_schema": dict(values.json_schema)}
        if self.capabilities(request.model).reasoning:
            config["thinking_config"] = {"include_thoughts": True}
        return {name: value for name, value in config.items() if value is not None}

    def _error(self, error: Exception) -> ProviderError | None:
        from google.genai.errors import APIError

        if not isinstance(error, APIError):
            return None
        reason, status = str(error.message or error), error.code or 500
        if status == 400 and "api key" in reason.lower():
            status = 401
        headers = getattr(error.response, "headers", None) or {}
        return self._refused(status, reason, retry_after_seconds(headers.get("retry-after")) or _retry_delay(error))

    def _describe(self, name: str) -> ModelInfo:
        return ModelInfo(
            name=name,
            provider=self.info.key,
            local=False,
            source="cloud",
            capabilities=Capabilities(parameters=TAKEN, images=True, embeddings=True, exact_token_count=True),
            price=price_of(str(self.info.base_url), name),
        )

    def _listed_model(self, model: Model) -> ModelInfo:
        info = self._describe(str(model.name).removeprefix("models/"))
        can = replace(info.capabilities, reasoning=bool(model.thinking), embeddings=_embeds(model))
        return replace(info, context_length=model.input_token_limit, capabilities=can)

    def _client(self) -> Client:
        from google.genai import Client
        from google.genai.types import HttpOptions, HttpRetryOptions

        return Client(
            api_key=self._key or "none",
            vertexai=False,
            http_options=HttpOptions(
                base_url=self.info.base_url,
                api_version="v1beta",
                httpx_async_client=self._http.get(),
                retry_options=HttpRetryOptions(attempts=1),
            ),
        )


def _pieces(candidate: Candidate) -> list[TextDelta | ReasoningDelta]:
    parts = (candidate.content.parts if candidate.content else None) or ()
    tokens = _logprobs(candidate)
    events: list[TextDelta | ReasoningDelta] = []
    for part in parts:
        if part.text and part.thought:
            events.append(ReasoningDelta(part.text))
        elif part.text:
            events.append(TextDelta(part.text, tokens))
            tokens = ()
    return events


def _logprobs(candidate: Candidate) -> tuple[TokenLogprob, ...]:
    result = candidate.logprobs_result
    if result is None:
        return ()
    chosen, tops = result.chosen_candidates or (), result.top_candidates or ()
    return tuple(
        TokenLogprob(
            token.token or "",
            token.log_probability or 0.0,
            tuple(
                (top.token or "", top.log_probability or 0.0)
                for top in ((tops[place].candidates or ()) if place < len(tops) else ())
            ),
        )
        for place, token in enumerate(chosen)
    )


def _wire(messages: Sequence[Message]) -> tuple[str, list[Any]]:
    """Return the system instruction and the contents."""
    system = "\n\n".join(message.content for message in messages if message.role == "system")
    contents = [
        {
            "role": ROLES[message.role],
            "parts": [
                *({"inline_data": {"mime_type": image.media_type, "data": image.data}} for image in message.images),
                {"text": message.content},
            ],
        }
        for message in messages
        if message.role != "system"
    ]
    return system, contents


def _is_for_chat(model: Model) -> bool:
    return "generateContent" in (model.supported_actions or ()) or _embeds(model)


def _embeds(model: Model) -> bool:
    return "embedContent" in (model.supported_actions or ())


def _retry_delay(error: Any) -> float | None:
    """Return the seconds of google.rpc.RetryInfo, as in "17s"."""
    details = error.details if isinstance(error.details, dict) else {}
    inner = details.get("error") if isinstance(details.get("error"), dict) else details
    for detail in (inner or {}).get("details") or ():
        if isinstance(detail, dict) and detail.get("retryDelay"):
            return retry_after_seconds(str(detail["retryDelay"]))
    return None
