"""The engine with one person and with eight, against bare `generate` and against itself without what it adds.

Run as `python -m benchmarks.engine`, or with `--part one`, `eight`, `turns`, `stop`. Everything runs on one core, in
turns; random weights of SmolLM2-135M's dimensions. With `--clock cpu`, seconds are those that this process computed: on
a busy machine, what other programs take is left out.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.generation.streamers import BaseStreamer
from transformers.utils.logging import disable_progress_bar

from benchmarks import report
from benchmarks.random_model import question, random_model, tokens_in
from benchmarks.report import Spread
from core.settings import Settings
from providers.transformers_local import TransformersProvider
from providers.types import PRECISIONS, ChatRequest, Finished, LoadOptions, Message, Parameters, TextDelta

PEOPLE = 8
WORDS = 110
TOKENS = 48
HISTORY_WORDS, NEW_WORDS = 1880, 38
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
GOALS = {
    "single_tps_ratio": ">= 0.95",
    "single_first_token_ratio": "<= 1.10",
    "eight_tps_ratio": ">= 4",
    "turn20_first_token_ratio": "<= 0.1",
    "fairness": "<= 1.5",
    "reuse_identical": "1",
    "stop_seconds": "<= 1",
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

    def __init__(self, provider: TransformersProvider, name: str, precision: str, clock: Callable[[], float]) -> None:
        self.provider, self.name, self.clock = provider, name, clock
        self._tokenizer: Any = AutoTokenizer.from_pretrained(name)
        self._bare: Any = AutoModelForCausalLM.from_pretrained(name, dtype=getattr(torch, precision)).eval()

    async def ask(self, messages: tuple[Message, ...] | str, tokens: int = TOKENS, **values: Any) -> Told:
        """Ask through the provider, greedily."""
        if isinstance(messages, str):
            messages = (Message("user", messages),)
        parameters = replace(Parameters(temperature=0.0, max_tokens=tokens), **values)
        start, first, pieces = self.clock(), 0.0, []
        async with aclosing(self.provider.stream(ChatRequest(self.name, messages, parameters))) as events:
            async for event in events:
                if isinstance(event, TextDelta):
                    first = first or self.clock()
                    pieces.append(event.text)
                elif isinstance(event, Finished):
                    end = self.clock()
        return Told(first - start, end - start, "".join(pieces))

    def bare(self, messages: tuple[Message, ...] | str, tokens: int = TOKENS) -> Told:
        """Ask transformers itself."""
        if isinstance(messages, str):
            messages = (Message("user", messages),)
        clock = _Clock(self.clock)
        start = self.clock()
        prompt = self._tokenizer.apply_chat_template(
            [message.to_json() for message in messages],
            add_generation_prompt=True,
            return_dict=True,
            return_tensors="pt",
        )
        with torch.inference_mode():
            output = self._bare.generate(**prompt, max_new_tokens=tokens, do_sample=False, streamer=clock)
        text = self._tokenizer.decode(output[0, prompt["input_ids"].shape[1] :])
        return Told(clock.times[0] - start, clock.times[-1] - start, text)

    async def idle(self) -> float:
        """Return how many seconds pass until the engine counts nobody."""
        start = time.perf_counter()
        while (figures := self.provider.engines()[self.name]).running or figures.waiting:
            await asyncio.sleep(0.002)
        return time.perf_counter() - start


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
    """One person, against bare `generate`."""
    message = question(number, WORDS)
    told: dict[str, Told] = {}
    for way in ("bare", "ours") if number % 2 else ("ours", "bare"):
        told[way] = await bench.ask(message) if way == "ours" else await asyncio.to_thread(bench.bare, message)
    return {
        "single_tps_ratio": told["ours"].speed / told["bare"].speed,
        "single_first_token_ratio": told["ours"].first / told["bare"].first,
        "single_tokens_per_second": told["ours"].speed,
        "single_first_token_seconds": told["ours"].first,
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
    """A late turn of a conversation, against reading it all; and whether the text is that of bare `generate`."""
    history = (Message("user", question(number, HISTORY_WORDS)),)
    begun = await bench.ask(history, 2)
    turn = (*history, Message("assistant", begun.text), Message("user", question(number + 1, NEW_WORDS)))
    late, neighbour, edited = await asyncio.gather(
        bench.ask(turn, 16),
        bench.ask(question(number + 2, WORDS), 24, temperature=1.0, seed=number),
        bench.ask((Message("user", turn[0].content[:-40]),), 16),
    )
    again = await bench.ask(
        (*turn, Message("assistant", late.text), Message("user", question(number + 3, NEW_WORDS))), 8
    )
    whole = await asyncio.to_thread(bench.bare, turn, 16)
    whole_edited = await asyncio.to_thread(bench.bare, (Message("user", turn[0].content[:-40]),), 16)
    alone = await bench.ask(question(number + 2, WORDS), 24, temperature=1.0, seed=number)
    same = (late.text, edited.text, neighbour.text) == (whole.text, whole_edited.text, alone.text)
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


PARTS = {"one": one, "eight": eight, "turns": turns, "stop": stop}


async def measure(rounds: int, parts: list[str], clock: Callable[[], float], precision: str) -> dict[str, Any]:
    """Run each part so many times, after a first round that does not count."""
    machine, others = report.machine(), report.OtherPrograms()
    name = str(random_model())
    settings = Settings().for_providers()
    provider = TransformersProvider(settings)
    loaded = await provider.load(name, LoadOptions(device="cpu", precision=precision))
    bench = Bench(provider, name, loaded.precision, clock)
    measured: dict[str, list[float]] = {}
    for part in parts:
        for number in range(1, rounds + 1):
            found = await PARTS[part](bench, number)
            for key, value in found.items():
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
        "other_programs_percent": others.percent(),
        "machine": machine,
    }


def main() -> None:
    """Measure, and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--save", action="store_true", help="also write benchmarks/results/engine.json")
    parser.add_argument("--rounds", type=int, default=3, help="how often everything is measured (%(default)s)")
    parser.add_argument("--part", choices=PARTS, action="append", help="only this part")
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="which seconds to tell (%(default)s)")
    parser.add_argument("--precision", choices=PRECISIONS, default="fp32", help="weights in (%(default)s)")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    torch.set_num_threads(1)
    disable_progress_bar()
    result = asyncio.run(measure(options.rounds, options.part or list(PARTS), CLOCKS[options.clock], options.precision))
    table = [("", f"median [min..max] of {options.rounds} rounds", "goal")]
    table += [(key, str(spread), GOALS.get(key, "")) for key, spread in result["spreads"].items()]
    report.finish("engine", result, table, options)


if __name__ == "__main__":
    main()
