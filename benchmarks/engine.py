"""The engine with one person and with eight: against bare `generate`, itself without what it adds, and other engines.

Run as `python -m benchmarks.engine`, or with `--part` and one of one, eight, turns, stop, serve, llama, pages. All of
it runs on the same cores, in turns; random weights of SmolLM2-135M's dimensions, with `--large` of Qwen3-0.6B's. With
`--clock cpu`, seconds are those that this process computed: what other programs take on a busy machine is left out (not
for other engines and pages).
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.generation.streamers import BaseStreamer
from transformers.utils.logging import disable_progress_bar

from benchmarks import report
from benchmarks.four_pages import PEOPLE as FOUR
from benchmarks.four_pages import first_texts
from benchmarks.page import chromium
from benchmarks.random_model import QWEN3_06B, SMOLLM2_135M, question, random_model, tokens_in
from benchmarks.report import Spread
from benchmarks.rivals import llama_client, random_llama, serve_client
from benchmarks.servers import Server, ask, simpleia
from core.settings import Settings
from providers.base import Provider
from providers.batching import LINGER_SECONDS
from providers.loading import PRECISION_NAMES, SHORT_NAMES
from providers.openai import OpenAIProvider
from providers.own_thread import on_own_thread
from providers.transformers_local import TransformersProvider
from providers.types import PRECISIONS, ChatRequest, Finished, LoadedModel, LoadOptions, Message, Parameters, TextDelta
from tests.tiny_models import make_adapter

PEOPLE = 8
WORDS = 110
STORY = "Tell me a long story about a lighthouse. " * 6
TOKENS = 48
HISTORY_WORDS, NEW_WORDS = 1880, 38
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
GOALS = {
    "single_tps_ratio": ">= 0.95",
    "single_first_token_ratio": "<= 1.10",
    "serve_first_token_ratio": "<= 1.0",
    "eight_tps_ratio": ">= 4",
    "eight_vs_llama_cpp_ratio": ">= 1.4",
    "turn20_first_token_ratio": "<= 0.1",
    "fairness": "<= 1.5",
    "reuse_identical": "1",
    "stop_seconds": "<= 1",
    "four_pages_first_text_seconds": "<= 3",
}


@dataclass(frozen=True)
class Told:
    """One answer as its reader sees it; times in seconds from when it was asked for."""

    first: float
    end: float
    text: str

    @property
    def speed(self) -> float:
        """Return tokens a second from the first one on."""
        return (tokens_in(self.text) - 1) / (self.end - self.first)


class Bench:
    """One model in memory at the provider, and again for bare `generate`."""

    serve: OpenAIProvider | None = None
    llama: OpenAIProvider | None = None
    server: Server | None = None
    shared = ""  # The model of llama.cpp's file, at the provider.

    def __init__(
        self,
        provider: TransformersProvider,
        name: str,
        dimensions: dict[str, Any],
        loaded: LoadedModel,
        clock: Callable[[], float],
    ) -> None:
        self.dimensions = dimensions
        self.provider, self.name, self.clock = provider, name, clock
        self.precision, self.device = SHORT_NAMES[loaded.precision], loaded.device
        self.exits = AsyncExitStack()
        self._tokenizer: Any = AutoTokenizer.from_pretrained(name)
        self._bare: Any = AutoModelForCausalLM.from_pretrained(name, dtype=getattr(torch, loaded.precision)).eval()
        self._bare.to(loaded.device)

    @cached_property
    def adapter(self) -> Path:
        """An adapter that changes what the model says."""
        folder = Path(self.exits.enter_context(TemporaryDirectory()))
        return make_adapter(folder, Path(self.name), self.name) / "adapter-1"

    async def ask(
        self, messages: tuple[Message, ...] | str, tokens: int = TOKENS, adapter: Path | None = None, **values: Any
    ) -> Told:
        """Ask through the provider, greedily."""
        if isinstance(messages, str):
            messages = (Message("user", messages),)
        parameters = replace(Parameters(temperature=0.0, max_tokens=tokens), **values)
        start, first, pieces = self.clock(), 0.0, []
        async with aclosing(self.provider.stream(ChatRequest(self.name, messages, parameters, adapter))) as events:
            async for event in events:
                if isinstance(event, TextDelta):
                    first = first or self.clock()
                    pieces.append(event.text)
                elif isinstance(event, Finished):
                    end = self.clock()
        return Told(first - start, end - start, "".join(pieces))

    async def bare(self, messages: tuple[Message, ...] | str, tokens: int = TOKENS) -> Told:
        """Ask transformers itself, when the engine's thread has ended: while two live, both compute more slowly."""
        await asyncio.sleep(LINGER_SECONDS + 0.2)
        return await on_own_thread(partial(self._generate, messages, tokens))

    def _generate(self, messages: tuple[Message, ...] | str, tokens: int) -> Told:
        if isinstance(messages, str):
            messages = (Message("user", messages),)
        clock = _Clock(self.clock)
        start = self.clock()
        prompt = self._tokenizer.apply_chat_template(
            [message.to_json() for message in messages],
            add_generation_prompt=True,
            return_dict=True,
            return_tensors="pt",
        ).to(self.device)
        with torch.inference_mode():
            output = self._bare.generate(**prompt, max_new_tokens=tokens, do_sample=False, streamer=clock)
        text = self._tokenizer.decode(output[0, prompt["input_ids"].shape[1] :])
        return Told(clock.times[0] - start, clock.times[-1] - start, text)

    async def open(self, client: AbstractAsyncContextManager[OpenAIProvider]) -> OpenAIProvider:
        """Keep another engine running until everything is measured."""
        return await self.exits.enter_async_context(client)

    async def idle(self) -> float:
        """Return how many seconds pass until the engine counts nobody."""
        start = time.perf_counter()
        while (figures := self.provider.engines()[self.name]).running or figures.waiting:
            await asyncio.sleep(0.002)
        return time.perf_counter() - start


