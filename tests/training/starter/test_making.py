"""The making of the starter: encoding, packing, training, and going on with what was interrupted."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.training.starter.shipped import FOLDER, messages_of
from training.starter.batches import Batches, make_batches
from training.starter.corpus import Corpus
from training.starter.encoding import Encoder
from training.starter.shapes import SHAPES
from training.starter.skills import SPELLED
from training.starter.train import TrainingPlan, learning_rate, train
from training.starter.weights import Learner, Shape, batch_loss, build_model


def test_conversations_are_encoded_as_the_template_writes_them(tokenizer: Any) -> None:
    encoder = Encoder(tokenizer)
    corpus = Corpus(seed=3)
    for conversation in (corpus.conversation() for _ in range(200)):
        if any(SPELLED in turn.answer for turn in conversation.turns):
            continue
        expected = tokenizer.apply_chat_template(messages_of(conversation), return_dict=True)["input_ids"]
        ids = encoder.encode(conversation).ids
        assert ids == expected[: len(ids)]
        assert tokenizer.decode(expected[len(ids) :]) == "\n"


def test_spelt_answers_are_single_letters(tokenizer: Any) -> None:
    turn = Corpus(seed=4).skill_turn("lower", "en")
    word = turn.answer.strip(SPELLED)
    assert len(Encoder(tokenizer).ids_of_answer(turn.answer)) == len(word) + 1


def test_cards_teach_what_follows_and_not_what_is_given(tokenizer: Any) -> None:
    cards = Corpus(seed=6).cards()
    tokens = Encoder(tokenizer).encode(cards)
    learnt = [token for token, weight in zip(tokens.ids, tokens.weights, strict=True) if weight]
    assert tokenizer.decode(learnt) == "".join(end for _, end in cards.lines).replace(SPELLED, "")


def test_an_earlier_starter_is_trained_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.starter.train._VALIDATION_BATCHES", 1)
    train(TrainingPlan(tmp_path / "model", tmp_path / "work", steps=1, threads=1, begin=FOLDER))
    before, after = (AutoModelForCausalLM.from_pretrained(each).float() for each in (FOLDER, tmp_path / "model"))
    moved = [(a - b).abs().max().item() for a, b in zip(before.parameters(), after.parameters(), strict=True)]

    assert 0 < max(moved) < 0.02
    assert (tmp_path / "model" / "tokenizer.json").read_bytes() == (FOLDER / "tokenizer.json").read_bytes()


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_every_shape_that_is_tried_would_be_small_enough(tokenizer: Any, shape: Shape) -> None:
    assert 4e6 <= build_model(tokenizer, shape).num_parameters() <= 6e6
    assert shape.hidden == 64 * shape.heads
    assert all(size % 64 == 0 for size in (shape.hidden, shape.intermediate))


def test_packed_conversations_do_not_see_each_other(tokenizer: Any) -> None:
    torch.manual_seed(0)
    model = build_model(tokenizer).eval()
    batch = next(iter(Batches(tokenizer, seed=1)))
    second = int((batch.position_ids[0] == 0).nonzero()[1])

    def last_of_second(ids: torch.Tensor) -> torch.Tensor:
        options: dict[str, Any] = {"position_ids": batch.position_ids[:1], "attention_mask": mask, "use_cache": False}
        with torch.no_grad():
            logits: torch.Tensor = model(input_ids=ids, **options).logits[0, second + 3]
        return logits

    whole = batch.mask(torch.float32)
    assert whole is not None
    mask = whole[:1]
    ids = batch.input_ids[:1].clone()
    before = last_of_second(ids)
    ids[0, second - 1] += 1
    assert torch.equal(before, last_of_second(ids))
    ids[0, second + 1] += 1
    assert not torch.equal(before, last_of_second(ids))


def test_blended_weights_are_so_much_of_the_way_to_the_others(tokenizer: Any) -> None:
    one, other = (
        build_model(tokenizer, Shape(layers=1, hidden=64, intermediate=64, heads=1, kv_heads=1)) for _ in range(2)
    )
    wanted = 0.75 * one.model.embed_tokens.weight.detach() + 0.25 * other.model.embed_tokens.weight.detach()
    learner = Learner(one)
    learner.blend(other, 0.25)
    torch.testing.assert_close(learner.model.model.embed_tokens.weight.detach(), wanted.to(torch.bfloat16))


def test_several_processes_write_other_text_each(tokenizer: Any) -> None:
    batches = list(islice(make_batches(tokenizer, seed=1, scale=2, processes=2), 80))
    assert len({tuple(batch.input_ids[0, :64].tolist()) for batch in batches}) == len(batches)
    assert {tuple(batch.input_ids.shape) for batch in batches} == {(40, 128), (12, 448), (2, 4096)}


def test_no_batch_is_empty(tokenizer: Any) -> None:
    batches = list(islice(Batches(tokenizer, seed=2), 40))
    assert all(batch.weights.sum() > 100 for batch in batches)
    assert max(int(batch.position_ids.max()) for batch in batches) == 4095


def test_training_lowers_the_loss_and_goes_on_where_it_was_kept(tokenizer: Any, tmp_path: Path) -> None:
    first, second = islice(Batches(tokenizer, seed=1), 2)

    def learner(seed: int) -> Learner:
        torch.manual_seed(seed)
        return Learner(build_model(tokenizer))

    one = learner(0)
    before = one.step(first, 2e-3)
    assert batch_loss(one.model, first).item() < before
    one.save(tmp_path / "state.safetensors", {"step": 1})
    other = learner(1)
    assert other.load(tmp_path / "state.safetensors") == {"step": 1}
    assert one.step(second, 2e-3) == other.step(second, 2e-3)
    assert all(torch.equal(a, b) for a, b in zip(one.model.parameters(), other.model.parameters(), strict=True))


def test_learning_rate_rises_stays_and_falls_to_nothing() -> None:
    rates = [learning_rate(step, 1000) for step in (0, 99, 600, 800, 999)]
    assert rates[0] < rates[1] == rates[2] > rates[3] > rates[4] > 0
