"""Models in this process through transformers. torch is imported when the first model is loaded."""

from __future__ import annotations

import asyncio
import contextlib
import re
import threading
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from providers.base import LocalProvider, Provider
from providers.errors import ModelNotFound, Rejected, Unreachable
from providers.local_folders import HUB_FILES, ModelFolder, model_folders_under, open_model_folder
from providers.local_vision import sees
from providers.sentences import say
from providers.types import (
    Capabilities,
    ChatRequest,
    LoadedModel,
    LoadOptions,
    Message,
    ModelInfo,
    ProviderInfo,
    ProviderSettings,
    StreamEvent,
)

if TYPE_CHECKING:
    from providers.local_model import LocalModel

BUNDLED = "starter"
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}(/[A-Za-z0-9][\w.-]{0,95})?", re.ASCII)

CAPABILITIES = Capabilities(
    parameters=frozenset(
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
    ),
    exact_token_count=True,
)


class TransformersProvider(LocalProvider):
    """Answers from safetensors models: bundled, in a folder, in the Hugging Face cache, or fetched from the Hub."""

    info = ProviderInfo(
        key="transformers",
        label="Transformers",
        local=True,
        needs="a folder or a Hugging Face id",
        docs_url="https://huggingface.co/docs/transformers",
        offers=frozenset({"images"}),
    )

    def __init__(self, settings: ProviderSettings, others: Callable[[str], Provider] | None = None) -> None:
        self._settings = settings
        self._resident: dict[str, LocalModel] = {}
        self._loading: dict[str, asyncio.Task[LocalModel]] = {}
        self._users: Counter[str] = Counter()
        self._seeing: set[str] = set()
        self._load_turn = asyncio.Lock()  # from_pretrained on two threads at once mixes up their weights.
        self._threads = ThreadPoolExecutor(settings.parallel_answers, thread_name_prefix="answer")

    async def list_models(self) -> list[ModelInfo]:
        return await asyncio.to_thread(self._list_models)

    async def find_model(self, model: str) -> ModelInfo:
        return await asyncio.to_thread(self._describe, model)

    def capabilities(self, model: str) -> Capabilities:
        return replace(CAPABILITIES, images=model in self._seeing)

    async def count_tokens(self, messages: Sequence[Message], model: str) -> int:
        return await asyncio.to_thread((await self._ready(model)).count_tokens, messages)

    async def stream(self, request: ChatRequest) -> AsyncGenerator[StreamEvent, None]:
        model = await self._ready(request.model)
        if request.adapter:
            model = await self._adapted(model, request.adapter)
        loop = asyncio.get_running_loop()
        events: asyncio.Queue[StreamEvent | None] = asyncio.Queue()
        cancelled = threading.Event()

        def emit(event: StreamEvent) -> None:
            loop.call_soon_threadsafe(events.put_nowait, event)

        def ended(work: asyncio.Future[None]) -> None:
            if not work.cancelled():
                work.exception()
            events.put_nowait(None)

        with self._in_use(request.model):
            work = loop.run_in_executor(self._threads, model.answer, request, emit, cancelled)
            work.add_done_callback(ended)
            try:
                for notice in model.info.notices:
                    yield notice
                while (event := await events.get()) is not None:
                    yield event
                await work
            finally:
                cancelled.set()
                work.cancel()

    async def load(self, model: str, options: LoadOptions | None = None) -> LoadedModel:
        return (await self._ready(model, options)).info

    async def unload(self, model: str) -> None:
        self._resident.pop(model, None)

    def loaded(self) -> list[LoadedModel]:
        return [model.info for model in self._resident.values()]

    async def load_adapter(self, model: str, adapter: Path, options: LoadOptions | None = None) -> LoadedModel:
        """Bring `model` with the LoRA weights in `adapter` into memory, beside `model` itself and on its weights."""
        return (await self._adapted(await self._ready(model, options), adapter)).info

    def unload_adapter(self, model: str, adapter: Path) -> None:
        """Free an adapter; its base stays."""
        if model in self._resident:
            self._resident[model].adapted.pop(adapter, None)

    def loaded_adapters(self) -> dict[Path, LoadedModel]:
        """List the adapters in memory by their folders."""
        return {folder: adapted.info for base in self._resident.values() for folder, adapted in base.adapted.items()}

    async def training_folder(self, model: str) -> ModelFolder:
        folder = await asyncio.to_thread(self._fetch, model)
        if sees(folder):
            raise Rejected(
                say("{model} cannot be fine-tuned here: it is a model that sees.", model=model),
                provider=self.info.key,
                hint=say("Choose a model for text alone."),
            )
        return folder

    async def aclose(self) -> None:
        self._resident.clear()
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _ready(self, name: str, options: LoadOptions | None = None) -> LocalModel:
        """Return the model in memory, loading it once however many ask; a caller that leaves does not stop the load."""
        if name in self._resident:
            self._resident[name] = self._resident.pop(name)
            return self._resident[name]
        if name not in self._loading:
            self._loading[name] = asyncio.create_task(self._load(name, options or self._settings.load_options))
            self._loading[name].add_done_callback(lambda _: self._loading.pop(name))
        return await asyncio.shield(self._loading[name])

    async def _load(self, name: str, options: LoadOptions) -> LocalModel:
        folder = await asyncio.to_thread(self._fetch, name)
        async with self._load_turn:
            self._make_room()
            self._resident[name] = model = await asyncio.to_thread(_load_model, name, folder, options)
        return model

    async def _adapted(self, base: LocalModel, adapter: Path) -> LocalModel:
        """Return `base` with an adapter; a caller that leaves does not end the turn of a load that goes on."""
        return await asyncio.shield(asyncio.create_task(self._adapt(base, adapter)))

    async def _adapt(self, base: LocalModel, adapter: Path) -> LocalModel:
        async with self._load_turn:
            if adapter not in base.adapted:
                base.adapted[adapter] = await asyncio.to_thread(base.with_adapter, adapter)
        return base.adapted[adapter]

    def _make_room(self) -> None:
        """Let go of the models used longest ago, but of none that is answering."""
        idle = [name for name in self._resident if not self._users[name]]
        surplus = len(self._resident) + 1 - self._settings.resident_models
        for name in idle[: max(0, surplus)]:
            del self._resident[name]

    @contextlib.contextmanager
    def _in_use(self, name: str) -> Iterator[None]:
        self._users[name] += 1
        try:
            yield
        finally:
            self._users[name] -= 1

    def _list_models(self) -> list[ModelInfo]:
        models_dir = self._settings.models_dir
        places: list[tuple[str, str, Path]] = [(BUNDLED, "bundled", self._settings.bundled_dir / BUNDLED)]
        places += [(name, "folder", path) for name, path in model_folders_under(models_dir)]
        places += [(name, "cache", path) for name, path in _cached_models()]
        rows: dict[str, ModelInfo] = {}
        for name, source, path in places:
            try:
                rows.setdefault(name, self._row(name, source, open_model_folder(path)))
            except ModelNotFound:
                continue
        return list(rows.values())

    def _describe(self, name: str) -> ModelInfo:
        source, path = self._locate(name)
        return self._row(name, source, open_model_folder(path) if path else None)

    def _row(self, name: str, source: str, folder: ModelFolder | None) -> ModelInfo:
        if folder and sees(folder):
            self._seeing.add(name)
        return ModelInfo(
            name=name,
            provider=self.info.key,
            local=True,
            source=source,
            capabilities=self.capabilities(name),
            context_length=folder.context_length if folder else None,
            size_bytes=folder.size_bytes if folder else None,
            loaded=name in self._resident,
        )

    def _locate(self, name: str) -> tuple[str, Path | None]:
        """Say where `name` is: its source, and its folder unless it is still on the Hub."""
        if name == BUNDLED:
            return "bundled", self._settings.bundled_dir / BUNDLED
        if HUB_ID.fullmatch(name) and ".." not in name:
            if (folder := self._settings.models_dir / name).is_dir():
                return "folder", folder
            if cached := _cached_snapshot(name):
                return "cache", cached
            return "hub", None
        if name.startswith(("/", "~", ".")) or Path(name).is_absolute():
            return "folder", _existing_folder(name)
        raise ModelNotFound(
            say("{name} is not the name of a model.", name=name[:100]),
            provider=self.info.key,
            hint=say("Use a folder, or a Hugging Face id such as HuggingFaceTB/SmolLM2-135M-Instruct."),
        )

    def _fetch(self, name: str) -> ModelFolder:
        _, path = self._locate(name)
        return open_model_folder(path or _download(name, self._settings.hub_token))