@dataclass(frozen=True)
class Timed:
    """One answer of any provider: seconds to its first piece, and its tokens."""

    first: float
    tokens: int


async def timed(provider: Provider, model: str, text: str) -> Timed:
    """Ask for an answer of so many tokens, greedily."""
    request = ChatRequest(model, (Message("user", text),), Parameters(temperature=0.0, max_tokens=TOKENS))
    start, first = time.perf_counter(), 0.0
    async with aclosing(provider.stream(request)) as events:
        async for event in events:
            if isinstance(event, TextDelta):
                first = first or time.perf_counter() - start
            elif isinstance(event, Finished):
                tokens = event.usage.completion_tokens
    return Timed(first, tokens)


class _Clock(BaseStreamer):
    """Notes when each token comes; the first thing it is given is the prompt."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.times: list[float] = []
        self._prompt_seen = False

    def put(self, value: torch.Tensor) -> None:
        if self._prompt_seen:
            self.times.append(self._clock())
        self._prompt_seen = True

    def end(self) -> None:
        """The last token was the end."""


async def one(bench: Bench, number: int) -> dict[str, float]:
    """One person, against bare `generate`: each after itself and after the other, where it is a fifth slower."""
    told: dict[str, list[Told]] = {"bare": [], "ours": []}
    for place, way in enumerate(("bare", "ours", "ours", "bare")):
        message = question(10 * number + place, WORDS)
        told[way].append(await (bench.ask(message) if way == "ours" else bench.bare(message)))
    first = {way: fmean(each.first for each in some) for way, some in told.items()}
    speed = {way: fmean(each.speed for each in some) for way, some in told.items()}
    return {
        "single_tps_ratio": speed["ours"] / speed["bare"],
        "single_first_token_ratio": first["ours"] / first["bare"],
        "single_tokens_per_second": speed["ours"],
        "single_first_token_seconds": first["ours"],
    }


async def eight(bench: Bench, number: int) -> dict[str, float]:
    """Eight people at once, against as many questions one after the other."""
    # Each way has questions of its own: nothing that one computed may be left for the other.
    ways = {
        way: [question(seed + 1000 * number + each, WORDS) for each in range(PEOPLE)]
        for way, seed in (("row", 0), ("all", 500))
    }
    took: dict[str, float] = {}
    for way in ("row", "all") if number % 2 else ("all", "row"):
        start = bench.clock()
        if way == "all":
            together = await asyncio.gather(*(bench.ask(message) for message in ways[way]))
        else:
            for message in ways[way]:
                await bench.ask(message)
        took[way] = bench.clock() - start
    ends = [told.end for told in together]
    return {
        "eight_tps_ratio": took["row"] / took["all"],
        "eight_decode_tps_ratio": sum(told.speed for told in together) / (await bench.ask(ways["row"][0])).speed,
        "eight_tokens_per_second": PEOPLE * TOKENS / took["all"],
        "eight_slowest_first_token_seconds": max(told.first for told in together),
        "fairness": max(ends) / (sum(ends) / PEOPLE),
    }


async def turns(bench: Bench, number: int) -> dict[str, float]:
    """A late turn of a conversation, against reading it all; and whether every text is as it would be alone.

    Greedy text of the base is compared with bare `generate`; that of a seed and of an adapter with itself alone.
    """
    history = (Message("user", question(number, HISTORY_WORDS)),)
    adapter = await on_own_thread(lambda: bench.adapter)
    begun = await bench.ask(history, 2)
    turn = (*history, Message("assistant", begun.text), Message("user", question(number + 1, NEW_WORDS)))
    late, neighbour, edited, adapted = await asyncio.gather(
        bench.ask(turn, 16),
        bench.ask(question(number + 2, WORDS), 24, temperature=1.0, seed=number),
        bench.ask((Message("user", turn[0].content[:-40]),), 16),
        bench.ask(question(number + 4, WORDS), 16, adapter=adapter),
    )
    again = await bench.ask(
        (*turn, Message("assistant", late.text), Message("user", question(number + 3, NEW_WORDS))), 8
    )
    whole = await bench.bare(turn, 16)
    whole_edited = await bench.bare((Message("user", turn[0].content[:-40]),), 16)
    alone = await bench.ask(question(number + 2, WORDS), 24, temperature=1.0, seed=number)
    adapted_alone = await bench.ask(question(number + 4, WORDS), 16, adapter=adapter)
    same = (late.text, edited.text, neighbour.text, adapted.text) == (
        whole.text,
        whole_edited.text,
        alone.text,
        adapted_alone.text,
    )
    return {"turn20_first_token_ratio": again.first / whole.first, "reuse_identical": float(same)}


async def stop(bench: Bench, number: int) -> dict[str, float]:
    """From Stop to an idle engine, in a prompt, in the line, and in the answer."""
    worst = 0.0
    for phase in ("prompt", "line", "answer"):
        words, tokens = (1900, 1) if phase == "prompt" else (WORDS, 1000)
        count = 20 if phase == "line" else 1
        asking = [
            asyncio.ensure_future(bench.ask(question(100 * number + each, words), tokens)) for each in range(count)
        ]
        await asyncio.sleep(2.5 if phase == "answer" else 0.5)
        for each in asking:
            each.cancel()
        worst = max(worst, await bench.idle())
        await asyncio.gather(*asking, return_exceptions=True)
    return {"stop_seconds": worst}


async def serve(bench: Bench, number: int) -> dict[str, float]:
    """One person, against `transformers serve` over its own protocol."""
    if not bench.serve:
        bench.serve = await bench.open(serve_client(bench.name, PRECISION_NAMES[bench.precision]))
        await timed(bench.serve, bench.name, question(-1, WORDS))
    first: dict[str, float] = {}
    for way in ("serve", "ours") if number % 2 else ("ours", "serve"):
        provider = bench.serve if way == "serve" else bench.provider
        first[way] = (await timed(provider, bench.name, question(2 * number + (way == "ours"), WORDS))).first
    return {"serve_first_token_ratio": first["ours"] / first["serve"], "serve_first_token_seconds": first["serve"]}


async def llama(bench: Bench, number: int) -> dict[str, float]:
    """Eight people at once, against llama.cpp in f16 with eight slots, with the same weights."""
    if not bench.llama:
        folder = Path(bench.exits.enter_context(TemporaryDirectory()))
        model, file = await on_own_thread(partial(random_llama, folder, bench.dimensions))
        bench.llama = await bench.open(llama_client(file, PEOPLE, torch.get_num_threads()))
        bench.shared = str(model)
        await bench.provider.load(bench.shared, LoadOptions(device=bench.device, precision=bench.precision))
        await asyncio.gather(timed(bench.llama, "model", STORY), timed(bench.provider, bench.shared, STORY))
    speed: dict[str, float] = {}
    for way in ("llama", "ours") if number % 2 else ("ours", "llama"):
        provider, name = (bench.llama, "model") if way == "llama" else (bench.provider, bench.shared)
        start = time.perf_counter()
        told = await asyncio.gather(
            *(timed(provider, name, f"{way} {number} {each} {STORY}") for each in range(PEOPLE))
        )
        speed[way] = sum(each.tokens for each in told) / (time.perf_counter() - start)
    return {
        "eight_vs_llama_cpp_ratio": speed["ours"] / speed["llama"],
        "eight_llama_cpp_tokens_per_second": speed["llama"],
    }


async def pages(bench: Bench, number: int) -> dict[str, float]:
    """Four people in four Chromium pages."""
    browser = chromium()
    if not browser:
        raise RuntimeError("There is no Chromium here: run `make test` once, or leave out --part pages.")
    if not bench.server:
        bench.server = bench.exits.enter_context(simpleia(bench.name))
        await asyncio.to_thread(lambda server: list(ask(server, question(-1, WORDS), max_tokens=4)), bench.server)
    questions = [question(100 * number + each, WORDS) for each in range(FOUR)]
    waits = await asyncio.to_thread(first_texts, bench.server, browser, questions)
    return {"four_pages_first_text_seconds": waits[-1], "four_pages_quickest_seconds": waits[0]}


PARTS = {"one": one, "eight": eight, "turns": turns, "stop": stop, "serve": serve, "llama": llama, "pages": pages}


async def measure(
    dimensions: dict[str, Any], rounds: int, parts: list[str], clock: Callable[[], float], how: LoadOptions
) -> dict[str, Any]:
    """Run each part so many times, after a first round that does not count, where there are several."""
    machine, others = report.machine(), report.OtherPrograms()
    name = str(await on_own_thread(partial(random_model, dimensions)))
    settings = Settings().for_providers()
    provider = TransformersProvider(settings)
    loaded = await provider.load(name, how)
    bench = await on_own_thread(partial(Bench, provider, name, dimensions, loaded, clock))
    measured: dict[str, list[float]] = {}
    async with bench.exits:
        for part in parts:
            for number in range(0 if rounds > 1 else 1, rounds + 1):
                found = await PARTS[part](bench, number)
                for key, value in found.items() if number else ():
                    measured.setdefault(key, []).append(value)
                report.progress(f"{part} {number}: " + ", ".join(f"{key} {value:.3f}" for key, value in found.items()))
    await provider.aclose()
    spreads = {key: Spread.of(values) for key, values in measured.items()}
    worst = {"reuse_identical": min, "stop_seconds": max}
    return {
        **{key: worst[key](measured[key]) if key in worst else spread.median for key, spread in spreads.items()},
        "spreads": spreads,
        "rounds": rounds,
        "precision": loaded.precision,
        "device": loaded.device,
        "cores_used": torch.get_num_threads(),
        "other_programs_percent": others.percent(),
        "machine": machine,
    }


def main() -> None:
    """Measure, and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--save", action="store_true", help="also write it into benchmarks/results")
    parser.add_argument("--rounds", type=int, default=3, help="how often everything is measured (%(default)s)")
    parser.add_argument("--part", choices=PARTS, action="append", help="only this part")
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="which seconds to tell (%(default)s)")
    parser.add_argument("--precision", choices=PRECISIONS, default="fp32", help="weights in (%(default)s)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda; other engines run on the processor (%(default)s)")
    parser.add_argument("--large", action="store_true", help="a model of Qwen3-0.6B's dimensions")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_setaffinity") else os.cpu_count() or 1
    parser.add_argument("--cores", type=int, default=cores, help="how many cores all of it runs on (%(default)s)")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.cores])
    os.environ["OMP_NUM_THREADS"] = str(options.cores)  # Of the other engines.
    torch.set_num_threads(options.cores)
    disable_progress_bar()
    dimensions, name = (QWEN3_06B, "engine_large") if options.large else (SMOLLM2_135M, "engine")
    name += "" if options.precision == "fp32" else f"_{options.precision}"
    name += "" if options.device == "cpu" else f"_{options.device}"
    parts = options.part or list(PARTS)
    how = LoadOptions(device=options.device, precision=options.precision)
    result = asyncio.run(measure(dimensions, options.rounds, parts, CLOCKS[options.clock], how))
    table = [("", f"median [min..max] of {options.rounds} rounds", "goal")]
    table += [(key, str(spread), GOALS.get(key, "")) for key, spread in result["spreads"].items()]
    report.finish(name, result, table, options)


if __name__ == "__main__":
    main()
