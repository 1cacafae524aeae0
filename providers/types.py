"""The values that cross the border of a provider: requests, events, models. Ids and storage live elsewhere."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from providers.sentences import Sentence

Role = Literal["system", "user", "assistant"]
FinishReason = Literal["stop", "length"]


@dataclass(frozen=True)
class Message:
    """One message of a conversation, plain text."""

    role: Role
    content: str


@dataclass(frozen=True)
class Parameters:
    """Sampling parameters, under OpenAI's names where it has one; `None` is not sent and shapes nothing."""

    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()


@dataclass(frozen=True)
class ChatRequest:
    """What a provider is asked: `model` is the name within the provider, without its prefix.

    `adapter` is a folder with LoRA weights for that model, which only this request is answered with.
    """

    model: str
    messages: tuple[Message, ...]
    parameters: Parameters = field(default_factory=Parameters)
    adapter: Path | None = None


@dataclass(frozen=True)
class TextDelta:
    """A piece of the answer: whole Unicode characters, never empty."""

    text: str


@dataclass(frozen=True)
class ReasoningDelta:
    """A piece of the model's thinking, kept apart from the answer."""

    text: str


@dataclass(frozen=True)
class Notice:
    """Something that the person must know about an answer."""

    sentence: Sentence


@dataclass(frozen=True)
class Usage:
    """Tokens read and written."""

    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True)
class Finished:
    """The last event of every stream that was not stopped, exactly once."""

    reason: FinishReason
    usage: Usage


StreamEvent = TextDelta | ReasoningDelta | Notice | Finished


@dataclass(frozen=True)
class Capabilities:
    """What a model takes and gives. `parameters` holds the names of the fields of `Parameters` that have an effect."""

    parameters: frozenset[str]
    system: bool = True
    images: bool = False
    reasoning: bool = False
    exact_token_count: bool = False


@dataclass(frozen=True)
class ModelInfo:
    """A model that can be asked; `name` is unique within its provider. Sizes in bytes, context in tokens."""

    name: str
    provider: str
    local: bool
    source: str
    capabilities: Capabilities
    context_length: int | None = None
    size_bytes: int | None = None
    loaded: bool = False


@dataclass(frozen=True)
class LoadOptions:
    """How to load a local model; `device` is "auto", "cpu", "cuda", "cuda:N" or "mps"."""

    device: str = "auto"


@dataclass(frozen=True)
class LoadedModel:
    """A model in memory. `memory_bytes` counts its weights as they lie in memory."""

    name: str
    device: str
    precision: str
    memory_bytes: int
    context_length: int
    load_seconds: float
    notices: tuple[Notice, ...] = ()


@dataclass(frozen=True)
class ProviderInfo:
    """What a person needs to know about a provider before choosing it."""

    key: str
    label: str
    local: bool
    docs_url: str
    key_variable: str | None = None
    base_url_variable: str | None = None


@dataclass(frozen=True)
class ProviderSettings:
    """Where a provider finds its things; providers read no environment themselves."""

    bundled_dir: Path
    models_dir: Path
    runs_dir: Path
    hub_token: str | None = None
    load_options: LoadOptions = field(default_factory=LoadOptions)
    resident_models: int = 2
    parallel_answers: int = 4
