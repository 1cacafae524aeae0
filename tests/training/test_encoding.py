"""What a model learns of a row: the last answer and the token that ends it, after the prompt that it is asked with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from core.errors import InvalidRequest
from providers.local_folders import open_model_folder
from providers.local_model import LocalModel
from providers.types import LoadOptions, Message
from tests.conftest import BUNDLED
from training.encoding import IGNORED, Encoded, encode, load_tokenizer, pieces
from training.rows import Row

TALK = (
    Message("system", "Be brief."),
    Message("user", "Hola, ¿qué tal?"),
    Message("assistant", "Bien."),
    Message("user", "What is\n\ntea? 👋"),
)
ANSWER = "A drink.\n\n- hot 👋"
MODELS = ("starter", "tiny", "plain", "dialogue")


def folder_of(name: str, models_dir: Path) -> Path:
    return (BUNDLED if name == "starter" else models_dir) / name


def tokenizer_in(folder: Path) -> Any:
    return load_tokenizer(folder, json.loads((folder / "config.json").read_text()))


@pytest.fixture(params=MODELS)
def folder(request: pytest.FixtureRequest, models_dir: Path) -> Path:
    return folder_of(request.param, models_dir)


@pytest.fixture
def tokenizer(folder: Path) -> Any:
    return tokenizer_in(folder)


def row_of(*talk: Message, answer: str = ANSWER) -> Row:
    return Row((*talk, Message("assistant", answer)))


def read_and_learnt(encoded: Encoded) -> tuple[list[int], list[int]]:
    """Return the tokens before the first that is learnt, and the others."""
    first = encoded.learnt.index(True)
    return list(encoded.ids[:first]), list(encoded.ids[first:])


def test_exactly_the_last_answer_and_the_end_token_are_learnt(tokenizer: Any) -> None:
    encoded = encode(row_of(*TALK), tokenizer)
    read, learnt = read_and_learnt(encoded)

    assert set(encoded.learnt[len(read) :]) == {True}
    assert learnt[-1] == tokenizer.eos_token_id
    assert tokenizer.eos_token_id not in learnt[:-1]
    assert tokenizer.decode(learnt[:-1]).strip() == ANSWER
    assert ANSWER not in tokenizer.decode(read)
    assert "Bien." in tokenizer.decode(read)


@pytest.mark.parametrize("talk", [TALK[1:2], TALK[1:], TALK])
def test_the_prompt_is_what_the_model_is_asked_with(folder: Path, tokenizer: Any, talk: tuple[Message, ...]) -> None:
    read, _ = read_and_learnt(encode(row_of(*talk), tokenizer))
    model = LocalModel(folder.name, open_model_folder(folder), LoadOptions("cpu"))

    assert read == model._prompt(talk)["input_ids"][0].tolist()
    assert len(read) == model.count_tokens(talk)


def test_the_labels_are_the_tokens_that_are_learnt() -> None:
    assert Encoded((5, 6, 7), (False, True, True)).labels == [IGNORED, 6, 7]


@pytest.mark.parametrize("answer", ["x", "x\n", "x\n\n", " x", "ñ", "\tx"])
def test_the_end_token_comes_once_and_right_after_the_answer(tokenizer: Any, answer: str) -> None:
    _, learnt = read_and_learnt(encode(row_of(TALK[1], answer=answer), tokenizer))

    assert learnt.count(tokenizer.eos_token_id) == 1
    assert learnt[-1] == tokenizer.eos_token_id
    assert tokenizer.decode(learnt[:-1]).strip() == answer.strip()


def test_the_starter_learns_what_its_template_marks() -> None:
    tokenizer = tokenizer_in(BUNDLED / "starter")
    row = row_of(*TALK)
    encoded = encode(row, tokenizer)
    listed = [{"role": message.role, "content": message.content} for message in row.messages]
    whole = tokenizer.apply_chat_template(listed, return_dict=True)["input_ids"]

    assert list(encoded.ids) == whole[: len(encoded.ids)]
    assert tokenizer.decode(whole[len(encoded.ids) :]) == "\n"


def test_a_model_without_a_format_learns_the_plain_one(models_dir: Path) -> None:
    tokenizer = tokenizer_in(models_dir / "plain")
    encoded = encode(row_of(TALK[1], answer="Bien."), tokenizer)

    assert [(piece.text, piece.learnt) for piece in pieces(encoded, tokenizer)] == [
        ("User: Hola, ¿qué tal?\nAssistant:", False),
        (" Bien.<|im_end|>", True),
    ]


def test_a_text_is_learnt_whole_with_the_end_token(tokenizer: Any) -> None:
    encoded = encode(Row(text="Verde viento. 👋"), tokenizer)

    assert all(encoded.learnt)
    assert encoded.labels == list(encoded.ids)
    assert encoded.ids[-1] == tokenizer.eos_token_id
    assert tokenizer.decode(encoded.ids[:-1]) == "Verde viento. 👋"


def test_a_tokenizer_without_an_end_token_gets_none(models_dir: Path) -> None:
    tokenizer = tokenizer_in(models_dir / "slow")
    text = encode(Row(text="Verde."), tokenizer)
    _, learnt = read_and_learnt(encode(row_of(TALK[1], answer="Bien."), tokenizer))

    assert tokenizer.eos_token_id is None
    assert tokenizer.decode(text.ids) == "Verde."
    assert tokenizer.decode(learnt).startswith("Bien.")


def test_a_template_that_rewrites_what_was_said_still_learns_the_answer(models_dir: Path) -> None:
    """Templates of thinking models open the answer otherwise than they repeat it."""
    tokenizer = tokenizer_in(models_dir / "tiny")
    tokenizer.chat_template = (
        "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}<|im_end|>{% endfor %}"
        "{% if add_generation_prompt %}assistant: <think></think>{% endif %}"
    )
    read, learnt = read_and_learnt(encode(row_of(TALK[1], answer="Bien."), tokenizer))

    assert tokenizer.decode(read).endswith("assistant: <think></think>")
    assert tokenizer.decode(learnt) == "Bien.<|im_end|>"


def test_a_template_that_refuses_a_conversation_gets_a_sentence(models_dir: Path) -> None:
    tokenizer = tokenizer_in(models_dir / "tiny")
    tokenizer.chat_template = "{{ raise_exception('no system role') }}"
    with pytest.raises(InvalidRequest) as refused:
        encode(row_of(*TALK), tokenizer)

    assert str(refused.value) == (
        "This model's chat template cannot format a conversation of the dataset. "
        "Leave out the system prompt, or choose another model."
    )


def test_pieces_are_the_whole_row(tokenizer: Any) -> None:
    encoded = encode(row_of(*TALK), tokenizer)
    shown = pieces(encoded, tokenizer)

    assert [piece.learnt for piece in shown] == [False, True]
    assert "".join(piece.text for piece in shown) == tokenizer.decode(encoded.ids)
