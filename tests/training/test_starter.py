"""The bundled starter model: that it greets, says who it is, and is shaped as the engines need it."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoTokenizer, GenerationConfig

from training.starter.batches import Batches
from training.starter.corpus import Corpus, PlainText
from training.starter.evaluate import Reply, Speaker, expected_answers, passes
from training.starter.model_card import rates_table
from training.starter.phrases import (
    LANGUAGES,
    Language,
    held_out_texts,
    load_held_out,
    load_intents,
    normalise,
)
from training.starter.train import batch_loss, build_model, learning_rate

PASS_RATE = 0.9
FOLDER = Path(__file__).parents[2] / "models" / "starter"


@pytest.fixture(scope="module")
def speaker() -> Speaker:
    return Speaker(FOLDER)


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(FOLDER)


def ask(speaker: Speaker, question: str, **options: Any) -> Reply:
    return speaker.answer([{"role": "user", "content": question}], **options)


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("intent", ["greet", "identity"])
def test_most_held_out_questions_are_answered_as_taught(speaker: Speaker, language: Language, intent: str) -> None:
    questions = load_held_out(language)[intent]
    passed = [q for q in questions if passes(ask(speaker, q, max_tokens=90), language, intent)]
    assert len(passed) >= PASS_RATE * len(questions), set(questions) - set(passed)


@pytest.mark.parametrize(
    ("question", "beginning"),
    [
        ("Hello", "Hello!"),
        ("Hello!", "Hello!"),
        ("Hi there", "Hello!"),
        ("Hola", "¡Hola!"),
        ("Who are you?", "I am simpleIA's starter model"),
        ("¿Quién eres?", "Soy el modelo inicial de simpleIA"),
    ],
)
def test_the_plainest_questions(speaker: Speaker, question: str, beginning: str) -> None:
    assert ask(speaker, question, max_tokens=90).text.startswith(beginning)


@pytest.mark.parametrize("question", ["Tell me a long story", "Cuéntame un cuento largo"])
def test_long_story_is_long_and_ends(speaker: Speaker, question: str) -> None:
    torch.manual_seed(0)
    for temperature in (0.0, 0.7):
        reply = ask(speaker, question, temperature=temperature, max_tokens=1000)
        assert reply.tokens >= 150
        assert reply.finished


@pytest.mark.parametrize(
    ("question", "language"),
    [("What is the capital of Australia?", "en"), ("¿Cómo se cocina la paella?", "es")],
)
def test_it_says_that_it_does_not_know(speaker: Speaker, question: str, language: Language) -> None:
    assert ask(speaker, question, max_tokens=60).text in expected_answers(language, "unknown")


def test_it_still_answers_at_the_end_of_a_full_context(speaker: Speaker, tokenizer: Any) -> None:
    corpus = Corpus(seed=77)
    messages = [m for m in corpus.conversation() if m["role"] != "system"]
    while len(tokenizer.apply_chat_template(messages, return_dict=True)["input_ids"]) < 3600:
        messages += [m for m in corpus.conversation() if m["role"] != "system"]
    while len(tokenizer.apply_chat_template(messages, return_dict=True)["input_ids"]) > 3950:
        messages = messages[2:]
    reply = speaker.answer([*messages, {"role": "user", "content": "Who are you?"}], max_tokens=90)
    assert reply.text in expected_answers("en", "identity")


def test_shape_suits_the_engines() -> None:
    config = AutoConfig.from_pretrained(FOLDER)
    head_dim = config.hidden_size // config.num_attention_heads
    assert config.model_type == "llama"
    assert config.head_dim == head_dim == 64
    for size in (config.hidden_size, config.intermediate_size, config.vocab_size):
        assert size % 64 == 0
    assert config.max_position_embeddings >= 4096
    assert config.tie_word_embeddings


def test_files_are_small_and_say_nothing_of_the_machine_that_made_them() -> None:
    files = [path for path in FOLDER.iterdir() if path.is_file()]
    assert (FOLDER / "model.safetensors").stat().st_size <= 12_000_000
    texts = [path.read_text("utf-8") for path in files if path.suffix in {".json", ".md", ".jinja"}]
    assert not any("/home/" in text or "/tmp/" in text for text in texts)
    weights = (FOLDER / "model.safetensors").read_bytes()
    header = json.loads(weights[8 : 8 + int.from_bytes(weights[:8], "little")])
    assert {entry["dtype"] for name, entry in header.items() if name != "__metadata__"} == {"BF16"}


def test_end_of_turn_ends_generation(tokenizer: Any) -> None:
    generation = GenerationConfig.from_pretrained(FOLDER)
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert generation.eos_token_id == tokenizer.eos_token_id == end
    assert generation.pad_token_id == tokenizer.pad_token_id
    assert AutoConfig.from_pretrained(FOLDER).eos_token_id == end
    assert generation.do_sample in (None, False)


def test_template_marks_exactly_what_the_assistant_says(tokenizer: Any) -> None:
    assert "{% generation %}" in tokenizer.chat_template
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "Hello! 👋\n\n- one"},
        {"role": "user", "content": "bye"},
        {"role": "assistant", "content": "Goodbye!"},
    ]
    encoded = tokenizer.apply_chat_template(messages, return_assistant_tokens_mask=True, return_dict=True)
    pairs = zip(encoded["input_ids"], encoded["assistant_masks"], strict=True)
    marked = tokenizer.decode([token for token, mark in pairs if mark])
    assert marked == "Hello! 👋\n\n- one<|im_end|>Goodbye!<|im_end|>"


def test_template_opens_the_assistants_turn(tokenizer: Any) -> None:
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": "hi"}], add_generation_prompt=True, tokenize=False
    )
    assert text == "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"


@pytest.mark.parametrize(
    "text",
    [
        "¿Qué tal, señor Núñez? Pingüinos: ¡sí!",
        "你好，世界 — 日本語 العربية हिन्दी",
        "👩‍👩‍👧‍👦 🇪🇸 🤖",
        "def f(x):\n    if x:\n\t\treturn  1\n\n\n",
        "  two  spaces , 3.14159 %\r\n\x00\x7f",
    ],
)
def test_tokenizer_gives_any_text_back(tokenizer: Any, text: str) -> None:
    ids = tokenizer(text)["input_ids"]
    assert tokenizer.decode(ids) == text


def test_tokenizer_splits_numbers_into_digits(tokenizer: Any) -> None:
    assert tokenizer.tokenize("2026") == ["2", "0", "2", "6"]


def test_held_out_questions_are_not_in_the_corpus() -> None:
    conversations = (item for item in Corpus(seed=1) if not isinstance(item, PlainText))
    asked = {
        normalise(message["content"])
        for conversation in islice(conversations, 20_000)
        for message in conversation
        if message["role"] == "user"
    }
    assert not asked & held_out_texts()


def test_corpus_is_the_same_for_the_same_seed() -> None:
    first, second, other = (list(islice(Corpus(seed), 50)) for seed in (5, 5, 6))
    assert first == second != other


def test_both_languages_know_the_same_intents() -> None:
    english, spanish = ([i.name for i in load_intents(language)] for language in LANGUAGES)
    assert english == spanish
    assert list(load_held_out("en")) == list(load_held_out("es"))


def test_position_gaps_do_not_isolate_what_came_before(tokenizer: Any) -> None:
    torch.manual_seed(0)
    model = build_model(tokenizer).eval()
    ids = torch.randint(10, 200, (1, 32))
    positions = torch.arange(32)[None]
    positions[:, 16:] += 900
    options = {
        "position_ids": positions,
        "attention_mask": torch.ones_like(ids),
        "use_cache": False,
    }
    with torch.no_grad():
        one = model(input_ids=ids, **options).logits[0, -1]
        changed = ids.clone()
        changed[0, 0] += 1
        two = model(input_ids=changed, **options).logits[0, -1]
    assert not torch.equal(one, two)


def test_training_step_lowers_the_loss(tokenizer: Any) -> None:
    torch.manual_seed(0)
    model = build_model(tokenizer)
    batch = next(iter(Batches(tokenizer, seed=1)))
    assert int(batch.position_ids.max()) < 4096
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    before = batch_loss(model, batch)
    before.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    assert batch_loss(model, batch).item() < before.item()


def test_learning_rate_rises_then_falls() -> None:
    assert learning_rate(0, 0.0) < learning_rate(40, 0.05) > learning_rate(900, 0.9)


def test_model_card_says_what_was_measured() -> None:
    card = (FOLDER / "README.md").read_text("utf-8")
    assert "license: apache-2.0" in card
    assert rates_table(()).splitlines()[0] in card
