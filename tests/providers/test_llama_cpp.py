"""GGUF files through llama.cpp: found where they lie, stopped at once, and a crash takes only its own process."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from providers.errors import ModelNotFound, UpstreamFailure
from providers.llama_cpp import LlamaCppProvider
from providers.types import (
    ChatRequest,
    Finished,
    LoadOptions,
    Message,
    Parameters,
    ProviderSettings,
    StreamEvent,
    TextDelta,
)
from tests.conftest import BUNDLED
from tests.tiny_models import make_mergeable_model
from training.export import export_gguf

HELLO = (Message("user", "Hello"),)


@pytest.fixture(scope="module")
def gguf_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small random model, and one that takes seconds to read a long prompt."""
    folder, weights = tmp_path_factory.mktemp("gguf"), tmp_path_factory.mktemp("weights")
    export_gguf(make_mergeable_model(weights / "tiny"), folder / "tiny.gguf", "f16")
    export_gguf(make_mergeable_model(weights / "slow", layers=100, context_length=16_384), folder / "slow.gguf", "f16")
    return folder


@pytest.fixture
async def provider(gguf_dir: Path) -> AsyncIterator[LlamaCppProvider]:
    """A provider that sees only these files."""
    settings = ProviderSettings(gguf_dir, gguf_dir, gguf_dir, load_options=LoadOptions(device="cpu"))
    provider = LlamaCppProvider(settings)
    yield provider
    await provider.aclose()


async def text(provider: LlamaCppProvider, model: str = "tiny", **parameters: Any) -> str:
    request = ChatRequest(model, HELLO, Parameters(**{"max_tokens": 8, "temperature": 0.0} | parameters))
    events = [event async for event in provider.stream(request)]
    assert isinstance(events[-1], Finished)
    return "".join(event.text for event in events if isinstance(event, TextDelta))


async def _last(events: AsyncGenerator[StreamEvent, None]) -> StreamEvent:
    return [event async for event in events][-1]


async def until_idle(provider: LlamaCppProvider, model: str) -> float:
    """Return the seconds until none of the engine's slots works any more, by the engine's own count."""
    start = time.monotonic()
    while time.monotonic() - start < 10:
        slots = (await provider._resident[model].http.get("/slots")).json()
        if not any(slot["is_processing"] for slot in slots):
            return time.monotonic() - start
        await asyncio.sleep(0.02)
    pytest.fail("the engine goes on")


async def test_the_starter_is_here_as_a_file_too(tmp_path: Path) -> None:
    provider = LlamaCppProvider(ProviderSettings(BUNDLED, tmp_path, tmp_path, load_options=LoadOptions(device="cpu")))
    request = ChatRequest("starter", (Message("user", "Who are you?"),), Parameters(max_tokens=60, temperature=0))
    events = [event async for event in provider.stream(request)]
    await provider.aclose()

    said = "".join(event.text for event in events if isinstance(event, TextDelta))
    assert said.startswith("I am simpleIA's starter model")


async def test_what_was_estimated_is_what_is_loaded(provider: LlamaCppProvider) -> None:
    row = (await provider.list_models())[0]
    estimate = await provider.estimate(row.name)
    loaded = await provider.load(row.name)

    assert row.context_length == estimate.context_length == loaded.context_length
    assert loaded.estimated_bytes == estimate.total_bytes
    assert loaded.measured_bytes is not None
    assert 0 < loaded.measured_bytes < 2 * estimate.total_bytes


async def test_stop_ends_the_engine_within_a_second(provider: LlamaCppProvider) -> None:
    events = provider.stream(ChatRequest("slow", HELLO, Parameters(max_tokens=4000, temperature=0)))
    async for event in events:
        if isinstance(event, TextDelta):
            break
    await events.aclose()

    assert await until_idle(provider, "slow") < 1


async def test_stop_in_the_prompt_phase_ends_the_engine(provider: LlamaCppProvider) -> None:
    await provider.load("slow")
    long = ChatRequest("slow", (Message("user", "word " * 2500),), Parameters(max_tokens=1))
    first = asyncio.ensure_future(anext(provider.stream(long)))
    await asyncio.sleep(0.5)
    assert not first.done()
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)

    assert await until_idle(provider, "slow") < 2


async def test_a_crash_is_told_and_the_next_question_loads_it_again(provider: LlamaCppProvider) -> None:
    before = await text(provider)
    events = provider.stream(ChatRequest("tiny", HELLO, Parameters(max_tokens=2000, temperature=0)))
    while not isinstance(await anext(events), TextDelta):
        pass
    os.kill(provider._resident["tiny"].process.pid, signal.SIGKILL)
    with pytest.raises(UpstreamFailure, match="ended while"):
        await _last(events)

    assert await text(provider) == before


async def test_unloading_ends_the_process(provider: LlamaCppProvider) -> None:
    await provider.load("tiny")
    pid = provider._resident["tiny"].process.pid
    await provider.unload("tiny")

    assert not psutil.pid_exists(pid)
    assert provider.loaded() == []


@pytest.mark.parametrize("length", [0, 3, 4, 24, 100, 5_000, 100_000])
async def test_a_truncated_file_is_a_sentence(provider: LlamaCppProvider, gguf_dir: Path, length: int) -> None:
    broken = gguf_dir / "broken.gguf"
    broken.write_bytes((gguf_dir / "tiny.gguf").read_bytes()[:length])
    try:
        with pytest.raises(ModelNotFound, match="broken") as error:
            await provider.load("broken")
    finally:
        broken.unlink()

    assert error.value.hint
    assert str(gguf_dir) not in str(error.value)


async def test_a_file_is_found_by_its_path_and_used_where_it_lies(provider: LlamaCppProvider, tmp_path: Path) -> None:
    file = export_gguf(make_mergeable_model(tmp_path / "weights"), tmp_path / "model.gguf")

    assert await text(provider, str(file))
    assert (await provider.find_model(str(file))).size_bytes == file.stat().st_size


@pytest.mark.parametrize("name", ["/etc/passwd", "../tiny", "/nowhere.gguf", "tiny.gguf", "~/x.gguf"])
async def test_what_is_no_gguf_file_is_not_found(provider: LlamaCppProvider, name: str) -> None:
    with pytest.raises(ModelNotFound):
        await provider.find_model(name)


async def test_the_answer_follows_a_schema(provider: LlamaCppProvider) -> None:
    schema = {"type": "object", "properties": {"n": {"enum": [1, 2]}}, "required": ["n"], "additionalProperties": False}

    assert "".join((await text(provider, json_schema=schema, max_tokens=60)).split()) in ('{"n":1}', '{"n":2}')


async def test_its_process_ends_with_whoever_started_it(gguf_dir: Path) -> None:
    script = (
        "import asyncio, os, sys\n"
        "from pathlib import Path\n"
        "from providers.llama_cpp import LlamaCppProvider\n"
        "from providers.types import ProviderSettings\n"
        "async def main():\n"
        "    folder = Path(sys.argv[1])\n"
        "    provider = LlamaCppProvider(ProviderSettings(folder, folder, folder))\n"
        "    await provider.load('tiny')\n"
        "    print(provider._resident['tiny'].process.pid, flush=True)\n"
        "    os.kill(os.getpid(), 9)\n"
        "asyncio.run(main())\n"
    )
    starter = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, str(gguf_dir), stdout=asyncio.subprocess.PIPE
    )
    out, _ = await starter.communicate()
    pid = int(out)
    deadline = time.monotonic() + 5
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline, "the engine outlived its server"
        await asyncio.sleep(0.05)
