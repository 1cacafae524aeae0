"""Which models there are, which are in memory, and who may bring one there. A model id is `provider/name`."""

from __future__ import annotations

import asyncio
import copy
import time
from dataclasses import dataclass, field, replace

from core.errors import NotAllowed
from core.settings import Settings
from providers.base import LocalProvider, Provider
from providers.catalog import PROVIDERS, create_provider
from providers.errors import ProviderError
from providers.local_folders import ModelFolder
from providers.sentences import say
from providers.types import Capabilities, LoadedModel, ModelInfo, ProviderInfo

FALLBACK_PROVIDER = "transformers"


@dataclass(frozen=True)
class ModelState:
    """What is known of a model now: in memory, on its way since `loading_since` (monotonic seconds), or failed."""

    model_id: str
    loaded: LoadedModel | None = None
    loading_since: float | None = None
    error: ProviderError | None = None


@dataclass
class Models:
    """The models of all providers. One for each server."""

    settings: Settings
    _providers: dict[str, Provider] = field(default_factory=dict)
    _loading_since: dict[str, float] = field(default_factory=dict)
    _errors: dict[str, ProviderError] = field(default_factory=dict)

    def provider(self, key: str) -> Provider:
        """Return the provider `key` of the catalog, made on first use."""
        if key not in self._providers:
            self._providers[key] = create_provider(key, self.settings.for_providers(), self.provider)
        return self._providers[key]

    def providers(self) -> list[ProviderInfo]:
        """Describe every provider of the catalog."""
        return [self.provider(key).info for key in PROVIDERS]

    def split(self, model_id: str) -> tuple[Provider, str]:
        """Return the provider and the name within it; a bare name such as `gpt2` is a local model's."""
        key, slash, name = model_id.strip().partition("/")
        if slash and key in PROVIDERS and name:
            return self.provider(key), name
        return self.provider(FALLBACK_PROVIDER), model_id.strip()

    def full_id(self, model_id: str) -> str:
        """Return `model_id` with its provider's prefix; an empty one is the default model."""
        provider, name = self.split(model_id.strip() or self.settings.default_model)
        return f"{provider.info.key}/{name}"

    async def list(self) -> list[ModelInfo]:
        """List every model that can be asked now."""
        lists = await asyncio.gather(*(self.provider(key).list_models() for key in PROVIDERS))
        return [model for models in lists for model in models]

    async def find(self, model_id: str) -> ModelInfo:
        """Describe one model and check that it may be used. Raises ModelNotFound or NotAllowed."""
        provider, name = self.split(self.full_id(model_id))
        if (
            self.settings.auth == "guest"
            and self.full_id(model_id) != self.full_id("")
            and not any(model.name == name for model in await provider.list_models())
        ):
            raise NotAllowed(
                say("Visitors may use only the models that are listed here."),
                say("Run simpleIA on your own machine to load any model."),
            )
        return await provider.find_model(name)

    async def load(self, model_id: str) -> ModelInfo:
        """Bring a model into memory, where it is a local one, and describe it.

        Raises ModelNotFound, NotAllowed, OutOfMemory, Unreachable or UpstreamFailure.
        """
        full_id = self.full_id(model_id)
        provider, name = self.split(full_id)
        self._loading_since.setdefault(full_id, time.monotonic())
        self._errors.pop(full_id, None)
        try:
            info = await self.find(full_id)
            if not isinstance(provider, LocalProvider):
                return info
            loaded = await provider.load(name)
        except ProviderError as error:
            self._errors[full_id] = copy.copy(error)  # Its traceback would hold the half-loaded weights.
            raise
        finally:
            self._loading_since.pop(full_id, None)
        return replace(info, loaded=True, context_length=loaded.context_length)

    async def training_folder(self, model_id: str) -> ModelFolder:
        """Return the weights of a model that can be trained on. Raises ModelNotFound, NotAllowed or Rejected."""
        await self.find(model_id)
        provider, name = self.split(self.full_id(model_id))
        return await provider.training_folder(name)

    def capabilities(self, model_id: str) -> Capabilities:
        """Say what a model takes and gives, at once and without I/O."""
        provider, name = self.split(self.full_id(model_id))
        return provider.capabilities(name)

    def state(self, model_id: str) -> ModelState:
        """Say how the model stands, at once and without I/O."""
        full_id = self.full_id(model_id)
        provider, name = self.split(full_id)
        in_memory = provider.loaded() if isinstance(provider, LocalProvider) else []
        return ModelState(
            model_id=full_id,
            loaded=next((model for model in in_memory if model.name == name), None),
            loading_since=self._loading_since.get(full_id),
            error=self._errors.get(full_id),
        )

    async def aclose(self) -> None:
        """Free what the providers hold."""
        for provider in self._providers.values():
            await provider.aclose()
