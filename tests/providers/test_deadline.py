"""Endless Python code is interrupted at its deadline, and what ends before is left alone."""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path

import pytest

from providers.deadline import TooSlow, deadline
from providers.errors import UpstreamFailure
from providers.transformers_local import TransformersProvider
from providers.types import ChatRequest, Message, Parameters, ProviderSettings
from tests.tiny_models import make_chat_model

ENDLESS = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"


def spin() -> None:
    while True:
        pass


def test_endless_code_is_interrupted() -> None:
    start = time.monotonic()
    with pytest.raises(TooSlow), deadline(0.2):
        spin()

    assert time.monotonic() - start < 5


def test_nothing_comes_after_the_block() -> None:
    for number in range(40):
        try:
            with deadline(0.001 * (number % 4)):
                sum(range(1000 * number))
        except TooSlow:
            continue
    time.sleep(0.05)

    assert sum(range(100_000)) == 4_999_950_000


def test_other_threads_are_left_alone() -> None:
    counted = []

    def count() -> None:
        counted.append(sum(range(3_000_000)))

    thread = threading.Thread(target=count)
    thread.start()
    with pytest.raises(TooSlow), deadline(0.1):
        spin()
    thread.join(30)

    assert counted == [4_499_998_500_000]


async def test_an_endless_chat_template_is_ended_and_others_are_answered_meanwhile(
    tmp_path: Path, models_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("providers.local_model.TEMPLATE_SECONDS", 2.0)
    folder = make_chat_model(tmp_path / "models" / "endless")
    (folder / "chat_template.jinja").write_text(ENDLESS)
    (tmp_path / "models" / "tiny").symlink_to(models_dir / "tiny")
    provider = TransformersProvider(ProviderSettings(tmp_path, tmp_path / "models", tmp_path / "runs"))
    short = Parameters(max_tokens=2, temperature=0)

    async def ask(model: str) -> float:
        start = time.monotonic()
        async for _ in provider.stream(ChatRequest(model, (Message("user", "Hello"),), short)):
            pass
        return time.monotonic() - start

    await ask("tiny")
    hostile = asyncio.ensure_future(ask("endless"))
    while not provider.is_busy("endless"):
        await asyncio.sleep(0.01)
    waited = await ask("tiny")
    with pytest.raises(UpstreamFailure, match="chat template cannot format"):
        await hostile

    assert waited < 2
    await provider.aclose()
