"""What can go wrong at a source of answers.

ProviderError(message, provider, hint, status, retry_after)
  MissingKey            the provider needs a key that is not there
  MissingPackage        an optional package is not installed
  Unreachable           nobody answers at the address
  Cancelled             the person does not want it any more
  OutOfMemory           the model or the request does not fit in memory
  UpstreamFailure       the engine or the vendor broke
  Rejected              the request cannot be served as it is
    Unauthorized | PaymentRequired | ModelNotFound | ContextTooLong | RateLimited

`retry_after` is in seconds, where the vendor says how long to wait.

Messages and hints are shown to the person who asked: the message says what happened, the hint what to do.
"""

from __future__ import annotations

from typing import ClassVar

from providers.sentences import Sentence


class ProviderError(Exception):
    """An error with a sentence for a person; `status` is the vendor's HTTP status, where there is one."""

    usual_status: ClassVar[int | None] = None

    def __init__(
        self,
        message: Sentence,
        *,
        provider: str = "",
        hint: Sentence | None = None,
        status: int | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.provider = provider
        self.hint = hint
        self.status = self.usual_status if status is None else status
        self.retry_after = retry_after

    def __str__(self) -> str:
        return f"{self.message} {self.hint}" if self.hint else str(self.message)


class MissingKey(ProviderError):
    """The provider needs a key; the hint names the variable."""


class MissingPackage(ProviderError):
    """An optional package is missing; the hint is the command that installs it."""


class Unreachable(ProviderError):
    """Nobody answers at the address; the hint says how to start what should."""


class OutOfMemory(ProviderError):
    """The weights or the request do not fit in memory."""


class Cancelled(ProviderError):
    """The person does not want it any more."""


class UpstreamFailure(ProviderError):
    """The engine or the vendor failed in a way that the request did not cause."""


class Rejected(ProviderError):
    """The request cannot be served as it is."""


class Unauthorized(Rejected):
    """The key is wrong or may not do this."""


class PaymentRequired(Rejected):
    """The account behind the key has nothing left to pay with."""


class ModelNotFound(Rejected):
    """There is no such model, or it is not one that can be used here."""


class ContextTooLong(Rejected):
    """The request does not fit the model's context."""


class RateLimited(Rejected):
    """Too many requests."""

    usual_status = 429
