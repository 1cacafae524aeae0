"""How much of transformers' own speed is left at the provider, and at the end of the whole path through `/chat`.

Run as `python -m benchmarks.chat`. The three ways take turns in one run, with the same model, precision and prompts.
"""

from __future__ import annotations

import asyncio
import itertools
import queue
import threading
import time
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.generation.streamers import BaseStreamer
from transformers.utils.logging import disable_progress_bar

from benchmarks import report
from benchmarks.random_model import question, random_model, tokens_in
from benchmarks.report import Spread
from benchmarks.servers import Server, ask, call, simpleia
from core.settings import Settings
from providers.transformers_local import TransformersProvider
from providers.types import ChatRequest, LoadedModel, LoadOptions, Message, Parameters, TextDelta

PROMPT_WORDS = 110
NEW_TOKENS = 64
PRECISION = "fp32"  # The same for all: by itself the provider would take 8-bit weights, which `generate` has not.
WAYS = ("bare", "provider", "whole_path")
GOALS = {"tokens_per_second_ratio": ">= 0.95", "first_token_ratio": "<= 1.10"}


@dataclass(frozen=True)
class Run:
    """One answer: when its first token was there, and the speed from then on."""

    first_token_seconds: float
    tokens_per_second: float

    @classmethod
    def of(cls, start: float, arrivals: Sequence[tuple[float, int]]) -> Run:
        """Build from (time, number of tokens) of each piece; raise RuntimeError when tokens are missing."""
        tokens = sum(count for _, count in arrivals)
        if tokens != NEW_TOKENS:
            raise RuntimeError(f"{tokens} tokens arrived instead of {NEW_TOKENS}")
        (first, at_first), (last, _) = arrivals[0], arrivals[-1]
        return cls(first - start, (tokens - at_first) / (last - first))


class _Bare:
    """`generate` as anybody would call it: on a thread, with a streamer that hands over each token."""

    def __init__(self, folder: Path, loaded: LoadedModel) -> None:
        self._tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        dtype = getattr(torch, loaded.precision)
        self._model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, device_map=loaded.device).eval()

    def run(self, message: str) -> Run:
        start = time.perf_counter()
        tokens: queue.SimpleQueue[Any] = queue.SimpleQueue()
        thread = threading.Thread(target=self._generate, args=(message, _Tokens(tokens)))
        thread.start()
        arrivals = [(time.perf_counter(), 1) for _ in iter(tokens.get, None)]
        thread.join()
        return Run.of(start, arrivals)

    def _generate(self, message: str, streamer: BaseStreamer) -> None:
        prompt = self._tokenizer.apply_chat_template(
            [{"role": "user", "content": message}], add_generation_prompt=True, return_dict=True, return_tensors="pt"
        ).to(self._model.device)
        self._model.generate(**prompt, max_new_tokens=NEW_TOKENS, do_sample=False, streamer=streamer)


class _Tokens(BaseStreamer):
    """Hands each token on as a number; the first thing it is given is the prompt."""

    def __init__(self, tokens: queue.SimpleQueue[Any]) -> None:
        self._tokens = tokens
        self._prompt_seen = False

    def put(self, value: torch.Tensor) -> None:
        if self._prompt_seen:
            self._tokens.put(int(value[0]))
        self._prompt_seen = True

    def end(self) -> None:
        self._tokens.put(None)


async def _provider(provider: TransformersProvider, folder: Path, message: str) -> Run:
    start = time.perf_counter()
    arrivals = []
    request = ChatRequest(str(folder), (Message("user", message),), Parameters(temperature=0.0, max_tokens=NEW_TOKENS))
    async with aclosing(provider.stream(request)) as events:
        async for event in events:
            if isinstance(event, TextDelta):
                arrivals.append((time.perf_counter(), tokens_in(event.text)))
    return Run.of(start, arrivals)


def _whole_path(server: Server, message: str) -> tuple[Run, dict[str, Any]]:
    """Return the run as the client sees it, and the event that ended it."""
    start = time.perf_counter()
    arrivals = []
    done: dict[str, Any] = {}
    for now, event in ask(server, message, temperature=0.0, max_tokens=NEW_TOKENS):
        if event["type"] == "delta" and event["text"]:
            arrivals.append((now, tokens_in(event["text"])))
        elif event["type"] == "done":
            done = event
    return Run.of(start, arrivals), done


