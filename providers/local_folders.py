"""Model folders on this machine: finding them, and refusing what is no model or would run foreign code."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from providers.errors import ModelNotFound, ProviderError, Rejected
from providers.sentences import say

PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
CHAT_ARCHITECTURES = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")
MAX_CONFIG_BYTES = 1_000_000
HUB_FILES = ("*.safetensors", "*.json", "*.jinja", "*.model", "merges.txt", "vocab.txt")


@dataclass(frozen=True)
class ModelFolder:
    """A folder that holds a transformers model in safetensors; sizes in bytes, `context_length` in tokens."""

    path: Path
    size_bytes: int
    context_length: int
    config: dict[str, Any]
    weights: tuple[Path, ...]


def open_model_folder(path: Path) -> ModelFolder:
    """Check `path` without importing transformers. Raises ModelNotFound with the reason when it cannot be used."""
    config = _read_config(path)
    weights = _weight_files(path)
    if not weights:
        if any(file for pattern in PICKLES for file in path.glob(pattern)):
            raise ModelNotFound(
                say(
                    "The folder {folder} holds its weights only as pickle files, which can run foreign code.",
                    folder=path.name,
                ),
                provider="transformers",
                hint=say("Convert them to safetensors, or choose a model that has them."),
            )
        raise ModelNotFound(
            say("The folder {folder} holds no safetensors weights.", folder=path.name),
            provider="transformers",
            hint=say("Download the model again, with its *.safetensors files."),
        )
    declared = config.get("architectures")
    architectures = [str(name) for name in declared] if isinstance(declared, list) else []
    if architectures and not any(name.endswith(CHAT_ARCHITECTURES) for name in architectures):
        raise ModelNotFound(
            say(
                "The model in {folder} does not write text: its architecture is {architecture}.",
                folder=path.name,
                architecture=architectures[0][:100],
            ),
            provider="transformers",
            hint=say("Choose a model for text generation (…ForCausalLM)."),
        )
    return ModelFolder(
        path=path,
        size_bytes=sum(file.stat().st_size for file in path.glob("*.safetensors") if file.is_file()),
        context_length=_context_length(config),
        config=config,
        weights=weights,
    )


def folder_on_the_hub(name: str, config: dict[str, Any]) -> ModelFolder:
    """Describe a model that is not on this machine yet, by its configuration."""
    return ModelFolder(Path(name), 0, _context_length(config), config, ())


def is_whole(path: Path) -> bool:
    """Say whether a folder has all its weights: a download that was cut off has some of them."""
    try:
        index = json.loads((path / "model.safetensors.index.json").read_text(encoding="utf-8"))
        return all((path / name).is_file() for name in set(index["weight_map"].values()))
    except FileNotFoundError:
        return any(file for pattern in ("*.safetensors", *PICKLES) for file in path.glob(pattern))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def remove_folder(path: Path) -> None:
    """Delete a model's folder, or the link to it. Raises ProviderError."""
    try:
        if path.is_symlink():
            path.unlink()
        else:
            shutil.rmtree(path)
    except OSError as error:
        raise ProviderError(
            say("{name} could not be deleted: {reason}.", name=path.name, reason=error.strerror or "unknown"),
            hint=say("Look at the rights of its folder."),
        ) from error


def lies_in(path: Path, folder: Path) -> bool:
    """Say whether a file or folder, or the link to it, is somewhere in `folder`, whatever its path looks like."""
    place = os.path.normpath(path.parent.resolve() / path.name)  # Its own link is not followed: that is what goes.
    return folder.resolve() in Path(place).parents


def not_ours(name: str) -> Rejected:
    """Return the error for a model that is not simpleIA's to delete."""
    return Rejected(
        say("{name} is not in simpleIA's folder of models, and is not deleted.", name=name),
        hint=say("Delete it where it came from."),
    )


def model_folders_under(directory: Path) -> Iterator[tuple[str, Path]]:
    """Yield (name, folder) for each folder with a config.json, one or two levels down, as in `owner/name`."""
    for pattern in ("*/config.json", "*/*/config.json"):
        for config in sorted(directory.glob(pattern)):
            yield config.parent.relative_to(directory).as_posix(), config.parent


def _weight_files(path: Path) -> tuple[Path, ...]:
    """Return the files that transformers reads: some folders hold the same weights a second time, in another cut."""
    for pattern in ("model.safetensors", "model-*-of-*.safetensors", "*.safetensors"):
        if files := [file for file in sorted(path.glob(pattern)) if file.is_file()]:
            return tuple(files)
    return ()


def _read_config(path: Path) -> dict[str, Any]:
    file = path / "config.json"
    if not file.is_file():
        raise ModelNotFound(
            say("The folder {folder} is no model: it has no config.json.", folder=path.name),
            provider="transformers",
            hint=say("Point to a folder as transformers saves it: config.json, tokenizer and *.safetensors."),
        )
    try:
        if file.stat().st_size > MAX_CONFIG_BYTES:
            raise ValueError("config.json is too large")
        config = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(config, dict):
            raise ValueError("config.json is not an object")
    except (OSError, ValueError, RecursionError) as error:
        raise ModelNotFound(
            say("The config.json in {folder} cannot be read.", folder=path.name),
            provider="transformers",
            hint=say("Download the model again."),
        ) from error
    return config


def _context_length(config: dict[str, Any]) -> int:
    text = config.get("text_config")
    for part in (config, text if isinstance(text, dict) else {}):
        for key in ("max_position_embeddings", "n_positions", "n_ctx", "max_sequence_length", "seq_length"):
            if isinstance(part.get(key), int) and part[key] > 0:
                return int(part[key])
    return 2048
