"""GGUF files through llama.cpp's own server, one process for each model in memory, spoken to over loopback.

A process of its own, because a broken or hostile file can crash llama.cpp, and because ending it gives all memory back.
The protocol is that of llama.cpp's server (tools/server/README.md of its repository): OpenAI's chat completions, and
`/apply-template`, `/tokenize` and `/props`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import secrets
import sys
import time
from collections import Counter, deque
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from pathlib import Path

import httpx2

from providers.base import LocalProvider, Provider
from providers.errors import Cancelled, ModelNotFound, OutOfMemory, ProviderError, Rejected, UpstreamFailure
from providers.gguf_files import SUFFIX, GgufFile, gguf_files, is_gguf
from providers.gguf_metadata import read_metadata
from providers.llama_cpp_api import LlamaCppApi
from providers.local_folders import not_ours
from providers.machine import gpus, memory_of, process_bytes
from providers.memory import GGUF_RUNTIME_BYTES, gguf_kv_bytes
from providers.openai import OTHERS, OWN
from providers.sentences import say
from providers.types import (
    Capabilities,
    ChatRequest,
    Endpoint,
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

ROOT = Path(__file__).resolve().parent.parent
DEFAULT_CONTEXT = 8192
CPU_BATCH = 256  # llama.cpp looks for a Stop between batches of the prompt; a larger one is no faster on a processor.
LOAD_SECONDS = 600.0
CRASH_SECONDS = 0.5
LAST_LINES = 200
LOGGED_ERROR = re.compile(r"[\d.]+ E \S+ +\S+ (.*)")
NO_MEMORY = re.compile(r"out of memory|(unable|failed) to allocate|bad_alloc|MemoryError", re.I)
ALIAS = "model"
EMBEDDING = Capabilities(parameters=frozenset(), embeddings=True)
CAPABILITIES = Capabilities(parameters=OWN | frozenset(OTHERS), reasoning=True, exact_token_count=True)


@dataclass
class Engine:
    """A model in memory: its process, and the client that asks it."""

    process: asyncio.subprocess.Process
    api: LlamaCppApi
    http: httpx2.AsyncClient
    info: LoadedModel

    @property
    def lives(self) -> bool:
        """Whether its process still runs."""
        return self.process.returncode is None

    async def has_ended(self) -> bool:
        """Say whether its process has ended, which is known a moment after its connections broke."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.process.wait(), CRASH_SECONDS)
        return not self.lives

    async def count_tokens(self, messages: Sequence[Message]) -> int:
        """Count the prompt's tokens, chat template included."""
        return await self.api.count_tokens(messages, ALIAS)

    async def aclose(self) -> None:
        """End the process, which gives its memory back."""
        await self.api.aclose()
        await self.http.aclose()
        if self.lives:
            self.process.kill()
        await self.process.wait()


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
        self._users: Counter[str] = Counter()
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
        with self._in_use(request.model):
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
        with self._in_use(model):
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
        if self._settings.models_dir not in file.path.parents:
            raise not_ours(model)
        await self.unload(model)
        for part in file.parts():
            part.unlink(missing_ok=True)

    def is_busy(self, model: str) -> bool:
        return self._users[model] > 0

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
            engine = await start_engine(file, options, self._settings)
            self._resident[name], self._options[name] = engine, options
        return engine

    def _options_of(self, name: str) -> LoadOptions:
        """Return how a model was loaded last, so that one that had to leave comes back as it was."""
        return self._options.get(name, self._settings.load_options)

    def _estimate(self, name: str, options: LoadOptions) -> MemoryEstimate:
        file = self._file(name)
        length = options.context_length or DEFAULT_CONTEXT
        gpu = options.device != "cpu" and options.gpu_layers != 0 and bool(gpus())
        device = ("cuda:0" if options.device in ("auto", "cuda") else options.device) if gpu else "cpu"
        try:
            cache = gguf_kv_bytes(gguf_header(file.path), length)
        except (OSError, ValueError) as error:
            raise ModelNotFound(
                say("The file {model} cannot be loaded: {reason}.", model=name, reason=str(error)[:200].rstrip(".")),
                provider=self.info.key,
                hint=say("Download it again."),
            ) from error
        return MemoryEstimate(
            device=device,
            precision=precision_of(file),
            quantization="none",
            context_length=length,
            weights_bytes=file.size_bytes,
            kv_cache_bytes=cache,
            overhead_bytes=GGUF_RUNTIME_BYTES,
            available_bytes=memory_of(device).available_bytes,
            reason=say("A GGUF file is used in the precision that it has."),
            suggestion=say("Choose a shorter context, or a file with fewer bits."),
        )

    async def _make_room(self) -> None:
        """Let go of the models used longest ago, but of none that is answering."""
        idle = [name for name in self._resident if not self._users[name]]
        surplus = len(self._resident) + 1 - self._settings.resident_models
        for name in idle[: max(0, surplus)]:
            await self.unload(name)

    @contextlib.contextmanager
    def _in_use(self, name: str) -> Iterator[None]:
        self._users[name] += 1
        try:
            yield
        finally:
            self._users[name] -= 1

    def _crashed(self, model: str) -> UpstreamFailure:
        return UpstreamFailure(
            say("llama.cpp ended while {model} answered.", model=model),
            provider=self.info.key,
            hint=say("Ask again: it is loaded anew. If it happens again, the file may be broken."),
        )

    def _files(self) -> dict[str, GgufFile]:
        settings = self._settings
        return gguf_files(settings.bundled_dir, settings.models_dir, settings.gguf_dirs, Path.home())

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
            context_length=engine.info.context_length if engine else None,
            size_bytes=file.size_bytes,
            loaded=engine is not None and engine.lives,
        )


