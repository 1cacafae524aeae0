"""The values that cross the border of a provider: requests, events, models. Ids and storage live elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from providers.sentences import Sentence

Role = Literal["system", "user", "assistant"]
FinishReason = Literal["stop", "length", "filtered"]

DEVICES = ("auto", "cpu", "cuda", "mps", "spread")
PRECISIONS = ("auto", "fp32", "bf16", "fp16")
QUANTIZATIONS = ("auto", "none", "int8", "nf4")
ATTENTIONS = ("auto", "sdpa", "eager", "flash_attention_2")
TIGHT = 0.85


@dataclass(frozen=True)
class Image:
    """A picture in a message: the bytes of a PNG, JPEG, WebP or GIF, and which of them it is, as in `image/png`."""

    media_type: str
    data: bytes = field(repr=False)


@dataclass(frozen=True)
class Message:
    """One message of a conversation: plain text, and pictures for models that see."""

    role: Role
    content: str
    images: tuple[Image, ...] = ()

    def to_json(self) -> dict[str, str]:
        """Return what is kept of a message: its text, without the pictures."""
        return {"role": self.role, "content": self.content}


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
    logprobs: int | None = None
    json_schema: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class ChatRequest:
    """What a provider is asked: `model` is the name within the provider, without its prefix.

    `adapter` is a folder with LoRA weights for that model, which only this request is answered with. `attempts` bounds
    how often a service on the network is called before the first piece of the answer.
    """

    model: str
    messages: tuple[Message, ...]
    parameters: Parameters = field(default_factory=Parameters)
    adapter: Path | None = None
    attempts: int = 3


@dataclass(frozen=True)
class TokenLogprob:
    """A token of the answer with its natural logarithm of probability, and the likeliest ones at its place."""

    token: str
    logprob: float
    top: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class TextDelta:
    """A piece of the answer: whole Unicode characters, never empty; its tokens where logprobs were asked for."""

    text: str
    logprobs: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True)
class ReasoningDelta:
    """A piece of the model's thinking, kept apart from the answer."""

    text: str


@dataclass(frozen=True)
class Notice:
    """Something that the person must know about an answer."""

    sentence: Sentence


@dataclass(frozen=True)
class Queued:
    """The machine is full: the answer waits at this place in the line, the first being 1."""

    place: int


@dataclass(frozen=True)
class Usage:
    """Tokens read and written; `estimated` where the provider did not count them."""

    prompt_tokens: int
    completion_tokens: int
    estimated: bool = False


@dataclass(frozen=True)
class Finished:
    """The last event of every stream that was not stopped, exactly once."""

    reason: FinishReason
    usage: Usage


StreamEvent = TextDelta | ReasoningDelta | Notice | Queued | Finished


@dataclass(frozen=True)
class Capabilities:
    """What a model takes and gives. `parameters` holds the names of the fields of `Parameters` that have an effect."""

    parameters: frozenset[str]
    system: bool = True
    images: bool = False
    reasoning: bool = False
    embeddings: bool = False
    exact_token_count: bool = False


@dataclass(frozen=True)
class Price:
    """What a million tokens cost in US dollars, and the day on which that was so (ISO 8601)."""

    input: float
    output: float
    date: str


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
    price: Price | None = None


@dataclass(frozen=True)
class LoadOptions:
    """How to load a local model; `device` is "auto", "cpu", "cuda", "cuda:N", "mps", or "spread" over all GPUs.

    `precision`, `quantization` and `attention` are of `PRECISIONS`, `QUANTIZATIONS` and `ATTENTIONS`; a GGUF file has
    its own. `context_length` is the most tokens of a conversation, `None` what the model and the memory allow. The last
    two are llama.cpp's: `None` is all layers where there is a GPU, and all cores.
    """

    device: str = "auto"
    context_length: int | None = None
    gpu_layers: int | None = None
    threads: int | None = None
    precision: str = "auto"
    quantization: str = "auto"
    attention: str = "auto"


Fit = Literal["fits", "tight", "does_not_fit"]


