"""The guide: one text for each question, in both languages, true of the page's own help."""

from __future__ import annotations

import re

import pytest

from components.texts import text
from core.guide import answers, help_texts
from core.parameters import PARAMETERS


@pytest.mark.parametrize("language", ["en", "es"])
def test_answers_hold_the_help_of_the_page(language: str) -> None:
    for spec in PARAMETERS:
        key = f"parameter_{spec.name}_help"
        assert text(key, language) == help_texts(language)[key]
        assert any(text(key, language) in answer for answer in answers(language).values()), key


@pytest.mark.parametrize("language", ["en", "es"])
def test_answers_are_whole_short_and_begin_differently(language: str) -> None:
    texts = answers(language)
    assert not any(re.search(r"\{\w+_help\}", answer) for answer in texts.values())
    assert max(map(len, texts.values())) < 300
    beginnings = [" ".join(re.findall(r"[\w./-]+", answer)[:4]) for answer in texts.values()]
    assert len(set(beginnings)) == len(beginnings)


def test_both_languages_have_the_same_texts() -> None:
    assert list(answers("en")) == list(answers("es"))
    assert list(help_texts("en")) == list(help_texts("es"))
