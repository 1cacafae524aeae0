"""How much of the official client's throughput, and of llama.cpp's own server, is left at our providers.

Run as `python -m benchmarks.providers`. Both ways of each pair take turns in one run.
"""

from __future__ import annotations

import asyncio
import itertools
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import httpx2
import psutil
from openai import AsyncOpenAI

from benchmarks import report
from benchmarks.random_model import SMOLLM2_135M
from benchmarks.report import Spread
from benchmarks.rivals import random_llama
from benchmarks.scripted_server import CHUNKS
from core.settings import ROOT, Settings
from providers.llama_cpp import LlamaCppProvider
from providers.openai import OpenAIProvider
from providers.types import ChatRequest, Endpoint, LoadOptions, Message, Parameters, ProviderSettings, TextDelta

CHATS = 200
PROMPT = "Tell me a long story about a lighthouse. " * 12
NEW_TOKENS = 96
GOALS = {
    "cloud_throughput_ratio": ">= 0.9",
    "cloud_errors": "0",
    "cloud_memory_ratio": "flat",
    "llama_cpp_tps_ratio": ">= 0.97",
    "llama_cpp_first_token_ratio": "<= 1.05",
}


@dataclass(frozen=True)
class Answer:
    """One answer of llama.cpp: seconds to its first piece, and pieces a second from then on."""

    first_token_seconds: float
    tokens_per_second: float


async def through_us(provider: OpenAIProvider) -> int:
    """Let one chat answer through our provider; return the pieces that arrived."""
    pieces = 0
    async with aclosing(provider.stream(ChatRequest("scripted", (Message("user", "Hi"),), Parameters()))) as events:
        async for event in events:
            pieces += isinstance(event, TextDelta)
    return pieces


async def through_sdk(client: AsyncOpenAI) -> int:
    """Let one chat answer through the bare client; return the pieces that arrived."""
    pieces = 0
    chunks = await client.chat.completions.create(
        model="scripted",
        messages=[{"role": "user", "content": "Hi"}],
        stream=True,
        stream_options={"include_usage": True},
    )
    async for chunk in chunks:
        pieces += bool(chunk.choices and chunk.choices[0].delta.content)
    return pieces


async def all_chats(one: Callable[[], Coroutine[Any, Any, int]]) -> tuple[float, int]:
    """Return the pieces a second of all chats at once, and how many chats failed."""
    start = time.perf_counter()
    counts = await asyncio.gather(*(one() for _ in range(CHATS)), return_exceptions=True)
    seconds = time.perf_counter() - start
    whole = [count for count in counts if count == CHUNKS]
    return sum(whole) / seconds, CHATS - len(whole)


async def cloud(rounds: int) -> dict[str, Any]:
    """Measure many chats at once against a scripted server."""
    with _scripted_server() as address:
        provider = OpenAIProvider(_settings(Endpoint("scripted", "openai", address)), _alone)
        http = httpx2.AsyncClient(limits=httpx2.Limits(max_connections=1000, max_keepalive_connections=100))
        client = AsyncOpenAI(api_key="none", base_url=address, max_retries=0, http_client=http)
        ways = {"ours": lambda: through_us(provider), "sdk": lambda: through_sdk(client)}
        speeds: dict[str, list[float]] = {way: [] for way in ways}
        memory, errors = [], 0
        for number in range(-1, rounds):
            # Whoever comes after itself is slower than after the other, so each does both in every round.
            halves: dict[str, list[float]] = {way: [] for way in ways}
            for way in (*ways, *reversed(ways)):
                speed, failed = await all_chats(ways[way])
                halves[way].append(speed)
                errors += failed if way == "ours" else 0
            if number >= 0:
                for way, values in halves.items():
                    speeds[way].append(fmean(values))
                memory.append(psutil.Process().memory_info().rss / 1e6)
                report.progress(f"round {number + 1} of {rounds}: " + _last(speeds) + f", {memory[-1]:.0f} MB")
        await provider.aclose()
        await client.close()
    ratio = Spread.of(ours / sdk for ours, sdk in zip(speeds["ours"], speeds["sdk"], strict=True))
    return {
        "cloud_throughput_ratio": ratio.median,
        "cloud_errors": errors,
        "cloud_memory_ratio": round(memory[-1] / memory[0], 3),
        "cloud_throughput_spread": ratio,
        "cloud_pieces_per_second": {way: Spread.of(values) for way, values in speeds.items()},
        "cloud_memory_mb": [round(value) for value in memory],
        "chats": CHATS,
        "pieces": CHUNKS,
    }


