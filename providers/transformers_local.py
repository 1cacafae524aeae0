"""Models in this process through transformers. torch is imported when the first model is loaded."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from providers.base import LocalProvider, Provider, Users
from providers.errors import ModelNotFound, Rejected
from providers.hub_download import fetch as fetch_model
from providers.hub_download import headers_of, look_at
from providers.local_folders import ModelFolder, folder_on_the_hub, open_model_folder
from providers.local_vision import sees
from providers.memory import sizes_of
from providers.model_places import ModelPlaces
from providers.own_thread import on_own_thread
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

LEAVING_SECONDS = 15.0
MODELS_AT_ONCE = 4

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
        self._places = ModelPlaces(settings.bundled_dir, settings.models_dir)
        self._resident: dict[str, LocalModel] = {}
        self._loading: dict[str, asyncio.Task[LocalModel]] = {}
        self._cancelled: dict[str, threading.Event] = {}
        self._options: dict[str, LoadOptions] = {}
        self._users = Users()
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

        with self.hold(request.model):
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

    def hold(self, model: str) -> AbstractContextManager[None]:
        return self._users.hold(model)

    def cancel_load(self, model: str) -> None:
        if cancelled := self._cancelled.get(model):
            cancelled.set()

    async def delete(self, model: str) -> None:
        await self._leave(model)
        await asyncio.to_thread(self._places.delete, model)

    async def download(self, model: str) -> AsyncGenerator[Progress, None]:
        """Fetch a model from the Hub into the models' folder; closing the generator stops it, and what came is kept."""
        if (await asyncio.to_thread(self._places.locate, model))[0] != "hub":
            raise Rejected(
                say("{model} is on this machine already.", model=model),
                provider=self.info.key,
                hint=say("Delete it first, if it is to be fetched again."),
            )
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
                limits = replace(self._limits, promised_bytes=self._promised_bytes())
                model = await on_own_thread(partial(_load_model, name, folder, options, cancelled, limits))
            self._resident[name], self._options[name] = model, options
        finally:
            del self._cancelled[name]
        return model

    async def _leave(self, name: str) -> None:
        """Free a model that is to be loaded in another way. Raises Rejected while it answers."""
        if name in self._resident and self.is_busy(name):
            raise Rejected(
                say("{model} is answering, and cannot be loaded in another way meanwhile.", model=name),
                provider=self.info.key,
                hint=say("Wait for the answer, or stop it."),
            )
        await self.unload(name)

    def _promised_bytes(self) -> int:
        """Return what the conversations of the loaded models may still grow by."""
        limits = ((figures.cache_limit_bytes, figures.cache_bytes) for figures in self.engines().values())
        return sum(max(0, limit - used) for limit, used in limits)

    def _options_of(self, name: str) -> LoadOptions:
        """Return how a model was loaded last, so that one that had to leave comes back as it was."""
        return self._options.get(name, self._settings.load_options)

    async def _adapted(self, base: LocalModel, adapter: Path) -> LocalModel:
        """Return `base` with an adapter; a caller that leaves does not end the turn of a load that goes on."""
        return await asyncio.shield(asyncio.create_task(self._adapt(base, adapter)))

    async def _adapt(self, base: LocalModel, adapter: Path) -> LocalModel:
        async with self._load_turn:
            if adapter not in base.adapted:
                base.adapted[adapter] = await on_own_thread(partial(base.with_adapter, adapter))
        return base.adapted[adapter]

    def _make_room(self) -> None:
        """Let go of the models used longest ago, but of none that is answering."""
        idle = [name for name in self._resident if not self._users[name]]
        surplus = len(self._resident) + 1 - self._settings.resident_models
        for name in idle[: max(0, surplus)]:
            self._resident.pop(name).close()

    def _list_models(self) -> list[ModelInfo]:
        rows: dict[str, ModelInfo] = {}
        for name, source, path in self._places.listed():
            try:
                rows.setdefault(name, self._row(name, source, open_model_folder(path)))
            except ModelNotFound:
                continue
        return list(rows.values())

    def _describe(self, name: str) -> ModelInfo:
        if resident := self._resident.get(name):  # Its folder may be gone; it answers from memory.
            return self._row(name, self._places.source_of(resident.folder), resident.folder)
        source, path = self._places.locate(name)
        return self._row(name, source, open_model_folder(path) if path else None)

    def _estimate(self, name: str, options: LoadOptions) -> MemoryEstimate:
        source, path = self._places.locate(name)
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

    def _fetch(self, name: str) -> ModelFolder:
        _, path = self._places.locate(name)
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
