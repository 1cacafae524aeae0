"""Models that are written down: what they are asked by, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from core.configuration import ConfigurationError, read_file
from core.model_entries import ModelEntry
from core.settings import CATALOGUE


@pytest.mark.parametrize(
    ("entry", "model_id"),
    [
        ({"name": "Qwen/Qwen3-0.6B"}, "transformers/Qwen/Qwen3-0.6B"),
        ({"name": "mine", "path": "someone/theirs"}, "transformers/someone/theirs"),
        ({"name": "mistral:7b", "type": "ollama"}, "ollama/mistral:7b"),
        ({"name": "x", "model_type": "claude", "local": False, "path": "claude-4"}, "anthropic/claude-4"),
        ({"name": "g", "path": "/models/g.Q4_K_M.gguf"}, "llama_cpp//models/g.Q4_K_M.gguf"),
    ],
)
def test_an_entry_names_its_model(entry: dict[str, Any], model_id: str) -> None:
    assert ModelEntry.model_validate(entry).model_id == model_id


def test_a_folder_is_asked_by_its_whole_path(tmp_path: Path) -> None:
    assert ModelEntry(name="mine", path=str(tmp_path)).model_id == f"transformers/{tmp_path}"


@pytest.mark.parametrize(
    "entry",
    [
        {"name": ""},
        {"name": "x", "parameters": -1},
        {"name": "x", "context_length": 0},
        {"name": "x", "trust_remote_code": True},
        {"name": "x", "local": False, "type": "mistral"},
        {"name": "x", "local": False, "type": "openai", "api_key_env": "ANTHROPIC_API_KEY"},
        {"name": "x", "api_key_env": "OPENAI_API_KEY"},
    ],
)
def test_what_does_not_belong_together_is_refused_with_its_place(tmp_path: Path, entry: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ModelEntry.model_validate(entry)
    (tmp_path / "config.json").write_text(json.dumps({"models": [entry]}))
    with pytest.raises(ConfigurationError, match=r"config.json, models.0"):
        read_file(tmp_path / "config.json")


@pytest.mark.parametrize("options", [{"precision": "fp7"}, {"context_length": 1}, {"threads": 4}, []])
def test_load_options_are_checked_as_those_of_the_page(tmp_path: Path, options: Any) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"load_options": {"transformers/starter": options}}))
    with pytest.raises(ConfigurationError, match=r"config.json, load_options.transformers/starter"):
        read_file(tmp_path / "config.json")


def test_the_catalogue_says_what_a_person_must_know() -> None:
    entries = read_file(CATALOGUE).models

    assert len({entry.model_id for entry in entries}) == len(entries) >= 15
    assert all(entry.note and entry.note_es and entry.context_length for entry in entries)
    assert all(entry.license and entry.languages and entry.parameters for entry in entries if entry.local)
    assert {"tiny", "small", "middle"} <= {entry.size for entry in entries}
