"""Hugging Face: the Inference Providers, and Inference Endpoints and other servers by their address.

Source: the reference of `huggingface_hub.AsyncInferenceClient`, whose `chat_completion` speaks OpenAI's protocol.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import httpx2

from providers.errors import ProviderError
from providers.estimates import estimate_messages, estimate_text
from providers.http_client import careful, silence
from providers.http_errors import retry_after_seconds, status_of_words
from providers.openai import REASONS, wire_message
from providers.remote import EMBEDDED_AT_ONCE, RemoteProvider
from providers.types import (
    Capabilities,
    ChatRequest,
    Finished,
    ModelInfo,
    Price,
    ProviderInfo,
    ReasoningDelta,
    StreamEvent,
    TextDelta,
    TokenLogprob,
    Usage,
)

if TYPE_CHECKING:
    from huggingface_hub import AsyncInferenceClient

TAKEN = frozenset(
    {
        "max_tokens",
        "temperature",
        "top_p",
        "presence_penalty",
        "frequency_penalty",
        "seed",
        "stop",
        "logprobs",
        "json_schema",
    }
)
NO_KEY = "none"  # Without one the client would send the machine's own token to whatever address this is.
ROUTER = "https://router.huggingface.co/v1"


class HuggingFaceProvider(RemoteProvider):
    """Answers from models that Hugging Face serves, or a server of one's own that its client talks to."""

    package = "huggingface_hub"
    info = ProviderInfo(
        key="huggingface",
        label="Hugging Face",
        local=False,
        docs_url="https://huggingface.co/docs/inference-providers",
        needs="a key",
        key_variable="HF_TOKEN",
        base_url=ROUTER,
        offers=frozenset({"images", "reasoning", "embeddings"}),
    )

    async def embed(self, texts: Sequence[str], model: str) -> list[list[float]]:
        self._check_key()
        if "://" in model:  # The client would go there, with the key.
            raise self._not_found(model)
        if self._endpoint.base_url is not None:  # So it would to the router, from a server of one's own.
            return await self._embedded_there(texts, model)
        try:
            async with self._client() as client:
                rows = [await client.feature_extraction(text, model=model) for text in texts]
        except Exception as error:
            raise self._translated(error) from self._cause(error)
        return [[float(value) for value in (row[0] if row.ndim > 1 else row)] for row in rows]

    async def _embedded_there(self, texts: Sequence[str], model: str) -> list[list[float]]:
        """Ask an own server by OpenAI's protocol, as Hugging Face's servers of embeddings speak it too."""
        found: list[list[float]] = []
        try:
            for start in range(0, len(texts), EMBEDDED_AT_ONCE):
                asked = {"model": model, "input": list(texts[start : start + EMBEDDED_AT_ONCE])}
                response = await self._http.get().post(self._url("embeddings"), json=asked, headers=self._headers())
                if response.status_code != 200:
                    raise self._refused(response.status_code, _reason(response))
                rows = sorted(json.loads(response.text)["data"], key=lambda row: int(row["index"]))
                found += [[float(value) for value in row["embedding"]] for row in rows]
        except ProviderError:
            raise
        except Exception as error:
            raise self._translated(error) from self._cause(error)
        return found

    def _url(self, place: str) -> str:
        return f"{str(self.info.base_url).rstrip('/')}/{place}"

    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._key}"} if self._key else {}

    async def _list(self) -> list[ModelInfo] | None:
        response = await self._http.get().get(self._url("models"), headers=self._headers())
        cannot_list = response.status_code >= 500 and self._endpoint.base_url is not None
        if response.status_code in (404, 405) or cannot_list:
            return None
        if response.status_code != 200:
            raise self._refused(response.status_code, _reason(response))
        return [self._listed_model(entry) for entry in json.loads(response.text)["data"]] or None

    async def _events(self, request: ChatRequest) -> AsyncGenerator[StreamEvent, None]:
        values, usage, reason, written = request.parameters, None, None, 0
        async with self._client() as client:
            chunks = await client.chat_completion(
                [wire_message(message) for message in request.messages],
                model=request.model,
                stream=True,
                stream_options={"include_usage": True},
                max_tokens=values.max_tokens,
                temperature=values.temperature,
                top_p=values.top_p,
                presence_penalty=values.presence_penalty,
                frequency_penalty=values.frequency_penalty,
                seed=values.seed,
                stop=list(values.stop) or None,
                logprobs=True if values.logprobs is not None else None,
                top_logprobs=values.logprobs,
                response_format=_format(values.json_schema),
            )
            async for chunk in chunks:
                for choice in chunk.choices or ():
                    thought = choice.delta.get("reasoning") or choice.delta.get("reasoning_content")
                    if thought:
                        yield ReasoningDelta(str(thought))
                    if choice.delta.content:
                        written += estimate_text(choice.delta.content)
                        yield TextDelta(choice.delta.content, _logprobs(choice))
                    reason = choice.finish_reason or reason
                if chunk.usage:
                    usage = Usage(chunk.usage.prompt_tokens, chunk.usage.completion_tokens)
        if reason:
            guess = Usage(estimate_messages(request.messages), written, estimated=True)
            yield Finished(REASONS.get(reason, "stop"), usage or guess)

    def _error(self, error: Exception) -> ProviderError | None:
        from huggingface_hub.errors import HfHubHTTPError, InferenceTimeoutError, OverloadedError, TextGenerationError

        if isinstance(error, HfHubHTTPError) and error.response is not None:
            wait = retry_after_seconds(error.response.headers.get("retry-after"))
            return self._refused(error.response.status_code, _reason(error.response), wait)
        if isinstance(error, TextGenerationError):
            reason = _message(error.args[0])
            return self._refused(429 if isinstance(error, OverloadedError) else status_of_words(reason), reason)
        if isinstance(error, InferenceTimeoutError):
            return self._refused(500, str(error))
        return None

    def _describe(self, name: str) -> ModelInfo:
        return ModelInfo(
            name=name,
            provider=self.info.key,
            local=False,
            source="cloud" if self._endpoint.base_url is None else "server",
            capabilities=Capabilities(parameters=TAKEN, reasoning=True, embeddings=True),
            context_length=self._endpoint.context_length,
        )

    def _listed_model(self, entry: dict[str, Any]) -> ModelInfo:
        info = self._describe(str(entry["id"]))
        served = [offer for offer in entry.get("providers") or () if isinstance(offer, dict)]
        sees = "image" in ((entry.get("architecture") or {}).get("input_modalities") or ())
        lengths = [offer["context_length"] for offer in served if offer.get("context_length")]
        meta = entry.get("meta") if isinstance(entry.get("meta"), dict) else {}
        own = entry.get("max_model_len") or (meta or {}).get("n_ctx")
        context = info.context_length or (min(lengths) if lengths else own)
        return replace(
            info,
            context_length=context,
            capabilities=replace(info.capabilities, images=sees),
            price=_price(served),
        )

    def _client(self) -> AsyncInferenceClient:
        from huggingface_hub import AsyncInferenceClient, set_async_client_factory

        address = None if self._endpoint.base_url is None else str(self.info.base_url)
        # This client makes its connections by a factory of the whole process, whose own one follows redirects.
        set_async_client_factory(lambda: httpx2.AsyncClient(**careful(address)))
        timeout: Any = httpx2.Timeout(silence(self._timeouts), connect=self._timeouts.connect)
        return AsyncInferenceClient(base_url=address, token=self._key or NO_KEY, timeout=timeout)


def _price(served: list[dict[str, Any]]) -> Price | None:
    """Return the lowest price of those that the router's list gives, which is live."""
    prices = [offer["pricing"] for offer in served if isinstance(offer.get("pricing"), dict)]
    if not prices:
        return None
    lowest = min(prices, key=lambda price: float(price["output"]))
    return Price(float(lowest["input"]), float(lowest["output"]), "router.huggingface.co")


def _format(schema: Any) -> Any:
    if schema is None:
        return None
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": dict(schema), "strict": True}}


def _logprobs(choice: Any) -> tuple[TokenLogprob, ...]:
    tokens = (choice.logprobs.content if choice.logprobs else None) or ()
    return tuple(
        TokenLogprob(token.token, token.logprob, tuple((top.token, top.logprob) for top in token.top_logprobs or ()))
        for token in tokens
    )


def _reason(response: Any) -> str:
    try:
        said = json.loads(response.text)
    except ValueError:
        return str(response.text)
    return _message(said.get("error", said) if isinstance(said, dict) else said)


def _message(said: Any) -> str:
    """Return the text of an error, which is an object where the server speaks OpenAI's protocol."""
    return str(said.get("message", said) if isinstance(said, dict) else said)
