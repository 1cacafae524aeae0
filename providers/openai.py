"""OpenAI's chat completions, of OpenAI and of every server that speaks them: vLLM, SGLang, LM Studio, llama-server, ...

Source: OpenAI's API reference, "Chat Completions" and "Embeddings"; what other servers add is that of vLLM and of
llama.cpp's server.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import AsyncGenerator, Sequence
from typing import TYPE_CHECKING, Any

from providers.errors import ProviderError
from providers.estimates import CHARACTERS_PER_TOKEN, estimate_messages
from providers.http_errors import retry_after_seconds, status_of_words
from providers.prices import context_window, price_of
from providers.remote import EMBEDDED_AT_ONCE, RemoteProvider
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
    from openai import AsyncOpenAI
    from openai.types.chat import ChatCompletionChunk

OWN = frozenset(
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
# What compatible servers take beside OpenAI's own; a penalty has two names among them.
OTHERS = {
    "top_k": ("top_k",),
    "min_p": ("min_p",),
    "repetition_penalty": ("repetition_penalty", "repeat_penalty"),
}
REASONS: dict[str, FinishReason] = {"length": "length", "content_filter": "filtered"}
# Servers that count tokens, by what their list of models says of its owner.
LLAMA_CPP = "llamacpp"
COUNTING = (LLAMA_CPP, "vllm")
# OpenAI's models that think before they answer refuse what shapes the sampling.
THINKS = re.compile(r"(o\d|gpt-[5-9])(?!.*chat)")
NOT_WHILE_THINKING = frozenset(
    {"temperature", "top_p", "presence_penalty", "frequency_penalty", "stop", "logprobs", "seed"}
)
NOT_FOR_CHAT = ("whisper", "tts", "dall-e", "image", "moderation", "transcribe", "realtime", "audio", "sora")


class OpenAIProvider(RemoteProvider):
    """Answers from OpenAI, or from any server that speaks its protocol."""

    package = "openai"
    _owner = ""
    info = ProviderInfo(
        key="openai",
        label="OpenAI",
        local=False,
        docs_url="https://platform.openai.com/docs/api-reference/chat",
        needs="a key; or the address of a compatible server",
        key_variable="OPENAI_API_KEY",
        base_url_variable="LLM_BASE_URL",
        base_url="https://api.openai.com/v1",
        offers=frozenset({"images", "reasoning", "embeddings"}),
    )

    async def count_tokens(self, messages: Sequence[Message], model: str) -> int:
        if not (await self.find_model(model)).capabilities.exact_token_count:
            return estimate_messages(messages)
        wired = [wire_message(message) for message in messages]
        try:
            if self._owner == LLAMA_CPP:
                prompt = await self._post("apply-template", {"messages": wired})
                return len((await self._post("tokenize", {"content": prompt["prompt"], "add_special": True}))["tokens"])
            counted = await self._post("tokenize", {"model": model, "messages": wired})
            return int(counted["count"])
        except Exception as error:
            raise self._translated(error) from self._cause(error)

    async def embed(self, texts: Sequence[str], model: str) -> list[list[float]]:
        self._check_key()
        found: list[list[float]] = []
        try:
            for start in range(0, len(texts), EMBEDDED_AT_ONCE):
                some = list(texts[start : start + EMBEDDED_AT_ONCE])
                answer = await self._client().embeddings.create(model=model, input=some, encoding_format="float")
                found += [list(row.embedding) for row in answer.data]
        except Exception as error:
            raise self._translated(error) from self._cause(error)
        return found

    async def _list(self) -> list[ModelInfo] | None:
        from openai import InternalServerError, NotFoundError, PermissionDeniedError

        try:
            page = await self._client().models.list()
        except (NotFoundError, PermissionDeniedError):
            return None
        except InternalServerError:
            if self._is_openai:
                raise
            return None  # Some servers can answer but not list, as `transformers serve` without a cache.
        self._owner = next((model.owned_by for model in page.data), "")
        rows = [self._describe(model.id, model.model_extra or {}) for model in page.data if self._chats(model.id)]
        return rows or None

    async def _events(self, request: ChatRequest) -> AsyncGenerator[StreamEvent, None]:
        written, usage, reason = 0, None, None
        async with await self._client().chat.completions.create(**self._body(request)) as chunks:
            async for chunk in chunks:
                for event in deltas(chunk):
                    written += len(event.text)
                    yield event
                for choice in chunk.choices:
                    reason = choice.finish_reason or reason
                if chunk.usage:
                    usage = Usage(chunk.usage.prompt_tokens, chunk.usage.completion_tokens)
        if reason:
            guess = Usage(estimate_messages(request.messages), written // CHARACTERS_PER_TOKEN + 1, estimated=True)
            yield Finished(REASONS.get(reason, "stop"), usage or guess)

    def _body(self, request: ChatRequest) -> dict[str, Any]:
        values = request.parameters
        own = ("temperature", "top_p", "presence_penalty", "frequency_penalty", "seed")
        body: dict[str, Any] = {
            "model": request.model,
            "messages": [wire_message(message) for message in request.messages],
            "stream": True,
            "stream_options": {"include_usage": True},
            **{name: getattr(values, name) for name in own if getattr(values, name) is not None},
        }
        if values.max_tokens is not None:
            body["max_completion_tokens" if self._is_openai else "max_tokens"] = values.max_tokens
        if values.stop:
            body["stop"] = list(values.stop)
        if values.logprobs is not None:
            body |= {"logprobs": True, "top_logprobs": values.logprobs}
        if values.json_schema is not None:
            schema = {"name": "answer", "schema": dict(values.json_schema), "strict": True}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        extra = {
            name: getattr(values, ours)
            for ours, names in OTHERS.items()
            for name in names
            if getattr(values, ours) is not None
        }
        return body | ({"extra_body": extra} if extra else {})

    def _error(self, error: Exception) -> ProviderError | None:
        from openai import APIConnectionError, APIError, APIStatusError

        if isinstance(error, APIStatusError):
            wait = retry_after_seconds(error.response.headers.get("retry-after"))
            return self._refused(error.status_code, _reason(error), wait)
        if isinstance(error, APIError) and not isinstance(error, APIConnectionError):
            code, words = str(error.code or ""), f"{error.code} {error.type} {error.message}"
            status = int(code) if code.isdecimal() else status_of_words(words)
            return self._refused(status, _reason(error))
        return None

    def _describe(self, name: str, said: dict[str, Any] | None = None) -> ModelInfo:
        """Describe a model by its name and what the list says of it: vLLM, llama.cpp and OpenRouter differ."""
        said = said or {}
        meta, build = _within(said, "meta"), _within(said, "architecture")
        context = said.get("max_model_len") or said.get("context_length") or meta.get("n_ctx")
        thinks = bool(THINKS.match(name))
        if self._is_openai:
            taken, sees = OWN - (NOT_WHILE_THINKING if thinks else frozenset()), True
        else:
            taken, sees = OWN | frozenset(OTHERS), "image" in build.get("input_modalities", ("image",))
        address = str(self.info.base_url)
        return ModelInfo(
            name=name,
            provider=self.info.key,
            local=False,
            source="cloud" if self._is_openai else "server",
            capabilities=Capabilities(
                parameters=taken,
                images=sees,
                reasoning=thinks or not self._is_openai,
                embeddings=True,
                exact_token_count=self._owner in COUNTING,
            ),
            context_length=self._endpoint.context_length or context or context_window(address, name),
            price=price_of(address, name),
        )

    async def _post(self, path: str, body: dict[str, Any]) -> Any:
        """Call what a server has beside OpenAI's protocol, one level above it."""
        root = str(self.info.base_url).removesuffix("/v1")
        headers = {"Authorization": f"Bearer {self._key or 'none'}"}
        response = await self._http.get().post(f"{root}/{path}", json=body, headers=headers)
        if response.status_code != 200:
            raise self._refused(response.status_code, reason_in(response.text))
        return json.loads(response.text)

    @property
    def _is_openai(self) -> bool:
        return self._endpoint.base_url is None

    def _chats(self, name: str) -> bool:
        return not self._is_openai or not any(word in name for word in NOT_FOR_CHAT)

    def _client(self) -> AsyncOpenAI:
        from openai import AsyncOpenAI

        self._sdk = self._sdk or AsyncOpenAI(
            api_key=self._key or "none",
            base_url=self.info.base_url,
            organization="",
            project="",
            max_retries=0,
            http_client=self._http.get(),
        )
        client: AsyncOpenAI = self._sdk
        return client


