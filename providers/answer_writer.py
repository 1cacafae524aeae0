"""From the tokens of one answer to the events that a person sees."""

from __future__ import annotations

from collections.abc import Callable

from providers.sampling import LogprobTap
from providers.text_stream import TextStream
from providers.types import StreamEvent, TextDelta, TokenLogprob


class AnswerWriter:
    """Takes each new token and emits text as it becomes certain; counts the tokens, and knows how the answer ended."""

    def __init__(
        self,
        text: TextStream,
        end_tokens: frozenset[int],
        emit: Callable[[StreamEvent], None],
        tap: LogprobTap | None,
    ) -> None:
        self._text = text
        self._end_tokens = end_tokens
        self._emit = emit
        self._tap = tap
        self._logprobs: list[TokenLogprob] = []
        self.tokens = 0
        self._ended = False

    @property
    def stopped(self) -> bool:
        """Say whether the answer is complete: the model ended it, or a stop sequence."""
        return self._ended or self._text.stopped

    def take(self, token: int) -> bool:
        """Take the next token; say whether the answer is complete with it."""
        self.tokens += 1
        self._ended = token in self._end_tokens
        if not self._ended:
            if self._tap:
                top = tuple((self._text.decode(each), logprob) for each, logprob in self._tap.top())
                self._logprobs.append(TokenLogprob(self._text.decode(token), self._tap.of(token), top))
            self._say(self._text.push(token))
        return self.stopped

    def flush(self) -> None:
        """Emit what was held back, once the answer has ended."""
        self._say(self._text.flush())

    def _say(self, piece: str) -> None:
        if piece:
            self._emit(TextDelta(piece, tuple(self._logprobs)))
            self._logprobs.clear()