async def start_engine(file: GgufFile, options: LoadOptions, settings: ProviderSettings) -> Engine:
    """Start a process for a file and wait until it serves. Raises ModelNotFound or OutOfMemory."""
    start, key = time.perf_counter(), secrets.token_urlsafe(24)
    said = await asyncio.to_thread(read_metadata, file.path)
    context = options.context_length or DEFAULT_CONTEXT
    if said.embeds and said.context_length:
        context = min(context, said.context_length)  # Beyond what it was trained with, it has no places for tokens.
    wanted = {
        "path": str(file.path),
        "key": key,
        "context_length": context,
        "embeds": said.embeds,
        "pooling": said.pooling,
        "parallel": settings.parallel_answers,
        "gpu_layers": 0 if options.device == "cpu" else -1 if options.gpu_layers is None else options.gpu_layers,
        "batch": CPU_BATCH if options.device == "cpu" else None,
        "threads": options.threads or len(os.sched_getaffinity(0)),
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "providers.llama_cpp_server",
        cwd=ROOT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdin
    assert process.stdout
    assert process.stderr
    log: deque[str] = deque(maxlen=LAST_LINES)
    reading = asyncio.create_task(_read_log(process.stderr, log))
    process.stdin.write(json.dumps(wanted).encode() + b"\n")
    try:
        async with asyncio.timeout(LOAD_SECONDS):
            line = await process.stdout.readline()
        if not line:
            await process.wait()
            await reading
            raise _not_loaded(file, log)
        address = json.loads(line)["address"]
        return await _engine(process, address, key, file, time.perf_counter() - start, settings)
    except BaseException:
        if process.returncode is None:
            process.kill()
        await process.wait()
        raise


async def _engine(
    process: asyncio.subprocess.Process,
    address: str,
    key: str,
    file: GgufFile,
    seconds: float,
    settings: ProviderSettings,
) -> Engine:
    endpoint = Endpoint("llama_cpp", "openai", f"{address}/v1", key, label="llama.cpp")
    http = httpx2.AsyncClient(base_url=address, headers={"Authorization": f"Bearer {key}"}, trust_env=False)
    properties = (await http.get("/props")).raise_for_status().json()
    return Engine(
        process=process,
        api=LlamaCppApi(replace(settings, endpoint=endpoint), _no_others),
        http=http,
        info=LoadedModel(
            name=file.name,
            device="cpu",
            precision=precision_of(file),
            memory_bytes=file.size_bytes,
            context_length=properties["default_generation_settings"]["n_ctx"],
            load_seconds=seconds,
            measured_bytes=process_bytes(process.pid),
            loaded_at=time.time(),
        ),
    )


def precision_of(file: GgufFile) -> str:
    """Return the number format of a file, by its name."""
    return file.path.stem.rsplit("-", 1)[-1].lower()


async def _read_log(stream: asyncio.StreamReader, log: deque[str]) -> None:
    """Keep the newest lines: a pipe that nobody reads would stop the process."""
    with contextlib.suppress(ValueError):
        while line := await stream.readline():
            log.append(line.decode(errors="replace").rstrip())


def _no_others(name: str) -> Provider:
    raise KeyError(name)


def _not_loaded(file: GgufFile, log: Sequence[str]) -> ProviderError:
    errors = [found[1].replace(str(file.path), file.path.name) for line in log if (found := LOGGED_ERROR.match(line))]
    if any(NO_MEMORY.search(line) for line in log):
        return OutOfMemory(
            say("There is not enough memory for {model}.", model=file.name),
            provider="llama_cpp",
            hint=say("Choose a smaller model, or close other programs."),
        )
    reason = errors[0] if errors else "llama.cpp ended without a reason"
    return ModelNotFound(
        say("The file {model} cannot be loaded: {reason}.", model=file.name, reason=reason[:200].rstrip(".")),
        provider="llama_cpp",
        hint=say("Check that it is whole and of an architecture that llama.cpp knows; if not, download it again."),
    )
