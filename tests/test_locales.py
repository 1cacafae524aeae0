"""Every word that a person reads exists in every language, and none is left over."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from pathlib import Path
from string import Formatter
from typing import Any

import pytest

from components import feedback, finetune, model_panel, monitor, services
from components.models import COLUMNS
from components.texts import LANGUAGES, in_language, language_of, t, text
from core.guide import help_texts
from core.parameters import PARAMETERS
from core.settings import ROOT
from providers.sentences import say
from training.run_status import ACTIVE
from training.runs import RESUMABLE

PRODUCT = ("app.py", "cli.py", "cli_loop.py", "cli_models.py", "components", "routes", "core", "providers", "training")
KNOWN_SETS = {
    "spec.name": [spec.name for spec in PARAMETERS],
    "column": list(COLUMNS),
    "head": list(services.COLUMNS),
    "figure": list(monitor.COLUMNS),
    "heading": list(model_panel.COLUMNS),
    "option": list(model_panel.OPTIONS),
    "number": ["1", "2", "3"],
    "row.source": ["bundled", "folder", "cache", "hub", "tuned", "lm_studio", "ollama", "cloud", "server", "pool"],
    "field": list(feedback.COLUMNS),
    "choice": list(feedback.KINDS),
    "mark": list(feedback.RATINGS),
    "row.rating": ["up", "down"],
    "key": list(finetune.SETTINGS),
    "run.state": [*ACTIVE, *RESUMABLE, "finished"],
}


def locale(language: str) -> dict[str, dict[str, str]]:
    file = ROOT / "components" / "locales" / f"{language}.json"
    words: dict[str, dict[str, str]] = json.loads(file.read_text(encoding="utf-8"), object_pairs_hook=without_doubles)
    assert not words["page"].keys() & help_texts(language).keys(), "a key is in the locale and in the guide"
    words["page"] |= help_texts(language)
    return words


def without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    assert len(dict(pairs)) == len(pairs), "a key occurs twice"
    return dict(pairs)


def placeholders(template: str) -> list[str]:
    return sorted(name for _, name, _, _ in Formatter().parse(template) if name is not None)


def calls_of(*names: str) -> Iterator[tuple[Path, ast.expr]]:
    """Yield the first argument of every call of these functions in the product."""
    for part in PRODUCT:
        place = ROOT / part
        for file in [place] if place.is_file() else sorted(place.rglob("*.py")):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call) and ast.unparse(node.func).removeprefix("texts.") in names:
                    yield file, node.args[0]


def keys_of(argument: ast.expr) -> list[str]:
    """Return the keys that an argument of `t` or `text` can be."""
    if isinstance(argument, ast.Constant):
        return [str(argument.value)]
    assert isinstance(argument, ast.JoinedStr), f"{ast.unparse(argument)} is no literal"
    keys = [""]
    for part in argument.values:
        if isinstance(part, ast.FormattedValue):
            values = KNOWN_SETS[ast.unparse(part.value)]
        else:
            assert isinstance(part, ast.Constant)
            values = [str(part.value)]
        keys = [key + value for key in keys for value in values]
    return keys


def sentences() -> set[str]:
    found = set()
    for file, argument in calls_of("say"):
        if file.name == "sentences.py":
            continue
        assert isinstance(argument, ast.Constant), f"{file}: {ast.unparse(argument)} is no literal"
        found.add(str(argument.value))
    return found


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_language_has_the_same_keys_with_the_same_placeholders(language: str) -> None:
    words, english = locale(language)["page"], locale("en")["page"]

    assert words.keys() == english.keys()
    for key, template in english.items():
        assert words[key].strip(), key
        assert placeholders(words[key]) == placeholders(template), key


def test_every_key_that_the_page_uses_exists_and_none_is_left_over() -> None:
    used = {key for _, argument in calls_of("t", "text") for key in keys_of(argument)}

    assert used - locale("en")["page"].keys() == set()
    assert locale("en")["page"].keys() - used == set()


@pytest.mark.parametrize("language", [language for language in LANGUAGES if language != "en"])
def test_every_sentence_is_translated_and_no_translation_is_stale(language: str) -> None:
    translated = locale(language)["sentences"]

    assert sentences() - translated.keys() == set()
    assert translated.keys() - sentences() == set()
    for template, words in translated.items():
        assert set(placeholders(words)) == set(placeholders(template)), template
        assert words.strip() != template.strip()
        assert words.rstrip()[-1:] == template.rstrip()[-1:] or template[-1] not in ".!?", template


def test_sentences_are_sentences() -> None:
    for template in sentences():
        assert template.endswith((".", "}")), template


def test_an_unknown_key_is_found_at_once() -> None:
    with pytest.raises(KeyError):
        t("no such key")
    with pytest.raises(KeyError):
        text("no such key", "en")


def test_a_sentence_comes_in_the_language_and_in_english_where_there_is_none() -> None:
    known = say("The message is empty.")

    assert in_language(known, "en") == "The message is empty."
    assert in_language(known, "es") == locale("es")["sentences"]["The message is empty."]
    assert in_language(say("Never translated: {what}.", what="tea"), "es") == "Never translated: tea."


def test_nobody_asking_is_english() -> None:
    assert language_of(None) == "en"
