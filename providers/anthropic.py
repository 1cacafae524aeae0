"""Anthropic's Messages API, of Anthropic and of servers that speak it, as llama.cpp's does.

Source: Anthropic's API reference, "Messages", "Token counting" and "Models".
"""

from __future__ import annotations

import base64
import re
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from providers.errors import ProviderError, RateLimited, UpstreamFailure
from providers.estimates import estimate_messages
from providers.http_errors import retry_after_seconds
from providers.prices import price_of
from providers.remote import RemoteProvider, only_taken
from providers.types import (
    Capabilities,
    ChatRequest,
    Finished,
    FinishReason,
    Message,
    ModelInfo,
    Notice,
    Parameters,
    ProviderInfo,
    ReasoningDelta,
    StreamEvent,
    TextDelta,
    Usage,
)

if TYPE_CHECKING:
    from anthropic import AsyncAnthropic
    from anthropic.types import ModelInfo as Listed

# The client has no arguments for them any more: models from 4.7 on refuse them, and all do that think as they see fit.
SAMPLING = ("temperature", "top_p", "top_k")
TAKES_SAMPLING = re.compile(r"claude-(3|[a-z]+-3|[a-z]+-4(-[0-6])?(-\d{8}|-latest)?$)")
TAKES_ONE = re.compile(r"claude-[a-z]+-4-[1-6](?!\d)")  # Of temperature and top_p.
TAKEN = frozenset({"max_tokens", "stop"})
MAX_TOKENS = 4096
REASONS: dict[str, FinishReason] = {
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "refusal": "filtered",
}
STATUS = {"overloaded_error": 529, "rate_limit_error": 429, "authentication_error": 401, "invalid_request_error": 400}


