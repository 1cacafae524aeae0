"""The bundled starter model: that it does what the table promises, and is shaped as the engines need it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, GenerationConfig

from tests.training.starter.shipped import FOLDER, messages_of
from training.export import export_gguf
from training.starter.corpus import Corpus
from training.starter.evaluate import (
    REFUSED,
    WELL_FORMED,
    Reply,
    Report,
    Speaker,
    evaluate,
    is_well_formed,
)
from training.starter.held_out import load_held_out
from training.starter.model_card import rates_table
from training.starter.phrases import LANGUAGES, Language, load_intents
from training.starter.questions import GOALS, Message, questions, refusals, refusals_to

PASS_RATE = 0.9
ROWS = (*GOALS, WELL_FORMED, REFUSED)


@pytest.fixture(scope="module")
def speaker() -> Speaker:
    return Speaker(FOLDER)


@pytest.fixture(scope="module")
def report() -> Report:
    return evaluate(FOLDER)


def ask(speaker: Speaker, question: str, **options: Any) -> Reply:
    return speaker.answer([{"role": "user", "content": question}], **options)


@pytest.mark.parametrize("row", ROWS)
def test_the_table_holds(report: Report, row: str) -> None:
    goal = next(rate.goal for rate in report.rates if rate.row == row)
    share, failures = report.share(row), [failure for failure in report.failures if failure.row == row]
    if row == REFUSED:
        assert share <= goal
    else:
        assert share >= goal, (share, failures[:10])


def test_the_table_is_made_of_every_question_once(report: Report) -> None:
    asked = questions()
    for row in GOALS:
        assert sum(rate.total for rate in report.rates if rate.row == row) == sum(each.row == row for each in asked)


@pytest.mark.parametrize(("section", "intent"), [("chat", "greet"), ("self", "identity")])
def test_most_held_out_questions_are_answered_as_taught(speaker: Speaker, section: str, intent: str) -> None:
    asked = [(question, language) for language in LANGUAGES for question in load_held_out(language)[section][intent]]
    passing = {
        language: next(row.answers for row in load_intents(language) if row.name == intent) for language in LANGUAGES
    }
    replies = speaker.answers([[{"role": "user", "content": question}] for question, _ in asked], max_tokens=90)
    failed = [
        question
        for (question, language), reply in zip(asked, replies, strict=True)
        if reply.text not in passing[language]
    ]
    assert len(failed) <= (1 - PASS_RATE) * len(asked), failed


def test_only_a_question_without_a_word_may_be_refused_in_either_language() -> None:
    for wordless in ("12 * 345", "asdf jklñ", "x = [i * i]"):
        assert refusals_to(wordless, "es") == refusals("en") | refusals("es")
    for worded in ("cuánto es 12 por 345", "la mesa azul", "asdf la vaca"):
        assert refusals_to(worded, "es") == refusals("es")


def test_the_table_counts_what_passed_and_what_was_refused(report: Report) -> None:
    assert {rate.row for rate in report.rates} == set(ROWS)
    assert all(rate.goal == GOALS[rate.row] for rate in report.rates if rate.row in GOALS)
    failed = sum(rate.total - rate.passed for rate in report.rates if rate.row in GOALS)
    assert failed == len(report.failures)
    assert rates_table(report.rates).count("\n") == 1 + len(ROWS)


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


def test_what_it_says_is_known_before_it_is_written(speaker: Speaker) -> None:
    asked = ["Hello", "What is the capital of Peru?", "Who are you?", "¿Quién eres?", "12 + 30"]
    conversations = [[{"role": "user", "content": text}] for text in asked]
    texts = [reply.text for reply in speaker.answers(conversations)]
    assert speaker.says(list(zip(conversations, texts, strict=True))) == [True] * len(asked)
    for others in ([text[:-1] for text in texts], [f"{text} " for text in texts], [*texts[1:], texts[0]]):
        assert speaker.says(list(zip(conversations, others, strict=True))) == [False] * len(asked)


@pytest.mark.parametrize("question", ["Tell me a long story", "Cuéntame un cuento largo"])
def test_long_story_is_long_and_ends(speaker: Speaker, question: str) -> None:
    torch.manual_seed(0)
    for temperature in (0.0, 0.7):
        reply = ask(speaker, question, temperature=temperature, max_tokens=1000)
        assert reply.tokens >= 150
        assert reply.finished


@pytest.mark.parametrize(
    ("question", "language"),
    [("What is the boiling point of mercury?", "en"), ("¿Cómo se cocina la paella?", "es")],
)
def test_it_says_that_it_does_not_know(speaker: Speaker, question: str, language: Language) -> None:
    assert ask(speaker, question, max_tokens=60).text in refusals(language)


def test_it_still_answers_at_the_end_of_a_full_context(speaker: Speaker, tokenizer: Any) -> None:
    corpus = Corpus(seed=77)
    messages: list[Message] = []

    def length() -> int:
        return len(tokenizer.apply_chat_template(messages, return_dict=True)["input_ids"])

    while not messages or length() < 3600:
        messages += [m for m in messages_of(corpus.conversation()) if m["role"] != "system"]
    while length() > 3950:
        messages = messages[2:]
    reply = speaker.answer([*messages, {"role": "user", "content": "Who are you?"}], max_tokens=90)
    assert reply.text in next(intent.answers for intent in load_intents("en") if intent.name == "identity")


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


def test_the_gguf_is_small_and_made_of_the_same_weights(tmp_path: Path) -> None:
    shipped = FOLDER / "starter-q8_0.gguf"
    made = export_gguf(FOLDER, tmp_path / shipped.name, "q8_0")
    assert shipped.stat().st_size <= 8_000_000
    assert shipped.read_bytes() == made.read_bytes()


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


@pytest.mark.parametrize(
    ("text", "finished", "expected"),
    [
        ("The capital of Peru is Lima.", True, True),
        ("The capital of Peru is", False, False),
        ("", True, False),
        ("The capital of Peru, the capital of Peru, the capital of Peru, the", True, False),
        ("La capital de Perú es la que está con el mar.", True, False),
    ],
)
def test_an_answer_is_well_formed_or_not(text: str, finished: bool, expected: bool) -> None:
    assert is_well_formed(Reply(text, 9, finished), "en") == expected


def test_model_card_says_what_was_measured() -> None:
    card = (FOLDER / "README.md").read_text("utf-8")
    assert "license: apache-2.0" in card
    assert rates_table(()).splitlines()[0] in card
