"""From token ids to text a person may see: whole Unicode characters, and nothing of a stop sequence."""

from __future__ import annotations

from collections.abc import Sequence

from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream


class TextStream:
    """Decodes one answer token by token and ends it at the stop sequence that is complete first."""

    def __init__(self, tokenizer: Tokenizer, stop: Sequence[str] = ()) -> None:
        self._tokenizer = tokenizer
        self._decoder = DecodeStream(skip_special_tokens=True)
        self._stop = tuple(stop)
        self._held = ""
        self.stopped = False

    def push(self, token: int) -> str:
        """Take one token; return the text that became certain, possibly none."""
        piece = self._decoder.step(self._tokenizer, token)
        if piece is None or self.stopped:
            return ""
        return self._release(self._held + piece)

    def decode(self, token: int) -> str:
        """Return the text of one token alone; a part of a character is told as U+FFFD."""
        return str(self._tokenizer.decode([token], skip_special_tokens=False))

    def flush(self) -> str:
        """Return what was held back, once the answer has ended."""
        text, self._held = self._held, ""
        return text

    def _release(self, text: str) -> str:
        found = [(start + len(stop), start) for stop in self._stop if (start := text.find(stop)) >= 0]
        if found:
            self.stopped, self._held = True, ""
            return text[: min(found)[1]]
        held = max((_overlap(text, stop) for stop in self._stop), default=0)
        self._held = text[len(text) - held :]
        return text[: len(text) - held]


def _overlap(text: str, stop: str) -> int:
    """Return the length of the longest end of `text` that `stop` begins with."""
    return next((size for size in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:size])), 0)
