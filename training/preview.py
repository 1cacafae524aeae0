"""How a dataset looks to a model: a sample after its chat template, and how long the rows are in its tokens."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from providers.local_folders import ModelFolder
from training.encoding import Piece, encode, load_tokenizer, pieces
from training.rows import Row

SAMPLE = 5
MEASURED = 2_000


@dataclass(frozen=True)
class PreviewRow:
    """A row as the model sees it."""

    source: str
    held_out: bool
    tokens: int
    pieces: tuple[Piece, ...]


@dataclass(frozen=True)
class Preview:
    """`histogram` counts rows by the power of two that their tokens fit in; `too_long` would be left out of a run."""

    rows: tuple[PreviewRow, ...]
    longest: int
    learnt_tokens: int
    too_long: int
    limit: int
    histogram: dict[int, int]


def preview(rows: Sequence[Row], folder: ModelFolder, max_length: int, sample: int = SAMPLE) -> Preview:
    """Encode the first rows with the model's tokenizer; `max_length` in tokens. Raises InvalidRequest."""
    tokenizer = load_tokenizer(folder.path, folder.config)
    encoded = [encode(row, tokenizer) for row in rows[:MEASURED]]
    limit = min(max_length, folder.context_length)
    lengths = [len(each.ids) for each in encoded]
    shown = [
        PreviewRow(row.source, row.held_out, len(each.ids), tuple(pieces(each, tokenizer)))
        for row, each in zip(rows[:sample], encoded, strict=False)
    ]
    counts = Counter(1 << max(0, length - 1).bit_length() for length in lengths)
    return Preview(
        rows=tuple(shown),
        longest=max(lengths),
        learnt_tokens=sum(sum(each.learnt) for each in encoded),
        too_long=sum(length > limit for length in lengths),
        limit=limit,
        histogram=dict(sorted(counts.items())),
    )