@dataclass(frozen=True)
class MemoryEstimate:
    """What a model will take, in bytes: weights, the cache of one conversation of `context_length`, and overhead.

    `available_bytes` is what the device has left now, without what loaded models and other programs hold. `reason`
    says why these options were chosen, `suggestion` what would fit instead.
    """

    device: str
    precision: str
    quantization: str
    context_length: int
    weights_bytes: int
    kv_cache_bytes: int
    overhead_bytes: int
    available_bytes: int
    reason: Sentence
    suggestion: Sentence | None = None

    @property
    def total_bytes(self) -> int:
        """All of it together."""
        return self.weights_bytes + self.kv_cache_bytes + self.overhead_bytes

    @property
    def fit(self) -> Fit:
        """Whether it fits; tight where little would be left."""
        if self.total_bytes > self.available_bytes:
            return "does_not_fit"
        return "tight" if self.total_bytes > TIGHT * self.available_bytes else "fits"


@dataclass(frozen=True)
class EngineLimits:
    """How much a loaded model of transformers does at once: answers `batched` together, or `parallel` where it cannot.

    So many may be `waiting`, and more are refused. `prompt_lookup` drafts tokens by copying from the text before.
    `promised_bytes` of the free memory are left to the conversations of the models that are loaded already.
    """

    batched: int = 16
    parallel: int = 4
    waiting: int = 64
    prompt_lookup: bool = False
    promised_bytes: int = 0


@dataclass(frozen=True)
class LoadedModel:
    """A model in memory. `memory_bytes` counts its weights as they lie in memory.

    `measured_bytes` is what the process or the GPU grew by when it was loaded, `estimated_bytes` what was expected;
    `loaded_at` is in seconds since 1970. `reason` says why it is on this device and in this precision.
    `batched` says whether all its answers are computed together; those of others share the processor.
    """

    name: str
    device: str
    precision: str
    memory_bytes: int
    context_length: int
    load_seconds: float
    notices: tuple[Notice, ...] = ()
    quantization: str = "none"
    measured_bytes: int | None = None
    estimated_bytes: int | None = None
    loaded_at: float = 0.0
    reason: Sentence | None = None
    batched: bool = True


@dataclass(frozen=True)
class EngineFigures:
    """What a loaded model's engine does now.

    `batched` engines compute all running answers together. Speed is of all answers, over the last seconds. The cache is
    the memory for conversations, those that ended and are kept included; `reused_tokens` counts the tokens of prompts
    that were found in it.
    """

    batched: bool
    running: int
    waiting: int
    tokens_per_second: float = 0.0
    cache_bytes: int = 0
    cache_limit_bytes: int = 0
    kept_conversations: int = 0
    reused_tokens: int = 0


@dataclass(frozen=True)
class Progress:
    """How far a download is, in bytes; `total` where it is known. The step is the service's own word for it."""

    step: str
    done: int
    total: int | None = None


@dataclass(frozen=True)
class ProviderInfo:
    """What a person needs to know about a provider before choosing it.

    `offers` names what some of its models can: "images", "reasoning", "embeddings".
    """

    key: str
    label: str
    local: bool
    docs_url: str
    needs: str = ""
    key_variable: str | None = None
    base_url_variable: str | None = None
    base_url: str | None = None
    offers: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Endpoint:
    """A service on the network: the protocol (a key of the catalog), the address, and the key for this address alone.

    `name` is what it is called in model ids. Without `base_url` the vendor's own client knows the address.
    """

    name: str
    protocol: str
    base_url: str | None = None
    api_key: str | None = field(default=None, repr=False)
    key_variable: str | None = None
    label: str = ""
    context_length: int | None = None


@dataclass(frozen=True)
class Pool:
    """One model that stands for several, by their ids; `name` is what it is called in model ids."""

    name: str
    members: tuple[str, ...]


@dataclass(frozen=True)
class Timeouts:
    """How long a service on the network may be silent, in seconds: to connect, to begin, and between two pieces."""

    connect: float = 5.0
    first_piece: float = 120.0
    idle: float = 60.0


@dataclass(frozen=True)
class ProviderSettings:
    """Where a provider finds its things; providers read no environment themselves.

    `endpoints` are all services on the network, `endpoint` is the one that this provider talks to.
    """

    bundled_dir: Path
    models_dir: Path
    runs_dir: Path
    hub_token: str | None = field(default=None, repr=False)
    endpoints: tuple[Endpoint, ...] = ()
    endpoint: Endpoint | None = None
    pools: tuple[Pool, ...] = ()
    gguf_dirs: tuple[Path, ...] = ()
    timeouts: Timeouts = field(default_factory=Timeouts)
    load_options: LoadOptions = field(default_factory=LoadOptions)
    resident_models: int = 8
    parallel_answers: int = 4
    engine_limits: EngineLimits = field(default_factory=EngineLimits)
