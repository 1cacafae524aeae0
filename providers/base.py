"""The protocol of a source of answers: asynchronous and streaming first; a complete answer is a fold over `stream`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext

from providers.errors import Rejected
from providers.local_folders import ModelFolder, not_ours
from providers.sentences import say
from providers.types import (
    Capabilities,
    ChatRequest,
    EngineFigures,
    LoadedModel,
    LoadOptions,
    MemoryEstimate,
    Message,
    ModelInfo,
    Progress,
    ProviderInfo,
    ProviderSettings,
    StreamEvent,
)


class Provider(ABC):
    """A source of answers. Every method raises only errors of `providers.errors`."""

    info: ProviderInfo

    @abstractmethod
    def __init__(self, settings: ProviderSettings, others: Callable[[str], Provider]) -> None:
        """Keep the settings; connect to nothing and import nothing heavy. `others` gives the catalog's providers."""

    @abstractmethod
    async def list_models(self) -> list[ModelInfo]:
        """List the models that can be asked now."""

    @abstractmethod
    async def find_model(self, model: str) -> ModelInfo:
        """Describe one model, listed or not. Raises ModelNotFound with the reason."""

    @abstractmethod
    def stream(self, request: ChatRequest) -> AsyncGenerator[StreamEvent, None]:
        """Answer in events, `Finished` last. Closing the generator stops the engine itself."""

    @abstractmethod
    def capabilities(self, model: str) -> Capabilities:
        """Say what `model` takes and gives."""

    @abstractmethod
    async def count_tokens(self, messages: Sequence[Message], model: str) -> int:
        """Count the prompt tokens of `messages`; `Capabilities.exact_token_count` says whether it estimates."""

    @abstractmethod
    async def aclose(self) -> None:
        """Free what is held."""

    def hold(self, model: str) -> AbstractContextManager[None]:
        """Keep `model` in memory within the block, as while it answers; of a service nothing is held."""
        return nullcontext()

    async def embed(self, texts: Sequence[str], model: str) -> list[list[float]]:
        """Return the embedding of each text. Raises Rejected where the model has none."""
        raise Rejected(
            say("{model} gives no embeddings.", model=model[:100]),
            provider=self.info.key,
            hint=say(
                "Choose a model for embeddings: a GGUF file of one, or one of Ollama, OpenAI, Gemini or Hugging Face."
            ),
        )

    def download(self, model: str) -> AsyncGenerator[Progress, None] | None:
        """Fetch a model that the service does not have yet, telling how far it is; `None` where that cannot be."""
        return None

    async def training_folder(self, model: str) -> ModelFolder:
        """Return the weights of `model` that can be trained on. Raises Rejected where there are none."""
        raise Rejected(
            say("{model} cannot be fine-tuned here: its weights are not in a folder of transformers.", model=model),
            provider=self.info.key,
            hint=say("Choose a transformers model."),
        )


class Users(Counter[str]):
    """How many use each model now."""

    @contextmanager
    def hold(self, model: str) -> Iterator[None]:
        """Count one more within the block."""
        self[model] += 1
        try:
            yield
        finally:
            self[model] -= 1


class LocalProvider(Provider):
    """A provider whose weights are in this process."""

    @abstractmethod
    async def load(self, model: str, options: LoadOptions | None = None) -> LoadedModel:
        """Bring `model` into memory, once however many ask; without `options`, as the settings say."""

    @abstractmethod
    async def unload(self, model: str) -> None:
        """Free `model`; does nothing when it is not in memory."""

    @abstractmethod
    def loaded(self) -> list[LoadedModel]:
        """List what is in memory, the model used longest ago first."""

    @abstractmethod
    async def estimate(self, model: str, options: LoadOptions | None = None) -> MemoryEstimate:
        """Say what `model` would take, without bringing it into memory. Raises ModelNotFound, Rejected, Unreachable."""

    @abstractmethod
    def is_busy(self, model: str) -> bool:
        """Say whether `model` is answering now, and so must stay."""

    def rests_on(self, model: str) -> tuple[LocalProvider, str] | None:
        """Return the model whose weights `model` uses, which is used with it."""
        return None

    async def delete(self, model: str) -> None:
        """Delete the files of `model`. Raises Rejected where they are not simpleIA's own, or in use."""
        raise not_ours(model)

    def cancel_load(self, model: str) -> None:
        """End the loading of `model`, if it is on its way: whoever waits for it is told so."""
        return

    def engines(self) -> dict[str, EngineFigures]:
        """Say what the engine of each loaded model does now, where it is in this process."""
        return {}
