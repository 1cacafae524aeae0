"""Which models there are, which are in memory, and who may bring one there. A model id is `provider/name`."""

from __future__ import annotations

import asyncio
import copy
import logging
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace

from core.downloads import Download, Downloads
from core.errors import InvalidRequest, NotAllowed
from core.hub_search import search_hub
from core.library import Library
from core.loads import Loads
from core.model_entries import ModelEntry
from core.residency import Residency
from core.session_keys import NO_KEYS, Keys, SessionKeys
from core.settings import BUNDLED_MODEL, Settings
from core.users import check_may_manage
from providers.base import LocalProvider, Provider
from providers.catalog import create_provider, provider_names
from providers.errors import ModelNotFound, ProviderError, Rejected
from providers.http_errors import silent
from providers.local_folders import ModelFolder, not_ours
from providers.pool import PoolProvider
from providers.remote import RemoteProvider
from providers.sentences import say
from providers.types import (
    Capabilities,
    EngineFigures,
    LoadedModel,
    LoadOptions,
    MemoryEstimate,
    ModelInfo,
    Progress,
    ProviderInfo,
)

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
    _progress: dict[str, Progress] = field(default_factory=dict)
    _twins: dict[tuple[str, str], RemoteProvider] = field(default_factory=dict, repr=False)
    _keys: Keys = field(default_factory=lambda: NO_KEYS)
    downloads: Downloads = field(default_factory=Downloads)
    speeds: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._names = provider_names(self.settings.for_providers())
        self.library = Library(self.settings.data_dir, self.settings.catalogue_file)
        self.residency = Residency(self._local_providers)
        self.loads = Loads(self.library, self.residency, self.settings.device)

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

    def _local_providers(self) -> Iterator[LocalProvider]:
        return (each for each in list(self._providers.values()) if isinstance(each, LocalProvider))

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
        return self._keyed(key, is_default=model_id.strip() == self.default), name

    @property
    def default(self) -> str:
        """The model that answers where none is named: the environment's, else the one chosen in the page."""
        named = self.settings.default_model
        return self.library.selected or named if named == BUNDLED_MODEL else named

    def _keyed(self, name: str, is_default: bool = False) -> Provider:
        """Return a provider with the session's key for its address; visitors have the server's key only by default."""
        provider = self.provider(name)
        if isinstance(provider, PoolProvider):
            return provider.asking(lambda member: self._keyed(member, is_default))
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
        provider, name = self.split(model_id.strip() or self.default)
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

    async def load(
        self, model_id: str, fetch: bool = False, options: LoadOptions | None = None, force: bool = False
    ) -> ModelInfo:
        """Bring a model into memory, where it is a local one, and describe it.

        A model of the Hub that is not here yet is downloaded, with `fetch` one of Ollama too. What does not fit is
        refused, unless forced; where it fits once others left, those used longest ago leave first, and come back if it
        then cannot be loaded.

        Raises ModelNotFound, NotAllowed, OutOfMemory, Cancelled, Unreachable or UpstreamFailure.
        """
        if options or force:
            check_may_manage(self.settings)
        full_id = self.full_id(model_id)
        provider, name = self.split(full_id)
        self.loads.begin(full_id)
        try:
            info = await self._found(full_id, fetch)
            if not isinstance(provider, LocalProvider):
                return info
            loaded = await self.loads.load(provider, name, options, force)
        except ProviderError as error:
            self.loads.failed(full_id, error)
            raise
        finally:
            self.loads.end(full_id)
        return replace(info, loaded=True, context_length=loaded.context_length)

    async def _found(self, full_id: str, fetch: bool) -> ModelInfo:
        try:
            info = await self.find(full_id)
            if info.source != "hub":
                return info
        except ModelNotFound:
            provider, name = self.split(full_id)
            ours = isinstance(provider, LocalProvider)  # What is broken here is not fetched under the same name.
            if ours or not fetch or self.settings.auth != "off" or provider.download(name) is None:
                raise
        try:
            async with aclosing(self._fetched(full_id)) as download:
                async for state in download:
                    self._progress[full_id] = state.progress
        finally:
            self._progress.pop(full_id, None)
        return await self.find(full_id)

    async def download(self, model_id: str) -> AsyncGenerator[Download, None]:
        """Fetch a model and tell how far it is; leaving does not end it. Raises NotAllowed, Cancelled and others."""
        check_may_manage(self.settings)
        full_id = self.full_id(model_id)
        provider, name = self.split(full_id)
        if provider.download(name) is None:
            raise ModelNotFound(
                say("{model} cannot be downloaded.", model=full_id),
                provider=provider.info.key,
                hint=say("Choose a model of the Hugging Face Hub or of Ollama."),
            )
        async with aclosing(self._fetched(full_id)) as states:
            async for state in states:
                yield state

    async def _fetched(self, full_id: str) -> AsyncGenerator[Download, None]:
        provider, name = self.split(full_id)
        self.downloads.start(full_id, lambda: _given(provider.download(name)))
        async with aclosing(self.downloads.watch(full_id)) as states:
            async for state in states:
                yield state

    async def estimate(self, model_id: str, options: LoadOptions | None = None) -> MemoryEstimate:
        """Say what a model would take, before it is loaded or even downloaded. Raises NotAllowed and Rejected."""
        info = await self.find(model_id)
        provider, name = self.split(self.full_id(model_id))
        if not isinstance(provider, LocalProvider):
            raise Rejected(
                say("{model} is not computed in this process.", model=info.name),
                provider=provider.info.key,
                hint=say("Its service knows what it needs."),
            )
        return await provider.estimate(name, self.loads.wanted(f"{provider.info.key}/{name}", options))

    def known_entries(self) -> tuple[ModelEntry, ...]:
        """Return what is suggested, and before it, for the owner alone, what they wrote down: it may hold paths."""
        own = self.library.own() if self.settings.auth == "off" else ()
        return (*own, *self.library.catalogue())

    async def search(self, words: str) -> Sequence[ModelEntry]:
        """Look for models on the Hub. Raises NotAllowed, InvalidRequest and Unreachable."""
        check_may_manage(self.settings)
        if not words.strip():
            raise InvalidRequest(say("There is nothing to look for."), say("Write a name, or a part of one."))
        return await asyncio.to_thread(search_hub, words.strip(), self.settings.hub_token)

    def cancel(self, model_id: str) -> None:
        """End the loading and the download of a model. Raises NotAllowed."""
        check_may_manage(self.settings)
        full_id = self.full_id(model_id)
        provider, name = self.split(full_id)
        self.downloads.cancel(full_id)
        self.loads.cancel(full_id)
        if isinstance(provider, LocalProvider):
            provider.cancel_load(name)

    async def unload(self, model_id: str) -> None:
        """Free a model. Raises NotAllowed, and Rejected while it answers."""
        check_may_manage(self.settings)
        full_id = self.full_id(model_id)
        provider, name = self.split(full_id)
        if isinstance(provider, LocalProvider):
            if provider.is_busy(name):
                raise Rejected(
                    say("{model} is answering, and stays.", model=full_id),
                    provider=provider.info.key,
                    hint=say("Wait for the answer, or stop it."),
                )
            await provider.unload(name)

    async def delete(self, model_id: str) -> None:
        """Delete a model from the disk. Raises NotAllowed, ModelNotFound, and Rejected where it is not ours."""
        check_may_manage(self.settings)
        full_id = self.full_id(model_id)
        provider, name = self.split(full_id)
        if full_id == self.full_id(""):
            raise Rejected(
                say("{model} is the default model, and stays.", model=full_id),
                hint=say("Make another model the default first."),
            )
        if not isinstance(provider, LocalProvider):
            raise not_ours(full_id)
        await self.unload(full_id)
        await provider.delete(name)
        await self.loads.keep_options(full_id, LoadOptions())

    async def make_default(self, model_id: str) -> str:
        """Let a model answer where none is named, from now on and after a restart; return its id."""
        check_may_manage(self.settings)
        info = await self.find(model_id)
        full_id = f"{info.provider}/{info.name}"
        if self.settings.default_model != BUNDLED_MODEL:
            raise Rejected(
                say("The environment names the default model, {model}.", model=self.settings.default_model),
                hint=say("Take DEFAULT_MODEL or LLM_MODEL out of it first."),
            )
        await asyncio.to_thread(self.library.select, full_id)
        return full_id

    async def training_folder(self, model_id: str) -> ModelFolder:
        """Return the weights of a model that can be trained on. Raises ModelNotFound, NotAllowed or Rejected."""
        full_id = self.full_id(model_id)
        await self._found(full_id, fetch=False)
        provider, name = self.split(full_id)
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
            loading_since=self.loads.since.get(full_id),
            progress=self._progress.get(full_id),
            error=self.loads.errors.get(full_id),
        )

    def engines(self) -> dict[str, EngineFigures]:
        """Say what the engines of this process do now, by the ids of their models; to visitors nothing."""
        if self.settings.auth == "guest":
            return {}
        return {
            f"{key}/{name}": figures
            for key, provider in self._providers.items()
            if isinstance(provider, LocalProvider)
            for name, figures in provider.engines().items()
        }

    async def aclose(self) -> None:
        """Stop the downloads and the loads, and free what the providers hold."""
        await self.downloads.aclose()
        await self.loads.aclose()
        for provider in self._providers.values():
            await provider.aclose()


def _given(download: AsyncGenerator[Progress, None] | None) -> AsyncGenerator[Progress, None]:
    assert download is not None
    return download
