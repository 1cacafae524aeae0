"""The words in each language, from `locales/*.json`: `page` by key, `sentences` by their English template.

The help of parameters and settings comes from `core/guide`, where the starter model's answers about them come from too.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import gradio as gr

from core.guide import help_texts
from providers.sentences import Sentence

LANGUAGES = ("en", "es")
COOKIE = "simpleia_language"


@cache
def _locale(language: str) -> Mapping[str, Mapping[str, str]]:
    file = Path(__file__).parent / "locales" / f"{language}.json"
    locale: dict[str, dict[str, str]] = json.loads(file.read_text(encoding="utf-8"))
    locale["page"] |= help_texts(language)
    return locale


I18N = gr.I18n(**{language: dict(_locale(language)["page"]) for language in LANGUAGES})


def t(key: str) -> Any:
    """Return the text `key` for the browser to put into its own language. Raises KeyError for an unknown key."""
    _locale(LANGUAGES[0])["page"][key]
    return I18N(key)


def text(key: str, language: str, **values: object) -> str:
    """Return the text `key` in `language`, filled with `values`."""
    return _locale(language)["page"][key].format(**values)


def in_language(sentence: Sentence, language: str) -> str:
    """Return `sentence` in `language`, sentences within it too; English where there is no translation."""
    values = {
        name: in_language(value, language) if isinstance(value, Sentence) else value
        for name, value in sentence.values.items()
    }
    template = _locale(language)["sentences"].get(sentence.template, sentence.template)
    return Sentence(sentence.template, values).in_words(template)


def language_of(request: gr.Request | None) -> str:
    """Return the language that the person chose, else the one their browser asks for."""
    if request is None:
        return LANGUAGES[0]
    chosen = str(request.cookies.get(COOKIE, ""))
    if chosen in LANGUAGES:
        return chosen
    wanted = [part.split(";")[0].strip()[:2].lower() for part in request.headers.get("accept-language", "").split(",")]
    return next((language for language in wanted if language in LANGUAGES), LANGUAGES[0])