async def llama_cpp(rounds: int) -> dict[str, Any]:
    """Measure one chat at a time on one GGUF: through our provider, and by plain HTTP from the same server."""
    with tempfile.TemporaryDirectory() as folder:
        file = (await asyncio.to_thread(random_llama, Path(folder), SMOLLM2_135M))[1]
        provider = LlamaCppProvider(replace(_settings(), models_dir=Path(folder)))
        await provider.load(file.stem, LoadOptions(device="cpu"))
        engine = provider._resident[file.stem]
        runs: dict[str, list[Answer]] = {"ours": [], "server": []}
        ways: dict[str, Callable[[str], AsyncIterator[bool]]] = {
            "ours": lambda text: _ours(provider, file.stem, text),
            "server": lambda text: _plain(engine.http, text),
        }
        try:
            for number, order in zip(range(-1, rounds), itertools.cycle(itertools.permutations(ways)), strict=False):
                for way in order:
                    answer = await _timed(ways[way](f"{number} {way} {PROMPT}"))
                    if number >= 0:
                        runs[way].append(answer)
                if number >= 0:
                    report.progress(f"round {number + 1} of {rounds}: {_answers(runs)}")
        finally:
            await provider.aclose()
    pairs = list(zip(runs["ours"], runs["server"], strict=True))
    speed = Spread.of(ours.tokens_per_second / server.tokens_per_second for ours, server in pairs)
    first = Spread.of(ours.first_token_seconds / server.first_token_seconds for ours, server in pairs)
    return {
        "llama_cpp_tps_ratio": speed.median,
        "llama_cpp_first_token_ratio": first.median,
        "llama_cpp_tps_spread": speed,
        "llama_cpp_first_token_spread": first,
        "llama_cpp_tokens_per_second": {
            way: Spread.of(run.tokens_per_second for run in values) for way, values in runs.items()
        },
        "llama_cpp_first_token_seconds": {
            way: Spread.of(run.first_token_seconds for run in values) for way, values in runs.items()
        },
    }


async def _ours(provider: LlamaCppProvider, model: str, text: str) -> AsyncIterator[bool]:
    request = ChatRequest(model, (Message("user", text),), Parameters(temperature=0.0, max_tokens=NEW_TOKENS))
    async with aclosing(provider.stream(request)) as events:
        async for event in events:
            if isinstance(event, TextDelta):
                yield True


async def _plain(http: httpx2.AsyncClient, text: str) -> AsyncIterator[bool]:
    body = {
        "messages": [{"role": "user", "content": text}],
        "temperature": 0.0,
        "max_tokens": NEW_TOKENS,
        "stream": True,
    }
    async with http.stream("POST", "/v1/chat/completions", json=body, timeout=120) as response:
        async for line in response.aiter_lines():
            if '"content":"' in line:
                yield True


async def _timed(pieces: AsyncIterator[bool]) -> Answer:
    start = time.perf_counter()
    arrivals = [time.perf_counter() async for _ in pieces]
    return Answer(arrivals[0] - start, (len(arrivals) - 1) / (arrivals[-1] - arrivals[0]))


@contextmanager
def _scripted_server() -> Iterator[str]:
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.scripted_server"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    try:
        yield f"http://127.0.0.1:{process.stdout.readline().strip()}/v1"
    finally:
        process.kill()
        process.communicate()


def _settings(endpoint: Endpoint | None = None) -> ProviderSettings:
    return replace(Settings().for_providers(), endpoint=endpoint)


def _alone(name: str) -> Any:
    raise KeyError(name)


def _last(speeds: dict[str, list[float]]) -> str:
    return ", ".join(f"{way} {values[-1]:.0f} pieces/s" for way, values in speeds.items())


def _answers(runs: dict[str, list[Answer]]) -> str:
    parts = ((way, values[-1]) for way, values in runs.items())
    return ", ".join(f"{way} {run.tokens_per_second:.1f}/s {run.first_token_seconds:.3f} s" for way, run in parts)


def main() -> None:
    """Measure, and print what was found."""
    options = report.arguments(__doc__, rounds=5)
    machine, others = report.machine(), report.OtherPrograms()
    measured = asyncio.run(cloud(options.rounds)) | asyncio.run(llama_cpp(2 * options.rounds))
    result = {**measured, "rounds": options.rounds, "other_programs_percent": others.percent(), "machine": machine}
    spreads = {
        "cloud_throughput_ratio": "cloud_throughput_spread",
        "llama_cpp_tps_ratio": "llama_cpp_tps_spread",
        "llama_cpp_first_token_ratio": "llama_cpp_first_token_spread",
    }
    table = [("", f"median [min..max] of {options.rounds} rounds", "goal")]
    table += [(key, str(result[spreads.get(key, key)]), goal) for key, goal in GOALS.items()]
    report.finish("providers", result, table, options)


if __name__ == "__main__":
    main()
