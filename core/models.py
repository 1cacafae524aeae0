"""Which models there are, which are in memory, and who may bring one there. A model id is `provider/name`."""

from __future__ import annotations

import asyncio
import copy
import logging
import time
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace

from core.errors import NotAllowed
from core.session_keys import NO_KEYS, Keys, SessionKeys
from core.settings import Settings
from providers.base import LocalProvider, Provider
from providers.catalog import create_provider, provider_names
from providers.errors import ModelNotFound, ProviderError
from providers.http_errors import silent
from providers.local_folders import ModelFolder
from providers.remote import RemoteProvider
from providers.sentences import say
from providers.types import Capabilities, LoadedModel, ModelInfo, Progress, ProviderInfo

FALLBACK_PROVIDER = "transformers"
LIST_SECONDS = 6.0
MAX_TWINS = 100

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ModelState:
    """What is known of a model now: in memory, on its way since `loading_since` (monotonic seconds), or failed.

    `service` is who answers, where the model is not in this process.
    """

    model_id: str
    service: str = ""
    loaded: LoadedModel | None = None
    loading_since: float | None = None
    progress: Progress | None = None
    error: ProviderError | None = None


@dataclass
class Models:
    """The models of all providers. One for each server."""

    settings: Settings
    session_keys: SessionKeys = field(default_factory=SessionKeys)
    _providers: dict[str, Provider] = field(default_factory=dict)
    _loading_since: dict[str, float] = field(default_factory=dict)
    _progress: dict[str, Progress] = field(default_factory=dict)
    _errors: dict[str, ProviderError] = field(default_factory=dict)
    _twins: dict[tuple[str, str], RemoteProvider] = field(default_factory=dict, repr=False)
    _keys: Keys = field(default_factory=lambda: NO_KEYS)

    def __post_init__(self) -> None:
        self._names = provider_names(self.settings.for_providers())

    def for_session(self, session: str) -> Models:
        """Return the same models, asked with the keys that were typed in a session; what is in memory is shared."""
        view = copy.copy(self)
        view._keys = self.session_keys.of(session)
        return view

    def provider(self, name: str) -> Provider:
        """Return the provider `name`, made on first use."""
        if name not in self._providers:
            self._providers[name] = create_provider(name, self.settings.for_providers(), self.provider)
        return self._providers[name]

    def providers(self) -> list[ProviderInfo]:
        """Describe every provider: those of the catalog, and the services that the configuration adds."""
        return [self.provider(name).info for name in self._names]

    def has_key(self, name: str) -> bool:
        """Say whether the server has a key of its own for a provider."""
        provider = self.provider(name)
        return isinstance(provider, RemoteProvider) and provider.has_key

    def split(self, model_id: str) -> tuple[Provider, str]:
        """Return the provider and the name within it; a bare name such as `gpt2` is a local model's."""
        key, slash, name = model_id.strip().partition("/")
        if not slash or key not in self._names or not name:
            return self.provider(FALLBACK_PROVIDER), model_id.strip()
        return self._keyed(key, is_default=model_id.strip() == self.settings.default_model), name

    def _keyed(self, name: str, is_default: bool = False) -> Provider:
        """Return a provider with the session's key for its address; visitors have the server's key only by default."""
        provider = self.provider(name)
        if not isinstance(provider, RemoteProvider):
            return provider
        typed = self._keys.get(name)
        if typed and typed.base_url == provider.info.base_url:
            return self._with_key(provider, typed.key)
        if self.settings.auth == "guest" and provider.has_key and not is_default:
            return self._with_key(provider, "")
        return provider

    def _with_key(self, provider: RemoteProvider, key: str) -> RemoteProvider:
        twin = self._twins.pop((provider.info.key, key), None) or provider.with_key(key)
        self._twins[provider.info.key, key] = twin
        if len(self._twins) > MAX_TWINS:
            del self._twins[next(iter(self._twins))]
        return twin

    def full_id(self, model_id: str) -> str:
        """Return `model_id` with its provider's prefix; an empty one is the default model."""
        provider, name = self.split(model_id.strip() or self.settings.default_model)
        return f"{provider.info.key}/{name}"

    async def list(self) -> list[ModelInfo]:
        """List every model that can be asked now; a service that does not answer has none."""
        lists = await asyncio.gather(*(self._listed(name) for name in self._names))
        return [model for models in lists for model in models]

    async def _listed(self, name: str) -> Sequence[ModelInfo]:
        try:
            async with asyncio.timeout(LIST_SECONDS):
                return await self._keyed(name).list_models()
        except (ProviderError, TimeoutError) as error:
            log.debug("%s lists no models: %s", name, error)
            return ()

    async def service_errors(self) -> dict[str, ProviderError | None]:
        """Say of each service on the network what keeps its models from being asked now; `None` where nothing does."""
        names = [name for name in self._names if isinstance(self.provider(name), RemoteProvider)]
        return dict(zip(names, await asyncio.gather(*map(self._service_error, names)), strict=True))

    async def _service_error(self, name: str) -> ProviderError | None:
        provider = self._keyed(name)
        assert isinstance(provider, RemoteProvider)
        try:
            async with asyncio.timeout(LIST_SECONDS):
                await provider.check()
        except ProviderError as error:
            return error
        except TimeoutError:
            return silent(provider.info)
        return None

    async def embed(self, texts: Sequence[str], model_id: str) -> Sequence[Sequence[float]]:
        """Return the embedding of each text. Raises NotAllowed, Rejected where a model has none, and others."""
        await self.find(model_id)
        provider, name = self.split(self.full_id(model_id))
        return await provider.embed(texts, name)

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

    async def load(self, model_id: str, fetch: bool = False) -> ModelInfo:
        """Bring a model into memory, where it is a local one, and describe it.

        With `fetch`, a service that does not have the model yet is told to download it, where it can.

        Raises ModelNotFound, NotAllowed, OutOfMemory, Unreachable or UpstreamFailure.
        """
        full_id = self.full_id(model_id)
        provider, name = self.split(full_id)
        self._loading_since.setdefault(full_id, time.monotonic())
        self._errors.pop(full_id, None)
        try:
            info = await self._found(full_id, fetch)
            if not isinstance(provider, LocalProvider):
                return info
            loaded = await provider.load(name)
        except ProviderError as error:
            self._errors[full_id] = copy.copy(error)  # Its traceback would hold the half-loaded weights.
            raise
        finally:
            self._loading_since.pop(full_id, None)
            self._progress.pop(full_id, None)
        return replace(info, loaded=True, context_length=loaded.context_length)

    async def _found(self, full_id: str, fetch: bool) -> ModelInfo:
        try:
            return await self.find(full_id)
        except ModelNotFound:
            provider, name = self.split(full_id)
            download = provider.download(name) if fetch and self.settings.auth == "off" else None
            if download is None:
                raise
        async with aclosing(download):
            async for progress in download:
                self._progress[full_id] = progress
        return await self.find(full_id)

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
            service="" if isinstance(provider, LocalProvider) else provider.info.label,
            loaded=next((model for model in in_memory if model.name == name), None),
            loading_since=self._loading_since.get(full_id),
            progress=self._progress.get(full_id),
            error=self._errors.get(full_id),
        )

    async def aclose(self) -> None:
        """Free what the providers hold."""
        for provider in self._providers.values():
            await provider.aclose()
