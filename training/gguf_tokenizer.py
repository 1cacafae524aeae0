"""A byte-level BPE tokenizer as GGUF holds it: tokens, their kinds, merges, and how text is cut before the merges.

Source: the GGUF specification (docs/gguf.md of the ggml repository), "Tokenizer".
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.errors import InvalidRequest
from providers.sentences import say

GENERATION_MARKS = re.compile(r"\{%-?\s*(end)?generation\s*-?%\}")
LLAMA_3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
QWEN_2 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|"


@dataclass(frozen=True)
class GgufTokenizer:
    """What is written of a tokenizer. `kinds` are gguf's TokenType values, one for each token."""

    pre: str
    tokens: tuple[str, ...]
    kinds: tuple[int, ...]
    merges: tuple[str, ...]
    special: dict[str, int]
    add_bos: bool
    chat_template: str | None


def read_tokenizer(folder: Path, vocabulary: int) -> GgufTokenizer:
    """Read a transformers tokenizer for a model of `vocabulary` tokens.

    Raises InvalidRequest for one that llama.cpp would cut into other tokens.
    """
    import gguf

    data = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    if data["model"].get("type") != "BPE" or data["model"].get("byte_fallback"):
        raise _unknown(str(data["model"].get("type")))
    if not data["model"]["merges"]:
        raise _unknown("BPE without merges")
    added = {token["content"]: token for token in data.get("added_tokens") or ()}
    ids = dict(data["model"]["vocab"]) | {name: token["id"] for name, token in added.items()}
    names = {number: name for name, number in ids.items()}
    kinds = []
    for number in range(vocabulary):
        name = names.get(number)
        if name is None:
            kinds.append(gguf.TokenType.UNUSED)
        elif name in added:
            kinds.append(gguf.TokenType.CONTROL if added[name]["special"] else gguf.TokenType.USER_DEFINED)
        else:
            kinds.append(gguf.TokenType.NORMAL)
    special = {role: ids[name] for role in ("bos", "eos", "pad") if (name := _name(config.get(f"{role}_token"))) in ids}
    return GgufTokenizer(
        pre=_pre_tokenizer(data.get("pre_tokenizer")),
        tokens=tuple(names.get(number, f"[UNUSED{number}]") for number in range(vocabulary)),
        kinds=tuple(int(kind) for kind in kinds),
        merges=tuple(merge if isinstance(merge, str) else " ".join(merge) for merge in data["model"]["merges"]),
        special=special,
        add_bos=bool(config.get("add_bos_token", False)),
        chat_template=_template(folder, config),
    )


def _name(token: Any) -> str:
    return str(token["content"] if isinstance(token, dict) else token)


def _pre_tokenizer(data: Any) -> str:
    """Return llama.cpp's name for the way in which text is cut before the merges."""
    parts = data["pretokenizers"] if data and data["type"] == "Sequence" else [data or {}]
    kinds = [part.get("type") for part in parts]
    byte_level = parts[-1] if kinds[-1] == "ByteLevel" else {}
    if byte_level.get("add_prefix_space"):
        raise _unknown("ByteLevel with a prefix space")
    if kinds == ["ByteLevel"] and byte_level.get("use_regex", True):
        return "gpt-2"
    if kinds == ["Digits", "ByteLevel"] and parts[0].get("individual_digits") and byte_level.get("use_regex", True):
        return "smollm"
    if kinds == ["Split", "ByteLevel"]:
        pattern = str(parts[0]["pattern"].get("Regex", ""))
        if pattern.startswith(LLAMA_3):
            return "llama-bpe"
        if pattern.startswith(QWEN_2):
            return "qwen2"
    raise _unknown(", ".join(str(kind) for kind in kinds))


def _template(folder: Path, config: dict[str, Any]) -> str | None:
    file = folder / "chat_template.jinja"
    template = file.read_text(encoding="utf-8") if file.is_file() else config.get("chat_template")
    return GENERATION_MARKS.sub("", template) if isinstance(template, str) else None


def _unknown(kind: str) -> InvalidRequest:
    return InvalidRequest(
        say("The tokenizer of this model ({kind}) is none that can be written as GGUF here.", kind=kind),
        say("Convert it with llama.cpp's own convert_hf_to_gguf.py."),
    )
