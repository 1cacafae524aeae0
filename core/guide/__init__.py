"""What simpleIA says about itself: a text for each question and language, for the page's help and the starter."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType


@cache
def help_texts(language: str) -> Mapping[str, str]:
    """Return the one-line help of each parameter and setting, by its key in the page."""
    return MappingProxyType(_read(language)["help"])


@cache
def answers(language: str) -> Mapping[str, str]:
    """Return the answer to each question about simpleIA, by the question's name, with the help texts filled in."""
    texts = help_texts(language)
    return MappingProxyType({name: _filled(answer, texts) for name, answer in _read(language)["answers"].items()})


def _filled(answer: str, texts: Mapping[str, str]) -> str:
    for name, text in texts.items():
        answer = answer.replace(f"{{{name}}}", text)
    return answer


@cache
def _read(language: str) -> dict[str, dict[str, str]]:
    file = Path(__file__).parent / f"{language}.toml"
    return tomllib.loads(file.read_text(encoding="utf-8"))