def _load_model(name: str, folder: ModelFolder, options: LoadOptions) -> LocalModel:
    from providers.local_model import LocalModel

    return LocalModel(name, folder, options)


def _existing_folder(name: str) -> Path:
    with contextlib.suppress(OSError, RuntimeError, ValueError):
        if (path := Path(name).expanduser()).is_dir():
            return path
    raise ModelNotFound(
        say("There is no folder {folder}.", folder=Path(name).name[:100]),
        provider="transformers",
        hint=say("Check the path; it must be a folder on the machine that runs simpleIA."),
    )


def _cached_models() -> list[tuple[str, Path]]:
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        repositories = scan_cache_dir().repos
    except CacheNotFound:
        return []
    newest = [
        (repository.repo_id, max(repository.revisions, key=lambda revision: revision.last_modified))
        for repository in repositories
        if repository.repo_type == "model" and repository.revisions
    ]
    return sorted((name, revision.snapshot_path) for name, revision in newest)


def _cached_snapshot(name: str) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    config = try_to_load_from_cache(name, "config.json")
    return Path(config).parent if isinstance(config, str) else None


def _download(name: str, token: str | None) -> Path:
    """Fetch a model from the Hub: safetensors, configuration and tokenizer, never pickles or code."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, allow_patterns=list(HUB_FILES), token=token))
    except (LocalEntryNotFoundError, OSError) as error:
        if isinstance(error, HfHubHTTPError) and error.response is not None:
            raise ModelNotFound(
                say("There is no model {name} here, and the Hugging Face Hub does not give one out.", name=name),
                provider="transformers",
                hint=say("Check the name; a gated model needs HF_TOKEN and its licence accepted on its page."),
            ) from error
        raise Unreachable(
            say("The model {name} is not on this machine, and the Hugging Face Hub cannot be reached.", name=name),
            provider="transformers",
            hint=say("Check the name, or connect to the internet once to download it."),
        ) from error
