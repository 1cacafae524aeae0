"""The shapes that the public API takes and gives, and how the core's values become them."""

from __future__ import annotations

from typing import Literal, TypedDict

from components.texts import in_language, text
from core.chat import Answer
from providers.types import LoadedModel, ModelInfo, Notice, Queued, ReasoningDelta, TextDelta, TokenLogprob


class ChatMessage(TypedDict):
    """One earlier message."""

    role: Literal["user", "assistant"]
    content: str


class Usage(TypedDict):
    """Tokens read and written."""

    prompt_tokens: int
    completion_tokens: int


class Timings(TypedDict):
    """How long it took, without the loading of the model."""

    first_token_ms: float
    tokens_per_second: float
    total_ms: float


class TopToken(TypedDict):
    """A token that could have been chosen, with the natural logarithm of its probability."""

    token: str
    logprob: float


class Logprob(TypedDict):
    """A token of the answer, the logarithm of its probability, and the likeliest tokens at its place."""

    token: str
    logprob: float
    top: list[TopToken]


class ChatEvent(TypedDict, total=False):
    """One event of an answer; the fields after `text` come with `done`, the last one."""

    type: Literal["delta", "reasoning", "notice", "queued", "done"]
    text: str
    reasoning: str
    model: str
    turn_id: str
    conversation_id: str
    finish_reason: str
    usage: Usage
    timings: Timings
    notices: list[str]
    logprobs: list[Logprob]
    cost_usd: float | None
    cached: bool


class Prediction(TypedDict):
    """One continuation of a prompt."""

    text: str
    finish_reason: str


class Predictions(TypedDict):
    """All continuations of a prompt; usage counts them all, timings are those of the slowest."""

    results: list[Prediction]
    model: str
    usage: Usage
    timings: Timings
    notices: list[str]


class ProviderRow(TypedDict):
    """A source of answers; `key` shows the last four characters of the one typed in this session, else where it is."""

    provider: str
    label: str
    local: bool
    docs_url: str
    base_url: str | None
    key_variable: str | None
    key: str | None


class Embeddings(TypedDict):
    """One list of numbers for each text."""

    embeddings: list[list[float]]
    model: str


class ModelCapabilities(TypedDict):
    """What a model takes."""

    parameters: list[str]
    system: bool
    images: bool
    reasoning: bool
    embeddings: bool


class ModelPrice(TypedDict):
    """US dollars for a million tokens, and where and when that was known."""

    input: float
    output: float
    date: str


class ModelRow(TypedDict):
    """A model; sizes in bytes, the context length in tokens, null where it is not known yet.

    `batched`: a model in memory that computes the answers of many people together.
    """

    id: str
    provider: str
    local: bool
    source: str
    loaded: bool
    context_length: int | None
    size_bytes: int | None
    memory_bytes: int | None
    batched: bool | None
    price: ModelPrice | None
    capabilities: ModelCapabilities


class TokenCount(TypedDict):
    """A number of tokens; `exact` is false where the provider can only estimate."""

    tokens: int
    exact: bool
    model: str


def chat_event(event: TextDelta | ReasoningDelta | Notice | Queued | Answer | None, language: str) -> ChatEvent:
    """Return an event of a turn as the API shows it; `None` is a sign of life."""
    match event:
        case None:
            return {"type": "delta", "text": ""}
        case TextDelta(piece):
            return {"type": "delta", "text": piece}
        case ReasoningDelta(piece):
            return {"type": "reasoning", "text": piece}
        case Notice(sentence):
            return {"type": "notice", "text": in_language(sentence, language)}
        case Queued(place):
            return {"type": "queued", "text": text("answer_queued", language, place=place)}
        case Answer():
            return {
                "type": "done",
                "text": event.text,
                "reasoning": event.reasoning,
                "model": event.model,
                "turn_id": event.turn_id,
                "conversation_id": event.conversation_id,
                "finish_reason": event.finish_reason,
                "usage": {
                    "prompt_tokens": event.usage.prompt_tokens,
                    "completion_tokens": event.usage.completion_tokens,
                },
                "timings": _timings(event),
                "notices": [in_language(notice.sentence, language) for notice in event.notices],
                "logprobs": [
                    {"token": token.token, "logprob": token.logprob, "top": _top(token)} for token in event.logprobs
                ],
                "cost_usd": event.cost_usd,
                "cached": event.cached,
            }


def _top(token: TokenLogprob) -> list[TopToken]:
    return [{"token": name, "logprob": logprob} for name, logprob in token.top]


def _timings(answer: Answer) -> Timings:
    return {
        "first_token_ms": answer.timings.first_token_ms,
        "tokens_per_second": answer.timings.tokens_per_second,
        "total_ms": answer.timings.total_ms,
    }


def predictions(answers: list[Answer], language: str) -> Predictions:
    """Return several answers to one prompt as the API shows them."""
    return {
        "results": [{"text": answer.text, "finish_reason": answer.finish_reason} for answer in answers],
        "model": answers[0].model,
        "usage": {
            "prompt_tokens": sum(answer.usage.prompt_tokens for answer in answers),
            "completion_tokens": sum(answer.usage.completion_tokens for answer in answers),
        },
        "timings": _timings(max(answers, key=lambda answer: answer.timings.total_ms)),
        "notices": list(
            dict.fromkeys(in_language(notice.sentence, language) for answer in answers for notice in answer.notices)
        ),
    }


def model_row(info: ModelInfo, loaded: LoadedModel | None) -> ModelRow:
    """Return a model as the API shows it; `loaded` where it is in memory."""
    return {
        "id": f"{info.provider}/{info.name}",
        "provider": info.provider,
        "local": info.local,
        "source": info.source,
        "loaded": info.loaded,
        "context_length": info.context_length,
        "size_bytes": info.size_bytes,
        "memory_bytes": loaded.memory_bytes if loaded else None,
        "batched": loaded.batched if loaded else None,
        "price": (
            {"input": info.price.input, "output": info.price.output, "date": info.price.date} if info.price else None
        ),
        "capabilities": {
            "parameters": sorted(info.capabilities.parameters),
            "system": info.capabilities.system,
            "images": info.capabilities.images,
            "reasoning": info.capabilities.reasoning,
            "embeddings": info.capabilities.embeddings,
        },
    }
