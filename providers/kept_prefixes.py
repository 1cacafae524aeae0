"""What was computed for answers that have ended, for the next ones that begin alike: the oldest leaves first."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from providers.packed_attention import TokenCache

MAX_ENTRIES = 64
TAIL = 64  # tokens; what an entry has more than the next prompt is copied around only when it is longer than this

Tokens = npt.NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class Entry:
    """The tokens of one conversation under one set of weights, and their keys and values."""

    weights: object
    tokens: Tokens
    cache: TokenCache


class KeptPrefixes:
    """Caches by what they hold. Not safe on several threads: it belongs to the one that computes."""

    def __init__(self) -> None:
        self._entries: list[Entry] = []

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def nbytes(self) -> int:
        """Return the memory held."""
        return sum(entry.cache.nbytes for entry in self._entries)

    def longest(self, weights: object, tokens: Tokens) -> tuple[int, Entry | None]:
        """Return how many first tokens are known, and where; at least the last one of `tokens` is always left."""
        best, found = 0, None
        for entry in self._entries:
            if entry.weights is weights:
                length = min(common_length(entry.tokens, tokens), len(tokens) - 1)
                if length and length >= best:  # Of several the newest: it is what a copy marks as used.
                    best, found = length, entry
        return best, found

    def take(self, weights: object, tokens: Tokens, reserve: int) -> TokenCache | None:
        """Return a cache with the longest beginning of `tokens` that is known, for the caller alone.

        It is taken out where it goes on with `tokens`, and copied where others may still begin like it.
        """
        length, entry = self.longest(weights, tokens)
        if entry is None:
            return None
        self._entries.remove(entry)
        if entry.cache.length - length > TAIL:
            self._entries.append(entry)  # It was used now.
            return entry.cache.copy(length, reserve)
        entry.cache.length = length
        return entry.cache

    def keep(self, weights: object, tokens: Tokens, cache: TokenCache) -> None:
        """Keep what `cache` holds of `tokens`, in the place of what it continues."""
        held = tokens[: cache.length]
        known, entry = self.longest(weights, np.append(held, -1).astype(np.int32))
        if entry and known == len(held):
            self._entries.remove(entry)
            self._entries.append(entry)  # It was used now.
        if known == len(held):
            return
        self._entries = [
            entry
            for entry in self._entries
            if entry.weights is not weights or common_length(entry.tokens, held) < len(entry.tokens)
        ]
        self._entries.append(Entry(weights, held, cache))
        del self._entries[:-MAX_ENTRIES]

    def drop_oldest(self, spare: Entry | None = None) -> bool:
        """Forget what was used longest ago, but not `spare`; say whether there was anything."""
        for entry in self._entries:
            if entry is not spare:
                self._entries.remove(entry)
                return True
        return False


def common_length(one: Tokens, other: Tokens) -> int:
    """Return how many first tokens two texts have in common."""
    length = min(len(one), len(other))
    different = np.flatnonzero(one[:length] != other[:length])
    return int(different[0]) if len(different) else length
