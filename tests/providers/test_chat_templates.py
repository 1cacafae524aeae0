"""The plain formats for models that came without one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from providers.chat_templates import DIALOGUE, PLAIN, plain_template
from providers.local_folders import open_model_folder
from providers.local_model import LocalModel
from providers.types import Finished, LoadOptions, Message, Parameters
from tests.providers.test_transformers_local import answer_of

TURNS = [
    Message("system", "Be kind."),
    Message("user", "Hello"),
    Message("assistant", "Hi!"),
    Message("user", "Who are you?"),
]


def rendered(template: str, messages: list[Message]) -> str:
    from transformers.utils.chat_template_utils import render_jinja_template

    conversation = [{"role": message.role, "content": message.content} for message in messages]
    texts, _ = render_jinja_template(
        [conversation], chat_template=template, add_generation_prompt=True, eos_token="<eos>"
    )
    return str(texts[0])


def test_the_plain_format_names_who_speaks() -> None:
    assert rendered(PLAIN, TURNS) == ("Be kind.\n\nUser: Hello\nAssistant: Hi!\nUser: Who are you?\nAssistant:")


def test_the_dialogue_format_ends_each_turn() -> None:
    assert rendered(DIALOGUE, TURNS[1:]) == "Hello<eos>Hi!<eos>Who are you?<eos>"


@pytest.mark.parametrize(
    ("config", "template"),
    [
        ({}, PLAIN),
        ({"task_specific_params": None}, PLAIN),
        ({"task_specific_params": {"text-generation": {}}}, PLAIN),
        ({"task_specific_params": {"conversational": {"max_length": 1000}}}, DIALOGUE),
    ],
)
def test_the_config_tells_which(config: dict[str, Any], template: str) -> None:
    assert plain_template(config)[0] == template
    assert plain_template(config)[1] == (("\nUser:",) if template == PLAIN else ())


def test_a_model_without_a_format_gets_the_plain_one_with_a_notice(models_dir: Path) -> None:
    for name, prompt in (("plain", "User: Hello\nAssistant:"), ("dialogue", "Hello\N{NULL}")):
        model = LocalModel(name, open_model_folder(models_dir / name), LoadOptions("cpu"))
        events = answer_of(model, (Message("user", "Hello"),), Parameters(max_tokens=5))

        assert "no chat format of its own" in str(model.info.notices[0].sentence)
        assert model.count_tokens([Message("user", "Hello")]) == len(prompt)
        assert isinstance(events[-1], Finished)


def test_a_model_with_a_format_keeps_it(models_dir: Path) -> None:
    model = LocalModel("tiny", open_model_folder(models_dir / "tiny"), LoadOptions("cpu"))

    assert model.info.notices == ()
