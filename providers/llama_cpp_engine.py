"""llama.cpp's own server as a process of one model, from its start to its end.

A process of its own, because a broken or hostile file can crash llama.cpp, and because ending it gives all memory back.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import secrets
import sys
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import httpx2

from providers.base import Provider
from providers.errors import ModelNotFound, OutOfMemory, ProviderError
from providers.gguf_files import GgufFile
from providers.gguf_metadata import read_metadata
from providers.llama_cpp_api import LlamaCppApi
from providers.machine import gpus, process_bytes, usable_cores
from providers.sentences import say
from providers.types import Endpoint, LoadedModel, LoadOptions, Message, ProviderSettings, Timeouts

ROOT = Path(__file__).resolve().parent.parent
DEFAULT_CONTEXT = 8192
CPU_BATCH = 256  # llama.cpp looks for a Stop between batches of the prompt; a larger one is no faster on a processor.
LOAD_SECONDS = 600.0
# It is ours: while its process lives, it reads or waits in line.
PATIENT = Timeouts(first_piece=86_400.0, idle=86_400.0)
CRASH_SECONDS = 0.5
LAST_LINES = 200
LOGGED_ERROR = re.compile(r"[\d.]+ E \S+ +\S+ (.*)")
NO_MEMORY = re.compile(r"out of memory|(unable|failed) to allocate|bad_alloc|MemoryError", re.I)
OFFLOADED = re.compile(r"offloaded [1-9]\d*/\d+ layers")
ALIAS = "model"


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


async def start_engine(file: GgufFile, options: LoadOptions, settings: ProviderSettings) -> Engine:
    """Start a process for a file and wait until it serves. Raises ModelNotFound or OutOfMemory."""
    start, key = time.perf_counter(), secrets.token_urlsafe(24)
    said = await asyncio.to_thread(read_metadata, file.path)
    wanted = {
        "path": str(file.path),
        "key": key,
        "context_length": context_of(file, options),
        "embeds": said.embeds,
        "pooling": said.pooling,
        "parallel": settings.parallel_answers,
        "gpu_layers": 0 if options.device == "cpu" else -1 if options.gpu_layers is None else options.gpu_layers,
        "batch": CPU_BATCH if options.device == "cpu" else None,
        "threads": options.threads or usable_cores(),
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
    log = _Log()
    reading = asyncio.create_task(_read_log(process.stderr, log))
    process.stdin.write(json.dumps(wanted).encode() + b"\n")
    try:
        async with asyncio.timeout(LOAD_SECONDS):
            line = await process.stdout.readline()
        if not line:
            await process.wait()
            await reading
            raise _not_loaded(file, log.lines)
        address = json.loads(line)["address"]
        device = await asyncio.to_thread(device_of, options) if log.offloaded else "cpu"
        return await _engine(process, address, key, file, device, time.perf_counter() - start, settings)
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
    device: str,
    seconds: float,
    settings: ProviderSettings,
) -> Engine:
    endpoint = Endpoint("llama_cpp", "openai", f"{address}/v1", key, label="llama.cpp")
    http = httpx2.AsyncClient(base_url=address, headers={"Authorization": f"Bearer {key}"}, trust_env=False)
    properties = (await http.get("/props")).raise_for_status().json()
    return Engine(
        process=process,
        api=LlamaCppApi(replace(settings, endpoint=endpoint, timeouts=PATIENT), _no_others),
        http=http,
        info=LoadedModel(
            name=file.name,
            device=device,
            precision=precision_of(file),
            memory_bytes=file.size_bytes,
            context_length=properties["default_generation_settings"]["n_ctx"],
            load_seconds=seconds,
            measured_bytes=process_bytes(process.pid),
            loaded_at=time.time(),
        ),
    )


def context_of(file: GgufFile, options: LoadOptions) -> int:
    """Return the tokens of context that a file is loaded with: never more than it was trained with."""
    wanted = options.context_length or DEFAULT_CONTEXT
    return min(wanted, file.metadata.context_length or wanted)


def device_of(options: LoadOptions) -> str:
    """Return the device on which a file is computed with these options, by torch's name."""
    found = gpus() if options.device != "cpu" and options.gpu_layers != 0 else []
    return next((gpu.device for gpu in found if gpu.device == options.device), found[0].device if found else "cpu")


def precision_of(file: GgufFile) -> str:
    """Return the number format of a file, by its name."""
    return file.path.stem.rsplit("-", 1)[-1].lower()


class _Log:
    """The newest lines that llama.cpp wrote, and whether it said that layers are on a GPU."""

    def __init__(self) -> None:
        self.lines: deque[str] = deque(maxlen=LAST_LINES)
        self.offloaded = False

    def add(self, line: str) -> None:
        self.lines.append(line)
        self.offloaded = self.offloaded or bool(OFFLOADED.search(line))


async def _read_log(stream: asyncio.StreamReader, log: _Log) -> None:
    """Keep the newest lines: a pipe that nobody reads would stop the process."""
    while True:
        with contextlib.suppress(ValueError):  # Of a line that is too long, which is gone then.
            if not (line := await stream.readline()):
                return
            log.add(line.decode(errors="replace").rstrip())


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
