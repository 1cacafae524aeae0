"""What a GGUF file says of itself, read from its first bytes without its vocabulary and its weights.

Source: the GGUF specification, docs/gguf.md of https://github.com/ggml-org/ggml; the pooling types are llama.cpp's
`llama_pooling_type` (include/llama.h).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
NUMBERS = {4: "<I", 5: "<i", 10: "<Q", 11: "<q"}
STRING, LIST = 8, 9
LONGEST_TEXT = 100_000
MOST_KEYS = 1_000
RANK = 4
ENCODERS = ("bert", "t5encoder", "gemma-embedding")


@dataclass(frozen=True)
class GgufMetadata:
    """The architecture, the context that it was trained with, and how its states become one vector, where they do."""

    architecture: str = ""
    context_length: int | None = None
    pooling: int | None = None

    @property
    def embeds(self) -> bool:
        """Whether the model is made for embeddings, and so not for conversations."""
        if self.pooling is not None:
            return 0 < self.pooling < RANK
        return any(encoder in self.architecture for encoder in ENCODERS)


def read_metadata(path: Path) -> GgufMetadata:
    """Read what a file says; a file that cannot be read says nothing."""
    try:
        stat = path.stat()
        return _read(path, stat.st_mtime_ns, stat.st_size)
    except OSError:
        return GgufMetadata()


@lru_cache(maxsize=4096)
def _read(path: Path, changed: int, size: int) -> GgufMetadata:
    found: dict[str, str | int] = {}
    try:
        with path.open("rb") as file:
            _, version, _, count = struct.unpack("<4sIQQ", file.read(24))
            for _ in range(min(count, MOST_KEYS) if version >= 2 else 0):
                key, kind = _text(file), _number(file, "<I")
                if key.startswith("tokenizer."):
                    break  # By convention all that is about the model comes before its vocabulary.
                if kind == STRING:
                    found[key] = _text(file)
                elif kind in NUMBERS:
                    found[key] = _number(file, NUMBERS[kind])
                else:
                    _skip(file, kind)
    except (OSError, struct.error, UnicodeDecodeError, ValueError):
        pass  # What came before the broken place counts.
    architecture = str(found.get("general.architecture", ""))
    context, pooling = found.get(f"{architecture}.context_length"), found.get(f"{architecture}.pooling_type")
    return GgufMetadata(
        architecture=architecture,
        context_length=context if isinstance(context, int) and context > 0 else None,
        pooling=pooling if isinstance(pooling, int) else None,
    )


def _skip(file: BinaryIO, kind: int) -> None:
    if kind in SIZES:
        file.seek(SIZES[kind], 1)
        return
    if kind != LIST:
        raise ValueError("a kind of value that nobody knows")
    inner, count = _number(file, "<I"), _number(file, "<Q")
    if inner in SIZES:
        file.seek(SIZES[inner] * count, 1)
    elif inner == STRING and count <= MOST_KEYS:
        for _ in range(count):
            _text(file)
    else:
        raise ValueError("a list that is not skipped")


def _number(file: BinaryIO, form: str) -> int:
    return int(struct.unpack(form, file.read(struct.calcsize(form)))[0])


def _text(file: BinaryIO) -> str:
    length = _number(file, "<Q")
    if length > LONGEST_TEXT:
        raise ValueError("a text that nobody wrote")
    return file.read(length).decode()