def deltas(chunk: ChatCompletionChunk) -> list[TextDelta | ReasoningDelta]:
    """Return the pieces of an answer in a chunk; thinking comes in a field that OpenAI's protocol does not have."""
    events: list[TextDelta | ReasoningDelta] = []
    for choice in chunk.choices:
        if not choice.delta:
            continue
        if extra := choice.delta.model_extra:
            thought = extra.get("reasoning_content") or extra.get("reasoning")
            if isinstance(thought, str) and thought:
                events.append(ReasoningDelta(thought))
        if text := choice.delta.content or choice.delta.refusal:
            events.append(TextDelta(text, _logprobs(choice) if choice.logprobs else ()))
    return events


def _logprobs(choice: Any) -> tuple[TokenLogprob, ...]:
    return tuple(
        TokenLogprob(token.token, token.logprob, tuple((top.token, top.logprob) for top in token.top_logprobs))
        for token in choice.logprobs.content or ()
    )


def wire_message(message: Message) -> dict[str, Any]:
    """Return a message as chat completions take it; pictures travel inside it, as data URLs."""
    if not message.images:
        return {"role": message.role, "content": message.content}
    pictures = [
        {"type": "image_url", "image_url": {"url": f"data:{image.media_type};base64,{_base64(image.data)}"}}
        for image in message.images
    ]
    return {"role": message.role, "content": [{"type": "text", "text": message.content}, *pictures]}


def reason_in(text: str) -> str:
    """Return the words of an error's JSON, or the text itself where it is none."""
    try:
        return str(json.loads(text)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return text


def _within(said: dict[str, Any], name: str) -> dict[str, Any]:
    inner = said.get(name)
    return inner if isinstance(inner, dict) else {}


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _reason(error: Any) -> str:
    body = error.body
    if isinstance(body, dict):
        inner = body.get("error") if isinstance(body.get("error"), dict) else body
        return str((inner or {}).get("message") or body.get("detail") or error.message)
    return str(error.message)
