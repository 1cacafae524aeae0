"""Ollama through its official client. Source: Ollama's API reference (docs/api.md of its repository)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import httpx

from providers.errors import ContextTooLong, ModelNotFound, ProviderError
from providers.estimates import estimate_messages
from providers.http_client import Refusal, careful, raise_refusal, silence
from providers.http_errors import retry_after_seconds, status_of_words
from providers.remote import RemoteProvider
from providers.sentences import say
from providers.types import (
    Capabilities,
    ChatRequest,
    Finished,
    FinishReason,
    Message,
    ModelInfo,
    Notice,
    Progress,
    ProviderInfo,
    ReasoningDelta,
    StreamEvent,
    TextDelta,
    TokenLogprob,
    Usage,
)

if TYPE_CHECKING:
    from ollama import AsyncClient

TAKEN = frozenset(
    {
        "max_tokens",
        "temperature",
        "top_p",
        "top_k",
        "min_p",
        "repetition_penalty",
        "presence_penalty",
        "frequency_penalty",
        "seed",
        "stop",
        "logprobs",
        "json_schema",
    }
)
OPTIONS = {"max_tokens": "num_predict", "repetition_penalty": "repeat_penalty"}
# Ollama's own default cuts a prompt at 4,096 tokens without a word; a larger one costs memory for its cache.
NUM_CTX = 8192
REASONS: dict[str, FinishReason] = {"length": "length"}
DESCRIBED_AT_ONCE = 8


class OllamaProvider(RemoteProvider):
    """Answers from an Ollama server, on this machine or another."""

    package = "ollama"
    needs_key = False
    start_hint = say("Start it with `ollama serve`, or install it from ollama.com.")
    info = ProviderInfo(
        key="ollama",
        label="Ollama",
        local=True,
        docs_url="https://docs.ollama.com/api",
        needs="a running Ollama",
        base_url_variable="OLLAMA_HOST",
        base_url="http://127.0.0.1:11434",
        offers=frozenset({"images", "reasoning", "embeddings"}),
    )

    async def find_model(self, model: str) -> ModelInfo:
        try:
            return await super().find_model(model)
        except ModelNotFound as error:
            if model and ":" not in model and (found := await self._tagged(model)):
                return found
            raise ModelNotFound(
                error.message,
                provider=self.info.key,
                hint=say("Download it in the Models tab, or with `ollama pull {model}`.", model=model[:100]),
            ) from error

    async def embed(self, texts: Sequence[str], model: str) -> list[list[float]]:
        try:
            async with self._client() as client:
                answer = await client.embed(model=model, input=list(texts), truncate=False)
        except Exception as error:
            raise self._translated(error) from self._cause(error)
        return [list(row) for row in answer.embeddings]

    def download(self, model: str) -> AsyncGenerator[Progress, None]:
        """Pull a model; a download that was left goes on from where it was."""
        return self._pull(model)

    async def _pull(self, model: str) -> AsyncGenerator[Progress, None]:
        try:
            async with self._client() as client:
                async for step in await client.pull(model, stream=True):
                    yield Progress(step.status or "", step.completed or 0, step.total or None)
        except Exception as error:
            raise self._translated(error) from self._cause(error)
        self._listed = None

    async def _tagged(self, model: str) -> ModelInfo | None:
        listed = await self._models() or []
        return next((info for info in listed if info.name == f"{model}:latest"), None)

    async def _list(self) -> list[ModelInfo]:
        gate = asyncio.Semaphore(DESCRIBED_AT_ONCE)

        async def described(client: AsyncClient, name: str, size: int | None) -> ModelInfo:
            async with gate:
                return self._shown_model(name, size, await client.show(name))

        async with self._client() as client:
            listed = (await client.list()).models
            rows = [described(client, row.model, row.size) for row in listed if row.model]
            return list(await asyncio.gather(*rows))

    async def _events(self, request: ChatRequest) -> AsyncGenerator[StreamEvent, None]:
        info, wanted = await self.find_model(request.model), request.parameters.logprobs
        limit = info.context_length or NUM_CTX
        if (tokens := estimate_messages(request.messages)) > limit:  # Ollama itself would cut the prompt unsaid.
            raise ContextTooLong(
                say(
                    "The prompt has about {tokens} tokens, and this model reads at most {limit}.",
                    tokens=tokens,
                    limit=limit,
                ),
                provider=self.info.key,
                hint=say("Shorten it, or choose a model with a longer context."),
            )
        async with self._client() as client:
            parts = await client.chat(
                model=request.model,
                messages=[_wire(message) for message in request.messages],
                stream=True,
                format=dict(request.parameters.json_schema) if request.parameters.json_schema else None,
                options=self._options(request, limit),
                logprobs=True if wanted is not None else None,
                top_logprobs=wanted,
            )
            async with aclosing(parts):
                async for part in parts:
                    if part.message.thinking:
                        yield ReasoningDelta(part.message.thinking)
                    if part.message.content:
                        yield TextDelta(part.message.content, _logprobs(part))
                    if part.done:
                        usage = Usage(part.prompt_eval_count or 0, part.eval_count or 0)
                        if usage.prompt_tokens >= limit:  # The estimate was too low.
                            yield Notice(
                                say("Ollama cut the conversation: it reads at most {limit} tokens.", limit=limit)
                            )
                        yield Finished(REASONS.get(part.done_reason or "", "stop"), usage)

    def _options(self, request: ChatRequest, context_length: int) -> dict[str, Any]:
        values = request.parameters
        names = TAKEN - {"stop", "logprobs", "json_schema"}
        given = {OPTIONS.get(name, name): getattr(values, name) for name in names if getattr(values, name) is not None}
        return given | {"num_ctx": context_length} | ({"stop": list(values.stop)} if values.stop else {})

    def _error(self, error: Exception) -> ProviderError | None:
        from ollama import ResponseError

        if isinstance(error, Refusal):
            return self._refused(error.status, _reason(error.reason), retry_after_seconds(error.retry_after))
        if not isinstance(error, ResponseError):
            return None
        status = error.status_code if error.status_code > 0 else status_of_words(error.error)
        return self._refused(status, _reason(error.error))

    def _describe(self, name: str) -> ModelInfo:
        return ModelInfo(
            name=name,
            provider=self.info.key,
            local=True,
            source="ollama",
            capabilities=Capabilities(parameters=TAKEN, embeddings=True),
            context_length=self._endpoint.context_length or NUM_CTX,
        )

    def _shown_model(self, name: str, size: int | None, shown: Any) -> ModelInfo:
        info, can = self._describe(name), set(shown.capabilities or ())
        facts = shown.modelinfo or {}
        lengths = [value for key, value in facts.items() if key.endswith(".context_length") and isinstance(value, int)]
        longest = lengths[0] if lengths else NUM_CTX
        return replace(
            info,
            size_bytes=size,
            context_length=min(self._endpoint.context_length or NUM_CTX, longest),
            capabilities=replace(
                info.capabilities,
                images="vision" in can,
                reasoning="thinking" in can,
                embeddings="embedding" in can or not can,
            ),
        )

    def _client(self) -> AsyncClient:
        from ollama import AsyncClient

        return AsyncClient(
            host=self.info.base_url,
            timeout=httpx.Timeout(silence(self._timeouts), connect=self._timeouts.connect),
            # Without a key of its own the client would send OLLAMA_API_KEY to whatever address this is.
            headers={"Authorization": f"Bearer {self._key or 'none'}"},
            **_keeping_headers(self.info.base_url),
        )


def _keeping_headers(address: str | None) -> dict[str, Any]:
    options = careful(address)
    options["event_hooks"]["response"].append(raise_refusal)
    return options


def _wire(message: Message) -> dict[str, Any]:
    pictures = {"images": [image.data for image in message.images]} if message.images else {}
    return {"role": message.role, "content": message.content, **pictures}


def _logprobs(part: Any) -> tuple[TokenLogprob, ...]:
    return tuple(
        TokenLogprob(token.token, token.logprob, tuple((top.token, top.logprob) for top in token.top_logprobs or ()))
        for token in part.logprobs or ()
    )


def _reason(said: str) -> str:
    try:
        return str(json.loads(said)["error"])
    except (ValueError, KeyError, TypeError):
        return said
