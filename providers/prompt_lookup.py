"""Drafts of the next tokens by copying: what followed when the newest tokens stood in the text before.

A draft costs little to check, since a forward pass over a few tokens takes hardly longer than over one; where an answer
repeats its prompt, most of it comes true. Source: prompt lookup decoding (Apoorv Saxena, 2023).
"""

from __future__ import annotations

from collections.abc import Sequence

LENGTH = 10
NGRAM = 3


class PromptLookup:
    """Finds where the newest three tokens of one text stood before."""

    def __init__(self) -> None:
        self._after: dict[tuple[int, ...], int] = {}
        self._known = NGRAM - 1

    def draft(self, tokens: Sequence[int]) -> list[int]:
        """Return at most ten tokens that may follow; `tokens` is the text of the last call, gone on."""
        found = None
        while self._known < len(tokens):
            self._known += 1
            key = tuple(tokens[self._known - NGRAM : self._known])
            found = self._after.get(key)
            self._after[key] = self._known
        return list(tokens[found : found + LENGTH]) if found is not None else []
