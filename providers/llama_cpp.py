"""GGUF files through llama.cpp's own server, one process for each model in memory, spoken to over loopback.

The protocol is that of llama.cpp's server (tools/server/README.md of its repository): OpenAI's chat completions, and
`/apply-template`, `/tokenize` and `/props`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractContextManager, aclosing
from dataclasses import replace
from pathlib import Path

from providers.base import LocalProvider, Provider, Users
from providers.errors import Cancelled, ModelNotFound, Rejected, UpstreamFailure
from providers.gguf_files import SUFFIX, GgufFile, gguf_files, is_gguf
from providers.llama_cpp_engine import ALIAS, Engine, context_of, device_of, precision_of, start_engine
from providers.local_folders import lies_in, not_ours
from providers.machine import memory_of
from providers.memory import GGUF_RUNTIME_BYTES, gguf_kv_bytes
from providers.openai import OTHERS, OWN
from providers.sentences import say
from providers.types import (
    Capabilities,
    ChatRequest,
    Finished,
    LoadedModel,
    LoadOptions,
    MemoryEstimate,
    Message,
    ModelInfo,
    Notice,
    ProviderInfo,
    ProviderSettings,
    StreamEvent,
)
from providers.weight_headers import gguf_header

EMBEDDING = Capabilities(parameters=frozenset(), embeddings=True)
CAPABILITIES = Capabilities(parameters=OWN | frozenset(OTHERS), reasoning=True, exact_token_count=True)


class LlamaCppProvider(LocalProvider):
    """Answers from GGUF files where they lie: in the models' folders, and in the stores of Ollama and LM Studio."""

    info = ProviderInfo(
        key="llama_cpp",
        label="llama.cpp",
        local=True,
        docs_url="https://github.com/ggml-org/llama.cpp",
        needs="a GGUF file",
        offers=frozenset({"reasoning", "embeddings"}),
    )

    def __init__(self, settings: ProviderSettings, others: Callable[[str], Provider] | None = None) -> None:
        self._settings = settings
        self._resident: dict[str, Engine] = {}
        self._loading: dict[str, asyncio.Task[Engine]] = {}
        self._options: dict[str, LoadOptions] = {}
        self._users = Users()
        self._embedding: set[str] = set()
        self._load_turn = asyncio.Lock()

    async def list_models(self) -> list[ModelInfo]:
        files = await asyncio.to_thread(self._files)
        return await asyncio.to_thread(lambda: [self._row(file) for file in files.values()])

    async def find_model(self, model: str) -> ModelInfo:
        return self._row(await asyncio.to_thread(self._file, model))

    def capabilities(self, model: str) -> Capabilities:
        return EMBEDDING if model in self._embedding else CAPABILITIES

    async def count_tokens(self, messages: Sequence[Message], model: str) -> int:
        return await (await self._ready(model)).count_tokens(messages)

    async def stream(self, request: ChatRequest) -> AsyncGenerator[StreamEvent, None]:
        if (await self.find_model(request.model)).capabilities.embeddings:
            raise Rejected(
                say("{model} is made for embeddings and writes no answers.", model=request.model),
                provider=self.info.key,
                hint=say("Choose another model for a conversation."),
            )
        with self.hold(request.model):
            engine = await self._ready(request.model)
            limit = engine.info.context_length
            try:
                async with aclosing(engine.api.stream(replace(request, model=ALIAS, attempts=1))) as events:
                    async for event in events:
                        if isinstance(event, Finished) and event.reason == "length":
                            used = event.usage.prompt_tokens + event.usage.completion_tokens
                            if used >= limit:
                                yield Notice(
                                    say("The answer ended at the model's limit of {limit} tokens.", limit=limit)
                                )
                        yield event
            except UpstreamFailure as error:
                if await engine.has_ended():
                    raise self._crashed(request.model) from error
                raise

    async def embed(self, texts: Sequence[str], model: str) -> list[list[float]]:
        if not (await self.find_model(model)).capabilities.embeddings:
            return await super().embed(texts, model)
        with self.hold(model):
            return await (await self._ready(model)).api.embed(texts, ALIAS)

    async def load(self, model: str, options: LoadOptions | None = None) -> LoadedModel:
        return (await self._ready(model, options)).info

    async def unload(self, model: str) -> None:
        if engine := self._resident.pop(model, None):
            await engine.aclose()

    def loaded(self) -> list[LoadedModel]:
        return [engine.info for engine in self._resident.values() if engine.lives]

    async def estimate(self, model: str, options: LoadOptions | None = None) -> MemoryEstimate:
        return await asyncio.to_thread(self._estimate, model, options or self._options_of(model))

    async def delete(self, model: str) -> None:
        file = await asyncio.to_thread(self._file, model)
        if not lies_in(file.path, self._settings.models_dir):
            raise not_ours(model)
        await self.unload(model)
        for part in file.parts():
            part.unlink(missing_ok=True)

    def is_busy(self, model: str) -> bool:
        return self._users[model] > 0

    def hold(self, model: str) -> AbstractContextManager[None]:
        return self._users.hold(model)

    def cancel_load(self, model: str) -> None:
        if task := self._loading.get(model):
            task.cancel()

    async def aclose(self) -> None:
        for task in self._loading.values():
            task.cancel()
        await asyncio.gather(*self._loading.values(), return_exceptions=True)
        while self._resident:
            await self._resident.popitem()[1].aclose()

    async def _ready(self, name: str, options: LoadOptions | None = None) -> Engine:
        """Return the model in memory, loading it once however many ask; a caller that leaves does not stop the load."""
        if name in self._resident:
            engine = self._resident.pop(name)
            if engine.lives and options in (None, self._options[name]):
                self._resident[name] = engine
                return engine
            if engine.lives and self.is_busy(name):
                self._resident[name] = engine
                raise Rejected(
                    say("{model} is answering, and cannot be loaded in another way meanwhile.", model=name),
                    provider=self.info.key,
                    hint=say("Wait for the answer, or stop it."),
                )
            await engine.aclose()
        if name not in self._loading:
            self._loading[name] = asyncio.create_task(self._load(name, options or self._options_of(name)))
            self._loading[name].add_done_callback(lambda _: self._loading.pop(name))
        task = self._loading[name]
        await asyncio.wait({task})
        if task.cancelled():
            raise Cancelled(say("The loading was cancelled."), provider=self.info.key)
        return task.result()

    async def _load(self, name: str, options: LoadOptions) -> Engine:
        file = await asyncio.to_thread(self._file, name)
        async with self._load_turn:
            await self._make_room()
            estimated = await asyncio.to_thread(self._estimate, name, options)
            engine = await start_engine(file, options, self._settings)
            engine.info = replace(engine.info, estimated_bytes=estimated.total_bytes)
            self._resident[name], self._options[name] = engine, options
        return engine

    def _options_of(self, name: str) -> LoadOptions:
        """Return how a model was loaded last, so that one that had to leave comes back as it was."""
        return self._options.get(name, self._settings.load_options)

    def _estimate(self, name: str, options: LoadOptions) -> MemoryEstimate:
        file = self._file(name)
        length = context_of(file, options)
        device = device_of(options)
        try:
            cache = gguf_kv_bytes(gguf_header(file.path), length)
        except (OSError, ValueError) as error:
            raise ModelNotFound(
                say("The file {model} cannot be loaded: {reason}.", model=name, reason=str(error)[:200].rstrip(".")),
                provider=self.info.key,
                hint=say("Download it again."),
            ) from error
        estimate = MemoryEstimate(
            device=device,
            precision=precision_of(file),
            quantization="none",
            context_length=length,
            weights_bytes=file.size_bytes,
            kv_cache_bytes=cache,
            overhead_bytes=GGUF_RUNTIME_BYTES,
            available_bytes=memory_of(device).available_bytes,
            reason=say("A GGUF file is used in the precision that it has."),
        )
        if estimate.fit != "does_not_fit":
            return estimate
        return replace(estimate, suggestion=say("Choose a shorter context, or a file with fewer bits."))

    async def _make_room(self) -> None:
        """Let go of the models used longest ago, but of none that is answering."""
        idle = [name for name in self._resident if not self._users[name]]
        surplus = len(self._resident) + 1 - self._settings.resident_models
        for name in idle[: max(0, surplus)]:
            await self.unload(name)

    def _crashed(self, model: str) -> UpstreamFailure:
        return UpstreamFailure(
            say("llama.cpp ended while {model} answered.", model=model),
            provider=self.info.key,
            hint=say("Ask again: it is loaded anew. If it happens again, the file may be broken."),
        )

    def _files(self) -> dict[str, GgufFile]:
        from huggingface_hub.constants import HF_HUB_CACHE

        settings = self._settings
        hub_cache = Path(HF_HUB_CACHE)  # Where HF_HOME and HF_HUB_CACHE say.
        return gguf_files(settings.bundled_dir, settings.models_dir, settings.gguf_dirs, Path.home(), hub_cache)

    def _file(self, name: str) -> GgufFile:
        if file := self._files().get(name):
            return file
        if name.endswith(SUFFIX) and Path(name).expanduser().is_absolute() and is_gguf(Path(name).expanduser()):
            return GgufFile(name, Path(name).expanduser(), "folder")
        raise ModelNotFound(
            say("There is no GGUF file {name}.", name=name[:100] or "''"),
            provider=self.info.key,
            hint=say("Choose one of the list, or give its whole path."),
        )

    def _row(self, file: GgufFile) -> ModelInfo:
        engine = self._resident.get(file.name)
        if file.metadata.embeds:
            self._embedding.add(file.name)
        return ModelInfo(
            name=file.name,
            provider=self.info.key,
            local=True,
            source=file.source,
            capabilities=self.capabilities(file.name),
            context_length=engine.info.context_length if engine else context_of(file, self._options_of(file.name)),
            size_bytes=file.size_bytes,
            loaded=engine is not None and engine.lives,
        )
