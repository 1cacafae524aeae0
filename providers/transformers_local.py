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
from providers.errors import ModelNotFound, Rejected
from providers.hub_download import fetch as fetch_model
from providers.hub_download import headers_of, look_at
from providers.local_folders import (
    ModelFolder,
    folder_on_the_hub,
    is_whole,
    model_folders_under,
    not_ours,
    open_model_folder,
    remove_folder,
)
from providers.local_vision import sees
from providers.memory import sizes_of
from providers.sentences import say
from providers.types import (
    Capabilities,
    ChatRequest,
    EngineFigures,
    EngineLimits,
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
from providers.weight_headers import Tensor

if TYPE_CHECKING:
    from providers.local_model import LocalModel

BUNDLED = "starter"
LEAVING_SECONDS = 15.0
MODELS_AT_ONCE = 4
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
        self._cancelled: dict[str, threading.Event] = {}
        self._options: dict[str, LoadOptions] = {}
        self._users: Counter[str] = Counter()
        self._seeing: set[str] = set()
        self._load_turn = asyncio.Lock()  # from_pretrained on two threads at once mixes up their weights.
        self._limits = replace(settings.engine_limits, parallel=settings.parallel_answers)
        # A thread waits for each answer; one more than fits hears at once that the line is full.
        asking = MODELS_AT_ONCE * (self._limits.batched + self._limits.waiting + 1)
        self._threads = ThreadPoolExecutor(asking, thread_name_prefix="answer")

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
        if resident := self._resident.pop(model, None):
            resident.close()
            del resident
            await asyncio.to_thread(_give_back_memory)

    def loaded(self) -> list[LoadedModel]:
        return [model.info for model in self._resident.values()]

    async def estimate(self, model: str, options: LoadOptions | None = None) -> MemoryEstimate:
        return await asyncio.to_thread(self._estimate, model, options or self._options_of(model))

    def is_busy(self, model: str) -> bool:
        return self._users[model] > 0

    def cancel_load(self, model: str) -> None:
        if cancelled := self._cancelled.get(model):
            cancelled.set()

    async def delete(self, model: str) -> None:
        await self._leave(model)
        await asyncio.to_thread(self._delete, model)

    async def download(self, model: str) -> AsyncGenerator[Progress, None]:
        """Fetch a model from the Hub into the models' folder; closing the generator stops it, and what came is kept."""
        loop = asyncio.get_running_loop()
        news: asyncio.Queue[tuple[int, int] | None] = asyncio.Queue()
        cancelled = threading.Event()

        def report(done: int, total: int) -> None:
            loop.call_soon_threadsafe(news.put_nowait, (done, total))

        def fetch() -> None:
            settings = self._settings
            fetch_model(look_at(model, settings.hub_token), settings.models_dir, settings.hub_token, report, cancelled)

        work = asyncio.create_task(asyncio.to_thread(fetch))
        work.add_done_callback(lambda _: news.put_nowait(None))
        try:
            while (told := await news.get()) is not None:
                yield Progress("download", *told)
            await work
        finally:
            cancelled.set()
            work.add_done_callback(_forget_error)
            await asyncio.wait({work}, timeout=LEAVING_SECONDS)  # Two threads must not write into one part.

    def engines(self) -> dict[str, EngineFigures]:
        return {name: model.figures() for name, model in self._resident.items()}

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
        for model in list(self._resident):
            await self.unload(model)
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _ready(self, name: str, options: LoadOptions | None = None) -> LocalModel:
        """Return the model in memory, loading it once however many ask; a caller that leaves does not stop the load."""
        if name in self._resident and options in (None, self._resident[name].options):
            self._resident[name] = self._resident.pop(name)
            return self._resident[name]
        if name not in self._loading:
            self._loading[name] = asyncio.create_task(self._load(name, options or self._options_of(name)))
            self._loading[name].add_done_callback(lambda _: self._loading.pop(name))
        return await asyncio.shield(self._loading[name])

    async def _load(self, name: str, options: LoadOptions) -> LocalModel:
        cancelled = self._cancelled[name] = threading.Event()
        try:
            folder = await asyncio.to_thread(self._fetch, name)
            async with self._load_turn:
                await self._leave(name)
                self._make_room()
                model = await asyncio.to_thread(_load_model, name, folder, options, cancelled, self._limits)
            self._resident[name], self._options[name] = model, options
        finally:
            del self._cancelled[name]
        return model

    async def _leave(self, name: str) -> None:
        """Free a model that is to be loaded in another way. Raises Rejected while it answers."""
        if self.is_busy(name):
            raise Rejected(
                say("{model} is answering, and cannot be loaded in another way meanwhile.", model=name),
                provider=self.info.key,
                hint=say("Wait for the answer, or stop it."),
            )
        await self.unload(name)

    def _options_of(self, name: str) -> LoadOptions:
        """Return how a model was loaded last, so that one that had to leave comes back as it was."""
        return self._options.get(name, self._settings.load_options)

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
            self._resident.pop(name).close()

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
        if resident := self._resident.get(name):  # Its folder may be gone; it answers from memory.
            return self._row(name, self._source_of(resident.folder), resident.folder)
        source, path = self._locate(name)
        return self._row(name, source, open_model_folder(path) if path else None)

    def _source_of(self, folder: ModelFolder) -> str:
        if folder.path == self._settings.bundled_dir / BUNDLED:
            return "bundled"
        return "cache" if folder.path.parent.name == "snapshots" else "folder"

    def _estimate(self, name: str, options: LoadOptions) -> MemoryEstimate:
        source, path = self._locate(name)
        if source == "hub":
            config, tensors = headers_of(name, self._settings.hub_token)
            return _estimate_of(folder_on_the_hub(name, config), tensors, options)
        assert path is not None
        return _estimate_of(open_model_folder(path), None, options)

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

    def _delete(self, name: str) -> None:
        source, path = self._locate(name)
        if source == "cache":
            _delete_from_cache(name)
        elif path and source == "folder" and self._settings.models_dir in path.parents:
            remove_folder(path)
        else:
            raise not_ours(name)

    def _fetch(self, name: str) -> ModelFolder:
        _, path = self._locate(name)
        token = self._settings.hub_token
        return open_model_folder(
            path or fetch_model(look_at(name, token), self._settings.models_dir, token, _tell_nobody, threading.Event())
        )


def _load_model(
    name: str, folder: ModelFolder, options: LoadOptions, cancelled: threading.Event, limits: EngineLimits
) -> LocalModel:
    from providers.local_model import LocalModel

    return LocalModel(name, folder, options, cancelled, limits)


def _estimate_of(folder: ModelFolder, tensors: Sequence[Tensor] | None, options: LoadOptions) -> MemoryEstimate:
    from providers import loading

    sizes = loading.folder_sizes(folder) if tensors is None else sizes_of(tensors, folder.config)
    return loading.estimate(loading.make_plan(folder, sizes, options), sizes)


def _give_back_memory() -> None:
    from providers.loading import give_back_memory

    give_back_memory()


def _tell_nobody(done: int, total: int) -> None:
    """Nobody waits for a download that a load began by itself."""


def _forget_error(work: asyncio.Task[None]) -> None:
    if not work.cancelled():
        work.exception()


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


def _delete_from_cache(name: str) -> None:
    from huggingface_hub import scan_cache_dir

    cache = scan_cache_dir()
    revisions = [each.commit_hash for repo in cache.repos if repo.repo_id == name for each in repo.revisions]
    cache.delete_revisions(*revisions).execute()


def _cached_snapshot(name: str) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    config = try_to_load_from_cache(name, "config.json")
    return Path(config).parent if isinstance(config, str) and is_whole(Path(config).parent) else None
