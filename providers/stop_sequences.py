"""Where an answer ends: before the stop sequence that is complete first, and nothing of it is shown."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from providers.estimates import estimate_messages, estimate_text
from providers.types import ChatRequest, Finished, StreamEvent, TextDelta, TokenLogprob, Usage


class StopSequences:
    """Holds back the end of a growing text for as long as a stop sequence may begin there."""

    def __init__(self, stop: Sequence[str]) -> None:
        self._stop = tuple(stop)
        self._held = ""
        self.reached = False

    def push(self, piece: str) -> str:
        """Take more text; return what is certain to be of the answer, possibly nothing."""
        if self.reached:
            return ""
        text = self._held + piece
        found = [(start + len(stop), start) for stop in self._stop if (start := text.find(stop)) >= 0]
        if found:
            self.reached, self._held = True, ""
            return text[: min(found)[1]]
        held = max((_overlap(text, stop) for stop in self._stop), default=0)
        self._held = text[len(text) - held :]
        return text[: len(text) - held]

    def flush(self) -> str:
        """Return what was held back, once the answer has ended."""
        text, self._held = self._held, ""
        return text


async def ended_before_stop(
    events: AsyncGenerator[StreamEvent, None], request: ChatRequest
) -> AsyncGenerator[StreamEvent, None]:
    """Pass on the events of a server that may write the stop sequence itself, as `transformers serve` does, or more."""
    stop, written = StopSequences(request.parameters.stop), ""
    logprobs: list[TokenLogprob] = []
    async with aclosing(events):
        async for event in events:
            if isinstance(event, TextDelta):
                if stop.reached:
                    usage = Usage(estimate_messages(request.messages), estimate_text(written), estimated=True)
                    yield Finished("stop", usage)
                    return
                logprobs += event.logprobs
                piece = stop.push(event.text)
            else:
                piece = stop.flush() if isinstance(event, Finished) else ""
            if piece:
                written += piece
                yield TextDelta(piece, tuple(logprobs))
                logprobs.clear()
            if not isinstance(event, TextDelta):
                yield event


def _overlap(text: str, stop: str) -> int:
    """Return the length of the longest end of `text` that `stop` begins with."""
    return next((size for size in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:size])), 0)
