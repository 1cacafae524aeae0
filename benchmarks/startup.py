"""How long simpleIA takes to start, what its page weighs, and what it costs while nobody asks.

Run as `python -m benchmarks.startup`. The start is compared with that of the smallest Gradio app, in turns.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

import psutil

from benchmarks import report
from benchmarks.page import Page, chromium, open_page
from benchmarks.report import Spread
from benchmarks.servers import ROOT, Server, ask, bare_gradio, simpleia

SETTLE_SECONDS = 6
IDLE_SECONDS = 20
GOALS = {"startup_ratio": "<= 1.3"}


def measure(rounds: int, model: str | None) -> dict[str, Any]:
    """Start both apps in turn, then look at each of them while it is idle; `model` instead of the starter."""
    machine = report.machine()
    ready: dict[str, list[float]] = {"simpleia": [], "bare_gradio": []}
    cpu: dict[str, list[float]] = {"simpleia": [], "bare_gradio": []}
    first_words = []
    busy = []
    for number in range(-1, rounds):
        others = report.OtherPrograms()
        pair = ("simpleia", "bare_gradio") if number % 2 else ("bare_gradio", "simpleia")
        for name in pair:
            with simpleia(model) if name == "simpleia" else bare_gradio() as server:
                if number >= 0:  # The first start only fills the disk's cache.
                    ready[name].append(server.ready_seconds)
                    cpu[name].append(server.ready_cpu_seconds)
                    first_words += [_first_word(server) - server.started] if name == "simpleia" else []
        if number >= 0:
            busy.append(others.percent())
            report.progress(
                f"round {number + 1} of {rounds}: " + ", ".join(f"{k} {v[-1]:.2f} s" for k, v in ready.items())
            )
    ratio = Spread.of(ours / bare for ours, bare in zip(ready["simpleia"], ready["bare_gradio"], strict=True))
    first_word = Spread.of(first_words)
    return {
        "startup_ratio": ratio.median,
        "first_word_seconds": first_word.median,
        **_idle("", lambda: _answering(model)),
        **_idle("bare_", bare_gradio),
        "rounds": rounds,
        "ratios": {"startup_ratio": ratio},
        "ready_seconds": {name: Spread.of(values) for name, values in ready.items()},
        "ready_cpu_seconds": {name: Spread.of(values) for name, values in cpu.items()},
        "first_word_seconds_spread": first_word,
        "model": "starter" if model is None else "random",
        "other_programs_percent": Spread.of(busy),
        "machine": machine,
    }


def _idle(prefix: str, start: Callable[[], AbstractContextManager[Server]]) -> dict[str, Any]:
    """Measure a server at rest: without a page, then with one, where there is a browser."""
    with ExitStack() as stack:
        server = stack.enter_context(start())
        without_page = _cpu_percent(server)
        page: Page | None = None
        with_page: float | None = None
        if browser := chromium():
            page = stack.enter_context(open_page(server, browser))
            with_page = _cpu_percent(server)
        else:
            report.progress("There is no Chromium here, so the page was not measured.")
        memory = psutil.Process(server.process.pid).memory_info().rss
    return {
        f"{prefix}idle_cpu_percent": without_page,
        f"{prefix}idle_cpu_percent_with_page": with_page,
        f"{prefix}idle_memory_mib": round(memory / 2**20),
        f"{prefix}page_requests": page.requests if page else None,
        f"{prefix}page_kilobytes": page.kilobytes if page else None,
        f"{prefix}foreign_hosts": page.foreign_hosts if page else None,
    }


@contextmanager
def _answering(model: str | None) -> Iterator[Server]:
    """Run simpleIA with its model loaded."""
    with simpleia(model) as server:
        _first_word(server)
        yield server


def _first_word(server: Server) -> float:
    """Ask at once, and return when the first text was there, by `time.perf_counter`."""
    moments = [now for now, event in ask(server, "Hello", max_tokens=8) if event["type"] == "delta" and event["text"]]
    if not moments:
        raise RuntimeError("the model answered without a word")
    return moments[0]


def _cpu_percent(server: Server) -> float:
    """Return the processor time that the server takes while nobody asks, in percent of one core."""
    time.sleep(SETTLE_SECONDS)
    process = psutil.Process(server.process.pid)
    before, start = process.cpu_times(), time.perf_counter()
    time.sleep(IDLE_SECONDS)
    after = process.cpu_times()
    used = after.user + after.system - before.user - before.system
    return round(100 * float(used) / (time.perf_counter() - start), 2)


def main() -> None:
    """Measure, and print what was found."""
    options = report.arguments(__doc__, rounds=7)
    model = None
    if not (ROOT / "models" / "starter" / "config.json").is_file():
        from benchmarks.random_model import random_model

        report.progress("There is no starter model here, so a random model of 135 million weights answers.")
        model = str(random_model())
    result = measure(options.rounds, model)
    table = [
        ("", f"median [min..max] of {options.rounds} rounds", "goal"),
        ("startup_ratio", str(result["ratios"]["startup_ratio"]), GOALS["startup_ratio"]),
        *((f"{name}, s to the page", str(spread), "") for name, spread in result["ready_seconds"].items()),
        *(
            (f"{name}, processor s to the page", str(spread), "")
            for name, spread in result["ready_cpu_seconds"].items()
        ),
        ("first_word_seconds", str(result["first_word_seconds_spread"]), ""),
        *((name, str(value), "") for name, value in result.items() if "idle_" in name or "page_" in name),
        *((name, str(value), "") for name, value in result.items() if name.endswith("foreign_hosts")),
    ]
    report.finish("startup", result, table, options)


if __name__ == "__main__":
    main()
