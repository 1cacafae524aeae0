"""From token ids to text a person may see: whole Unicode characters, and nothing of a stop sequence."""

from __future__ import annotations

from collections.abc import Sequence

from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream

from providers.stop_sequences import StopSequences


class TextStream:
    """Decodes one answer token by token and ends it at the stop sequence that is complete first."""

    def __init__(self, tokenizer: Tokenizer, stop: Sequence[str] = ()) -> None:
        self._tokenizer = tokenizer
        self._decoder = DecodeStream(skip_special_tokens=True)
        self._stop = StopSequences(stop)

    @property
    def stopped(self) -> bool:
        """Say whether a stop sequence is complete."""
        return self._stop.reached

    def push(self, token: int) -> str:
        """Take one token; return the text that became certain, possibly none."""
        piece = self._decoder.step(self._tokenizer, token)
        return "" if piece is None else self._stop.push(piece)

    def decode(self, token: int) -> str:
        """Return the text of one token alone; a part of a character is told as U+FFFD."""
        return str(self._tokenizer.decode([token], skip_special_tokens=False))

    def flush(self) -> str:
        """Return what was held back, once the answer has ended."""
        return self._stop.flush()
