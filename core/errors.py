"""What the product itself refuses. Errors of the sources of answers are in `providers.errors`."""

from __future__ import annotations

from providers.sentences import Sentence, say


class RequestRefused(Exception):
    """The request cannot be done; the message says what happened, the hint what to do."""

    def __init__(self, message: Sentence, hint: Sentence | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} {self.hint}" if self.hint else str(self.message)


class InvalidRequest(RequestRefused):
    """A value is missing, of the wrong type or out of range."""


class HalfACharacter(InvalidRequest):
    """A text holds a lone surrogate, which UTF-8 cannot write."""

    def __init__(self) -> None:
        super().__init__(
            say("The text holds half of a character (a lone surrogate), which no model can read."),
            say("Write or copy that character again."),
        )


class NotAllowed(RequestRefused):
    """This person may not do this here."""


class NotFound(RequestRefused):
    """There is no such thing, or it is another person's."""


class StorageFailed(RequestRefused):
    """What should be kept could not be kept."""
