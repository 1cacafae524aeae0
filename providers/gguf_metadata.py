"""What a GGUF file says of itself, read from its first bytes without its vocabulary and its weights.

Source: the GGUF specification, docs/gguf.md of https://github.com/ggml-org/ggml; the pooling types are llama.cpp's
`llama_pooling_type` (include/llama.h).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from providers.weight_headers import gguf_header

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
    try:
        # By convention all that is about the model comes before its vocabulary.
        found = gguf_header(path, until="tokenizer.")
    except ValueError:
        return GgufMetadata()
    architecture = str(found.get("general.architecture", ""))
    context, pooling = found.get(f"{architecture}.context_length"), found.get(f"{architecture}.pooling_type")
    return GgufMetadata(
        architecture=architecture,
        context_length=context if isinstance(context, int) and context > 0 else None,
        pooling=pooling if isinstance(pooling, int) else None,
    )