class AnthropicProvider(RemoteProvider):
    """Answers from Claude, or from any server that speaks the Messages API."""

    package = "anthropic"
    info = ProviderInfo(
        key="anthropic",
        label="Anthropic",
        local=False,
        docs_url="https://platform.claude.com/docs/en/api/messages",
        needs="a key",
        key_variable="ANTHROPIC_API_KEY",
        base_url="https://api.anthropic.com",
        offers=frozenset({"images", "reasoning"}),
    )

    async def count_tokens(self, messages: Sequence[Message], model: str) -> int:
        self._check_key()
        system, talk = _wire(messages)
        try:
            counted = await self._client().messages.count_tokens(model=model, messages=talk, **system)
        except Exception as error:
            if not self._is_anthropic:
                return estimate_messages(messages)  # Other servers need not have this.
            translated = self._translated(error)
            if isinstance(translated, (RateLimited, UpstreamFailure)):
                return estimate_messages(messages)  # The answer need not fail because its count did.
            raise translated from self._cause(error)
        return counted.input_tokens

    def _taken(self, parameters: Parameters, info: ModelInfo) -> tuple[Parameters, list[Notice]]:
        both = parameters.temperature is not None and parameters.top_p is not None
        if both and self._is_anthropic and TAKES_ONE.match(info.name):
            taken = info.capabilities.parameters - {"top_p"}
            info = replace(info, capabilities=replace(info.capabilities, parameters=taken))
        return only_taken(parameters, info)

    async def _list(self) -> list[ModelInfo] | None:
        from anthropic import APIResponseValidationError, NotFoundError

        try:
            page = await self._client().models.list(limit=1000)
        except (NotFoundError, APIResponseValidationError):
            return None
        return [self._listed_model(model) for model in page.data or () if model.id]

    async def _events(self, request: ChatRequest) -> AsyncGenerator[StreamEvent, None]:
        read, written, reason = 0, 0, None
        async with await self._client().messages.create(**self._body(request)) as events:
            async for event in events:
                match event.type:
                    case "message_start":
                        usage = event.message.usage
                        read = sum(
                            tokens or 0
                            for tokens in (
                                usage.input_tokens,
                                usage.cache_read_input_tokens,
                                usage.cache_creation_input_tokens,
                            )
                        )
                    case "content_block_delta" if event.delta.type == "text_delta" and event.delta.text:
                        yield TextDelta(event.delta.text)
                    case "content_block_delta" if event.delta.type == "thinking_delta" and event.delta.thinking:
                        yield ReasoningDelta(event.delta.thinking)
                    case "message_delta":
                        reason = event.delta.stop_reason or reason
                        written = event.usage.output_tokens if event.usage else written
                    case "message_stop" if reason:
                        yield Finished(REASONS.get(reason, "stop"), Usage(read, written))

    def _body(self, request: ChatRequest) -> dict[str, Any]:
        values = request.parameters
        system, talk = _wire(request.messages)
        sampling = {name: getattr(values, name) for name in SAMPLING if getattr(values, name) is not None}
        body: dict[str, Any] = {
            "model": request.model,
            "messages": talk,
            "max_tokens": values.max_tokens or MAX_TOKENS,
            "stream": True,
            **system,
        }
        if values.stop:
            body["stop_sequences"] = list(values.stop)
        if self.capabilities(request.model).reasoning:
            body["thinking"] = {"type": "adaptive", "display": "summarized"}
        if values.json_schema is not None:
            body["output_config"] = {"format": {"type": "json_schema", "schema": dict(values.json_schema)}}
        return body | ({"extra_body": sampling} if sampling else {})

    def _error(self, error: Exception) -> ProviderError | None:
        from anthropic import APIStatusError

        if not isinstance(error, APIStatusError):
            return None
        body = error.body if isinstance(error.body, dict) else {}
        said = body.get("error") if isinstance(body.get("error"), dict) else {}
        status = error.status_code
        if status == 200:
            status = STATUS.get(str((said or {}).get("type")), 500)
        wait = retry_after_seconds(error.response.headers.get("retry-after"))
        return self._refused(status, str((said or {}).get("message") or error.message), wait)

    def _describe(self, name: str) -> ModelInfo:
        sampling = SAMPLING if not self._is_anthropic or TAKES_SAMPLING.match(name) else ()
        schema = ("json_schema",) if self._is_anthropic else ()
        return ModelInfo(
            name=name,
            provider=self.info.key,
            local=False,
            source="cloud" if self._is_anthropic else "server",
            capabilities=Capabilities(
                parameters=TAKEN | frozenset(sampling) | frozenset(schema),
                images=self._is_anthropic,
                exact_token_count=self._is_anthropic,
            ),
            context_length=self._endpoint.context_length,
            price=price_of(str(self.info.base_url), name),
        )

    def _listed_model(self, model: Listed) -> ModelInfo:
        info, can = self._describe(model.id), model.capabilities
        if can is None:
            meta = (model.model_extra or {}).get("meta")
            context = meta.get("n_ctx") if isinstance(meta, dict) else None
            return replace(info, context_length=info.context_length or model.max_input_tokens or context)
        thinks = can.thinking.supported and can.thinking.types.adaptive.supported
        refused = {
            *(() if can.structured_outputs.supported else ("json_schema",)),
            *(SAMPLING if thinks and self._is_anthropic else ()),
        }
        return replace(
            info,
            context_length=model.max_input_tokens,
            capabilities=replace(
                info.capabilities,
                parameters=info.capabilities.parameters - refused,
                images=can.image_input.supported,
                reasoning=thinks,
            ),
        )

    @property
    def _is_anthropic(self) -> bool:
        return self._endpoint.base_url is None

    def _client(self) -> AsyncAnthropic:
        from anthropic import AsyncAnthropic

        return AsyncAnthropic(
            api_key=self._key or "none",
            base_url=self.info.base_url,
            max_retries=0,
            http_client=self._http.get(),
        )


def _wire(messages: Sequence[Message]) -> tuple[dict[str, Any], list[Any]]:
    """Return the system prompt, as an argument of its own, and the other messages."""
    system = "\n\n".join(message.content for message in messages if message.role == "system")
    talk = [
        {"role": message.role, "content": [*_pictures(message), {"type": "text", "text": message.content}]}
        for message in messages
        if message.role != "system"
    ]
    return ({"system": system} if system else {}), talk


def _pictures(message: Message) -> list[dict[str, Any]]:
    return [
        {
            "type": "image",
            "source": {
                "type": "base64",
                "media_type": image.media_type,
                "data": base64.b64encode(image.data).decode(),
            },
        }
        for image in message.images
    ]
