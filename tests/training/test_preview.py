"""How a dataset looks to a model before it is trained on."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.errors import InvalidRequest
from providers.local_folders import ModelFolder, open_model_folder
from providers.types import Message
from tests.conftest import BUNDLED
from tests.tiny_models import make_chat_model
from training.preview import preview
from training.rows import Row


@pytest.fixture(scope="module")
def starter() -> ModelFolder:
    return open_model_folder(BUNDLED / "starter")


def row(answer: str, number: int = 1, held_out: bool = False) -> Row:
    return Row((Message("user", "Hi"), Message("assistant", answer)), source=f"row {number}", held_out=held_out)


def test_the_first_rows_are_shown_as_the_model_sees_them(starter: ModelFolder) -> None:
    seen = preview([row(f"Answer {number}.", number, number == 2) for number in range(1, 10)], starter, 1024)

    assert [each.source for each in seen.rows] == ["row 1", "row 2", "row 3", "row 4", "row 5"]
    assert [each.held_out for each in seen.rows] == [False, True, False, False, False]
    assert [(piece.text, piece.learnt) for piece in seen.rows[0].pieces] == [
        ("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n", False),
        ("Answer 1.<|im_end|>", True),
    ]


def test_a_sample_may_be_larger_than_the_dataset(starter: ModelFolder) -> None:
    assert len(preview([row("x")], starter, 1024, sample=3).rows) == 1
    assert preview([row("x")], starter, 1024, sample=0).rows == ()


def test_lengths_are_counted_in_tokens(models_dir: Path) -> None:
    tiny = open_model_folder(models_dir / "tiny")
    texts = [Row(text="x" * (length - 1)) for length in (2, 3, 4, 5, 8, 9)]
    seen = preview(texts, tiny, 8)

    assert [each.tokens for each in seen.rows] == [2, 3, 4, 5, 8]
    assert seen.histogram == {2: 1, 4: 2, 8: 2, 16: 1}
    assert (seen.longest, seen.limit, seen.too_long) == (9, 8, 1)
    assert seen.learnt_tokens == 2 + 3 + 4 + 5 + 8 + 9


def test_only_what_is_learnt_counts_as_learnt(models_dir: Path) -> None:
    seen = preview([row("four"), row("x")], open_model_folder(models_dir / "tiny"), 1024)

    assert seen.learnt_tokens == len("four") + 1 + len("x") + 1


def test_the_models_context_limits_the_rows_too(tmp_path: Path) -> None:
    short = open_model_folder(make_chat_model(tmp_path / "short", context_length=64))
    seen = preview([Row(text="x" * 63), Row(text="x" * 64)], short, 1024)

    assert (seen.limit, seen.too_long) == (64, 1)


def test_a_conversation_that_the_template_refuses_gets_a_sentence(tmp_path: Path) -> None:
    folder = make_chat_model(tmp_path / "strict")
    (folder / "chat_template.jinja").write_text("{{ raise_exception('no') }}")
    with pytest.raises(InvalidRequest, match="This model's chat template cannot format a conversation of the dataset"):
        preview([row("x")], open_model_folder(folder), 1024)