async def measure(rounds: int) -> dict[str, Any]:
    """Let the three ways answer the same prompts in turn, in every order as often as the others."""
    machine = report.machine()
    folder = random_model()
    provider = TransformersProvider(Settings().for_providers())
    runs: dict[str, list[Run]] = {way: [] for way in WAYS}
    in_core: list[float] = []
    busy: list[float] = []
    prompt_tokens = 0
    with simpleia(str(folder)) as server:
        call(server, "load_model", model=str(folder), precision=PRECISION, quantization="none")
        for _ in ask(server, question(0, PROMPT_WORDS), max_tokens=2):
            pass
        loaded = await provider.load(str(folder), LoadOptions(precision=PRECISION, quantization="none"))
        bare = _Bare(folder, loaded)
        for number, order in zip(range(-1, rounds), itertools.cycle(itertools.permutations(WAYS)), strict=False):
            message = question(number + 2, PROMPT_WORDS)
            others = report.OtherPrograms()
            measured: dict[str, Run] = {}
            for way in order:
                if way == "bare":
                    measured[way] = bare.run(message)
                elif way == "provider":
                    measured[way] = await _provider(provider, folder, message)
                else:
                    measured[way], done = _whole_path(server, message)
            if number < 0:
                continue  # The first answers are slower: memory is fetched and threads are made.
            for way in WAYS:
                runs[way].append(measured[way])
            in_core.append(done["timings"]["first_token_ms"] / 1000)
            prompt_tokens = done["usage"]["prompt_tokens"]
            busy.append(others.percent())
            report.progress(f"round {number + 1} of {rounds}, others {busy[-1]} %: {_line(measured)}")
    await provider.aclose()
    return {
        **_ratios(runs),
        "rounds": rounds,
        "prompt_tokens": prompt_tokens,
        "new_tokens": NEW_TOKENS,
        "precision": loaded.precision,
        "device": loaded.device,
        "tokens_per_second": {way: Spread.of(run.tokens_per_second for run in runs[way]) for way in WAYS},
        "first_token_seconds": {way: Spread.of(run.first_token_seconds for run in runs[way]) for way in WAYS},
        "first_token_seconds_in_core": Spread.of(in_core),
        "other_programs_percent": Spread.of(busy),
        "machine": machine,
    }


def _ratios(runs: dict[str, list[Run]]) -> dict[str, Any]:
    """Compare with the bare answer of the same round, so that a busy minute of the machine weighs on both."""
    spreads = {
        f"{prefix}{key.removesuffix('_seconds')}_ratio": Spread.of(
            getattr(run, key) / getattr(bare, key) for run, bare in zip(runs[way], runs["bare"], strict=True)
        )
        for way, prefix in (("whole_path", ""), ("provider", "provider_"))
        for key in ("tokens_per_second", "first_token_seconds")
    }
    return {name: spread.median for name, spread in spreads.items()} | {"ratios": spreads}


def _line(measured: dict[str, Run]) -> str:
    parts = (f"{way} {measured[way].tokens_per_second:.1f}/s {measured[way].first_token_seconds:.3f} s" for way in WAYS)
    return ", ".join(parts)


def main() -> None:
    """Measure, and print what was found."""
    options = report.arguments(__doc__, rounds=18)
    disable_progress_bar()
    result = asyncio.run(measure(options.rounds))
    table = [("", f"median [min..max] of {options.rounds} rounds", "goal")]
    table += [(name, str(spread), GOALS.get(name, "")) for name, spread in result["ratios"].items()]
    for key, unit in (("tokens_per_second", "tokens/s"), ("first_token_seconds", "s to the first token")):
        table += [(f"{way}, {unit}", str(result[key][way]), "") for way in WAYS]
    table.append(("within core/chat.py, s to the first token", str(result["first_token_seconds_in_core"]), ""))
    table.append(("precision", f"{result['precision']} on {result['device']}", ""))
    report.finish("chat", result, table, options)


if __name__ == "__main__":
    main()
