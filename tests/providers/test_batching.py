"""Many answers at once: each is what it would be alone, nobody starves, and who leaves frees their place."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from providers.batch_row import AnswerCancelled
from providers.batching import BatchEngine
from providers.errors import OutOfMemory, RateLimited, UpstreamFailure
from providers.local_folders import open_model_folder
from providers.local_model import LocalModel
from providers.types import (
    ChatRequest,
    EngineLimits,
    Finished,
    LoadOptions,
    Message,
    Parameters,
    Queued,
    StreamEvent,
    TextDelta,
)

GREEDY = Parameters(temperature=0, max_tokens=40)
SCHEMA = {"type": "object", "properties": {"said": {"const": "abc" * 20}}, "required": ["said"]}
EIGHT = (
    GREEDY,
    replace(GREEDY, stop=("e",)),
    Parameters(temperature=1, seed=1, max_tokens=30),
    Parameters(temperature=0.5, seed=2, top_k=5, max_tokens=20),
    Parameters(temperature=1, seed=3, top_p=0.5, min_p=0.01, max_tokens=50),
    Parameters(
        temperature=1, seed=4, repetition_penalty=1.5, presence_penalty=1.0, frequency_penalty=0.5, max_tokens=35
    ),
    Parameters(temperature=0, max_tokens=90, json_schema=SCHEMA),
    Parameters(temperature=1, seed=5, logprobs=3, max_tokens=25),
)


class Asked:
    """One answer that is being computed on a thread of its own."""

    def __init__(self, model: LocalModel, messages: tuple[Message, ...], parameters: Parameters) -> None:
        self.events: list[StreamEvent] = []
        self.cancelled = threading.Event()
        self.begun = threading.Event()
        self._work: Future[None] = Future()
        request = ChatRequest(model.info.name, messages, parameters)
        threading.Thread(target=self._run, args=(model, request), daemon=True).start()

    def _run(self, model: LocalModel, request: ChatRequest) -> None:
        try:
            model.answer(request, self._emit, self.cancelled)
            self._work.set_result(None)
        except BaseException as error:
            self._work.set_exception(error)

    def _emit(self, event: StreamEvent) -> None:
        self.events.append(event)
        if isinstance(event, TextDelta):
            self.begun.set()

    def events_at_end(self) -> list[StreamEvent]:
        self._work.result(120)
        return self.events

    def text(self) -> str:
        return "".join(event.text for event in self.events_at_end() if isinstance(event, TextDelta))


def question(text: str) -> tuple[Message, ...]:
    return (Message("user", text),)


@pytest.fixture
def load(models_dir: Path) -> Iterator[Callable[..., LocalModel]]:
    """Load models in 32 bits, where rounding does not depend on who else is there."""
    loaded: list[LocalModel] = []

    def make(name: str = "tiny", **limits: Any) -> LocalModel:
        folder = open_model_folder(models_dir / name)
        loaded.append(LocalModel(name, folder, LoadOptions("cpu", precision="fp32"), limits=EngineLimits(**limits)))
        return loaded[-1]

    yield make
    for model in loaded:
        model.close()


def engine_of(model: LocalModel) -> BatchEngine:
    engine = model._engine
    assert isinstance(engine, BatchEngine)
    return engine


def counts(model: LocalModel, expected: tuple[int, int]) -> bool:
    return (model.figures().running, model.figures().waiting) == expected


def until_idle(model: LocalModel, seconds: float) -> None:
    """Return once the engine counts nobody any more; fail after `seconds`."""
    deadline = time.monotonic() + seconds
    while (figures := model.figures()).running or figures.waiting:
        assert time.monotonic() < deadline, figures
        time.sleep(0.005)


def until(condition: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def test_eight_chats_with_different_parameters_each_get_their_own(load: Callable[..., LocalModel]) -> None:
    model = load()
    alone = [Asked(model, question(f"Question {n}"), each).events_at_end() for n, each in enumerate(EIGHT)]
    asked = [Asked(load(), question(f"Question {n}"), each) for n, each in enumerate(EIGHT)]
    together = [Asked(model, question(f"Question {n}"), each) for n, each in enumerate(EIGHT)]

    for fresh, beside, expected in zip(asked, together, alone, strict=True):
        assert texts_and_end(fresh.events_at_end()) == texts_and_end(expected)
        assert texts_and_end(beside.events_at_end()) == texts_and_end(expected)
    assert len({repr(events) for events in alone}) == len(EIGHT)
    assert json.loads(together[6].text()) == {"said": "abc" * 20}
    assert "e" not in together[1].text()
    logprobs = [logprob for event in together[7].events if isinstance(event, TextDelta) for logprob in event.logprobs]
    assert 20 <= len(logprobs) <= 25, "those of a last token that is no whole character are not told"
    assert all(len(logprob.top) == 3 for logprob in logprobs)


def texts_and_end(events: list[StreamEvent]) -> tuple[str, StreamEvent]:
    return "".join(event.text for event in events if isinstance(event, TextDelta)), events[-1]


def test_later_turns_are_the_same_with_and_without_what_was_kept(load: Callable[..., LocalModel]) -> None:
    model = load()
    history: tuple[Message, ...] = ()
    for turn in range(5):
        history = (*history, Message("user", f"This is question number {turn}."))
        before = model.figures().reused_tokens
        text = Asked(model, history, GREEDY).text()
        assert text == Asked(load(), history, GREEDY).text()
        assert turn == 0 or model.figures().reused_tokens - before > 40 * turn
        history = (*history, Message("assistant", text))
    edited = (Message("user", "This is another question."), *history[1:], Message("user", "And?"))

    assert Asked(model, edited, GREEDY).text() == Asked(load(), edited, GREEDY).text()


def test_prompts_in_pieces_beside_others_are_the_same(
    load: Callable[..., LocalModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = [question(f"{n}" * (50 + 173 * n)) for n in range(6)]
    alone = [Asked(load(), prompt, GREEDY).text() for prompt in prompts]
    monkeypatch.setattr("providers.batching.LONGEST_PIECE", 37)
    model = load()
    together = [Asked(model, prompt, GREEDY) for prompt in prompts]

    assert [asked.text() for asked in together] == alone


def test_the_same_prompt_asked_at_once_is_read_once(load: Callable[..., LocalModel]) -> None:
    model = load()
    prompt = question("x" * 1500)
    drawn = [Asked(model, prompt, Parameters(temperature=1, seed=seed, max_tokens=10)) for seed in range(6)]
    texts = [asked.text() for asked in drawn]

    assert len(set(texts)) == 6
    assert model.figures().reused_tokens > 5 * 1400


def test_stop_frees_the_place_in_the_line_in_the_prompt_and_in_the_answer(load: Callable[..., LocalModel]) -> None:
    model = load("slow", batched=2)
    endless = Parameters(temperature=0, max_tokens=5000)
    decoding = Asked(model, question("a"), endless)
    assert decoding.begun.wait(60)
    reading = Asked(model, question("x" * 15_000), Parameters(max_tokens=1))
    until(lambda: model.figures().running == 2)
    waiting = Asked(model, question("b"), endless)
    until(lambda: model.figures().waiting == 1)
    for asked, left in ((waiting, (2, 0)), (reading, (1, 0)), (decoding, (0, 0))):
        asked.cancelled.set()
        start = time.monotonic()
        until(partial(counts, model, left))
        assert time.monotonic() - start < 1
        with pytest.raises(AnswerCancelled):
            asked.events_at_end()

    assert not reading.begun.is_set()
    assert Asked(model, question("a"), replace(GREEDY, max_tokens=5)).text()


def test_who_waits_is_told_the_place_and_too_many_are_refused(load: Callable[..., LocalModel]) -> None:
    model = load("slow", batched=1, waiting=2)
    first = Asked(model, question("a"), Parameters(temperature=0, max_tokens=5000))
    assert first.begun.wait(60)
    second = Asked(model, question("b"), replace(GREEDY, max_tokens=3))
    until(lambda: model.figures().waiting == 1)
    third = Asked(model, question("c"), replace(GREEDY, max_tokens=3))
    until(lambda: model.figures().waiting == 2)
    with pytest.raises(RateLimited, match=r"Too many people are waiting .* Try again in a moment\."):
        Asked(model, question("d"), GREEDY).events_at_end()
    until(lambda: Queued(2) in third.events)
    first.cancelled.set()

    assert second.text()
    assert third.text()
    assert [event for event in second.events if isinstance(event, Queued)] == [Queued(1)]
    assert [event for event in third.events if isinstance(event, Queued)] == [Queued(2), Queued(1)]


@pytest.mark.parametrize("at", [1, 5])
def test_an_error_in_one_answer_leaves_the_others_unharmed(
    load: Callable[..., LocalModel], monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    model = load()
    alone = [Asked(model, question(f"{n}"), GREEDY).text() for n in range(4)]
    from providers.answer_writer import AnswerWriter

    take = AnswerWriter.take

    def breaks(writer: AnswerWriter, token: int) -> bool:
        if writer._text._stop._stop[:1] == ("never",) and writer.tokens + 1 == at:
            raise RuntimeError("a bug")
        return take(writer, token)

    monkeypatch.setattr(AnswerWriter, "take", breaks)
    others = [Asked(model, question(f"{n}"), GREEDY) for n in range(4)]
    broken = Asked(model, question("broken"), replace(GREEDY, stop=("never",)))
    with pytest.raises(UpstreamFailure, match="failed while it answered"):
        broken.events_at_end()

    assert [asked.text() for asked in others] == alone
    until_idle(model, 1)


def test_a_step_that_fails_for_all_is_tried_for_each(load: Callable[..., LocalModel]) -> None:
    """A pass over many is refused by the allocator: each alone goes on, and none is lost."""
    model = load()
    alone = [Asked(model, question(f"{n}"), GREEDY).text() for n in range(4)]
    refused = []

    def refuses(module: torch.nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        if type(module).__name__ == "LlamaModel" and len(kwargs["pack"].parts) > 1:
            refused.append(len(kwargs["pack"].parts))
            raise torch.OutOfMemoryError("no")

    hook = model._model.model.register_forward_pre_hook(refuses, with_kwargs=True)
    together = [Asked(model, question(f"{n}"), GREEDY) for n in range(4)]
    texts = [asked.text() for asked in together]
    hook.remove()

    assert texts == alone
    assert refused


def test_memory_for_conversations_is_bounded_and_the_newest_answer_waits(load: Callable[..., LocalModel]) -> None:
    model = load()
    asking = [replace(GREEDY, max_tokens=300) for _ in range(4)]
    alone = [Asked(model, question(f"{n}" * 100), each).text() for n, each in enumerate(asking)]
    small = load()
    engine = engine_of(small)
    engine._budget = engine._token_bytes * 256 * 5
    most = 0
    together = [Asked(small, question(f"{n}" * 100), each) for n, each in enumerate(asking)]
    while any(not asked._work.done() for asked in together):
        most = max(most, small.figures().cache_bytes)
        time.sleep(0.001)

    assert [asked.text() for asked in together] == alone
    assert 0 < most <= engine._budget


def test_a_conversation_larger_than_the_memory_ends_with_a_sentence(load: Callable[..., LocalModel]) -> None:
    model = load()
    engine_of(model)._budget = engine_of(model)._token_bytes * 256
    with pytest.raises(OutOfMemory, match=r"There is not enough memory for tiny\."):
        Asked(model, question("x" * 1000), GREEDY).events_at_end()

    assert Asked(model, question("x"), GREEDY).text() == Asked(load(), question("x"), GREEDY).text()


def test_old_conversations_leave_first(load: Callable[..., LocalModel]) -> None:
    model = load()
    engine_of(model)._budget = engine_of(model)._token_bytes * 256 * 4
    for letter in "abcdef":
        Asked(model, question(letter * 200), replace(GREEDY, max_tokens=2)).text()
        assert model.figures().cache_bytes <= engine_of(model)._budget
    before = model.figures().reused_tokens
    Asked(model, question("f" * 200), replace(GREEDY, max_tokens=2)).text()
    newest = model.figures().reused_tokens - before
    Asked(model, question("a" * 200), replace(GREEDY, max_tokens=2)).text()

    assert newest > 200
    assert model.figures().reused_tokens - before - newest < 200


def test_short_questions_do_not_wait_for_a_long_prompt_nor_it_for_them(load: Callable[..., LocalModel]) -> None:
    model = load("slow")
    long = Asked(model, question("x" * 3_000), Parameters(max_tokens=1))
    until(lambda: model.figures().running == 1)
    order: list[str] = []

    def wait_for(asked: Asked, name: str) -> None:
        asked.events_at_end()
        order.append(name)

    with ThreadPoolExecutor(9) as threads:
        work = [threads.submit(wait_for, long, "long")]
        for n in range(6):
            short = Asked(model, question(f"{n}"), replace(GREEDY, max_tokens=1))
            work.append(threads.submit(wait_for, short, "short"))
        for each in work:
            each.result(120)

    assert order[-1] == "long"
    assert isinstance(long.events[-1], Finished)


def test_drafts_by_copying_change_nothing(load: Callable[..., LocalModel]) -> None:
    plain, drafting = load(), load(prompt_lookup=True)
    for parameters in (
        replace(GREEDY, max_tokens=100),
        Parameters(temperature=1, seed=3, top_k=2, max_tokens=100),
        Parameters(temperature=0, max_tokens=100, presence_penalty=0.1, logprobs=2),
        Parameters(temperature=0, max_tokens=90, json_schema=SCHEMA),
    ):
        events = Asked(plain, question("abcabcabc"), parameters).events_at_end()
        assert texts_and_end(Asked(drafting, question("abcabcabc"), parameters).events_at_end()) == texts_and_end(
            events
        )


def test_drafts_save_passes(load: Callable[..., LocalModel], engine: Any) -> None:
    layers = []
    forced = Parameters(temperature=0, max_tokens=90, json_schema=SCHEMA)
    for model in (load(), load(prompt_lookup=True)):
        before = engine.layers
        assert "abcabc" in Asked(model, question("abc" * 20), forced).text()
        layers.append(engine.layers - before)

    assert layers[1] < layers[0] / 2


def clients_come_and_vanish(model: LocalModel, count: int) -> None:
    """Let `count` people ask and leave at any time; then one asks and stays."""
    expected = Asked(model, question("Hello"), GREEDY).text()
    draw = torch.Generator().manual_seed(0)

    def come(number: int) -> None:
        patience = float(torch.rand((), generator=draw)) * 0.2
        asked = Asked(model, question(f"{number}" * int(1 + patience * 2000)), Parameters(max_tokens=500))
        time.sleep(patience)
        asked.cancelled.set()
        with contextlib.suppress(AnswerCancelled, RateLimited):
            asked.events_at_end()

    with ThreadPoolExecutor(40) as threads:
        list(threads.map(come, range(count)))
    until_idle(model, 2)

    assert Asked(model, question("Hello"), GREEDY).text() == expected


def test_a_closed_engine_has_ended_so_that_its_model_can_be_freed(load: Callable[..., LocalModel]) -> None:
    model = load()
    assert Asked(model, question("Hello"), GREEDY).text()
    thread = engine_of(model)._thread
    assert thread is not None
    model.close()

    assert not thread.is_alive()


def test_people_who_come_and_vanish_leave_nothing_behind(load: Callable[..., LocalModel]) -> None:
    clients_come_and_vanish(load(batched=8, waiting=20), 60)


@pytest.mark.long
def test_500_people_who_come_and_vanish_leave_nothing_behind(load: Callable[..., LocalModel]) -> None:
    clients_come_and_vanish(load(batched=8, waiting=20), 500)
