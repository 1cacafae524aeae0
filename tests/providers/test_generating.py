"""Answers by `generate`: the same text with what was kept, Stop in the line, and a row that says so."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
import transformers

from providers.batch_row import AnswerCancelled
from providers.errors import RateLimited
from providers.generating import GenerateEngine
from providers.local_folders import open_model_folder
from providers.local_model import LocalModel
from providers.types import EngineLimits, LoadOptions, Message, Parameters, Queued
from tests.providers.test_batching import Asked, question, until, until_idle

GREEDY = Parameters(temperature=0, max_tokens=20)


@pytest.fixture(scope="module")
def alibi(models_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a BLOOM, whose attention adds a bias that packs do not know."""
    folder = tmp_path_factory.mktemp("alibi") / "bloom"
    tokenizer = transformers.AutoTokenizer.from_pretrained(models_dir / "tiny")
    torch.manual_seed(0)
    config = transformers.BloomConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        n_layer=2,
        n_head=4,
        initializer_range=0.3,
        eos_token_id=None,
        seq_length=2048,
    )
    transformers.BloomForCausalLM(config).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(models_dir / "tiny" / name, folder / name)
    return folder


@pytest.fixture
def model(alibi: Path) -> LocalModel:
    return load(alibi)


def load(folder: Path) -> LocalModel:
    limits = EngineLimits(parallel=1, waiting=1)
    return LocalModel("bloom", open_model_folder(folder), LoadOptions("cpu", precision="fp32"), limits=limits)


def test_its_row_says_that_answers_are_apart(model: LocalModel) -> None:
    assert isinstance(model._engine, GenerateEngine)
    assert not model.info.batched
    assert not model.figures().batched


def test_later_turns_are_the_same_with_and_without_what_was_kept(model: LocalModel, alibi: Path) -> None:
    history: tuple[Message, ...] = ()
    for turn in range(4):
        history = (*history, Message("user", f"Question number {turn}."))
        before = model.figures().reused_tokens
        text = Asked(model, history, GREEDY).text()
        assert text == Asked(load(alibi), history, GREEDY).text()
        assert turn == 0 or model.figures().reused_tokens - before > 20 * turn
        history = (*history, Message("assistant", text))
    edited = (Message("user", "Another question."), *history[1:], Message("user", "And?"))

    assert Asked(model, edited, GREEDY).text() == Asked(load(alibi), edited, GREEDY).text()
    assert 0 < model.figures().kept_conversations <= 4


def test_what_is_kept_is_bounded(model: LocalModel) -> None:
    for letter in "abcdefgh":
        Asked(model, question(letter * 200), GREEDY).text()

    assert model.figures().kept_conversations == 4


def test_stop_in_the_line_and_a_full_line(model: LocalModel) -> None:
    first = Asked(model, question("a"), Parameters(temperature=0, max_tokens=1500))
    assert first.begun.wait(30)
    second = Asked(model, question("b"), GREEDY)
    until(lambda: Queued(1) in second.events)
    with pytest.raises(RateLimited):
        Asked(model, question("c"), GREEDY).events_at_end()
    for asked in (second, first):
        asked.cancelled.set()
        with pytest.raises(AnswerCancelled):
            asked.events_at_end()
    until_idle(model, 1)

    assert Asked(model, question("a"), GREEDY).text()
