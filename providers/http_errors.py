"""What a status, a broken connection or a silence means to the person who asked; the same for every vendor."""

from __future__ import annotations

import email.utils
import json
import math
import re
import socket
import time
from collections.abc import Iterator

import httpx
import httpx2

from providers.errors import (
    ContextTooLong,
    ModelNotFound,
    PaymentRequired,
    ProviderError,
    RateLimited,
    Rejected,
    Unauthorized,
    Unreachable,
    UpstreamFailure,
)
from providers.http_client import LineTooLong, Redirected, before_the_answer, on_new_connection
from providers.sentences import Sentence, say
from providers.types import ProviderInfo

TOO_LONG = re.compile(
    r"context.{0,30}(length|window|size)|too (long|many tokens|large to process)|exceed.{0,40}token"
    r"|maximum (?!allowed number of output).{0,30}tokens"
)
MISSING = re.compile(r"model.{0,80}(not found|does not exist|not exist|unknown)|(unknown|no such|invalid) model", re.I)
UNPAID = re.compile(r"insufficient.?(quota|credit|balance)|credit balance|billing|payment required", re.I)
RATE_LIMIT = re.compile(r"rate.?limit|too many requests|usage limit", re.I)
NO_KEY = re.compile(r"authenticat|unauthori[sz]ed|api.?key", re.I)
LONGEST_REASON = 300
HUNG_UP = "disconnected without sending a response"
NO_STATUS = 0  # The connection was kept from an earlier request, and the service closed it just then.


def status_error(
    info: ProviderInfo,
    status: int,
    reason: str,
    retry_after: float | None = None,
) -> ProviderError:
    """Return the error for an HTTP status and what the vendor said about it."""
    said = readable(reason)
    is_unpaid = UNPAID.search(reason) and not RATE_LIMIT.search(reason)
    if status == 402 or (status in (400, 403, 429) and retry_after is None and is_unpaid):
        return PaymentRequired(
            say("{provider} wants to be paid first: {reason}.", provider=info.label, reason=said),
            provider=info.key,
            hint=say("Look at the balance and the quota of your account there, or choose another service."),
            status=status,
        )
    if status in (401, 403):
        return Unauthorized(
            say("{provider} refuses the key: {reason}.", provider=info.label, reason=said),
            provider=info.key,
            hint=say("Check {variable}, or type another key in the Models tab.", variable=info.key_variable)
            if info.key_variable
            else say("Check the key in the configuration."),
            status=status,
        )
    if status == 429:
        return RateLimited(
            say("{provider} takes no more requests now: {reason}.", provider=info.label, reason=said),
            provider=info.key,
            hint=_wait(retry_after),
            status=status,
            retry_after=retry_after,
        )
    if status in (400, 413, 422, 500) and TOO_LONG.search(reason.lower()):
        return ContextTooLong(
            say("{provider} says that the conversation is too long: {reason}.", provider=info.label, reason=said),
            provider=info.key,
            hint=say("Shorten it, or choose a model with a longer context."),
            status=status,
        )
    if status == 404 or (status == 400 and MISSING.search(reason)):
        return ModelNotFound(
            say("{provider} does not have that: {reason}.", provider=info.label, reason=said),
            provider=info.key,
            hint=say("Choose a model of the list."),
            status=status,
        )
    if status < 500:
        return Rejected(
            say("{provider} refuses the request: {reason}.", provider=info.label, reason=said),
            provider=info.key,
            hint=say("Change the parameters or the conversation, or choose another model."),
            status=status,
        )
    return UpstreamFailure(
        say("{provider} failed ({status}): {reason}.", provider=info.label, status=status, reason=said),
        provider=info.key,
        hint=say("Ask again in a moment.") if retry_after is None else _wait(retry_after),
        status=status,
        retry_after=retry_after,
    )


def connection_error(info: ProviderInfo, error: BaseException, start_hint: Sentence | None = None) -> ProviderError:
    """Return the error for what happened on the way; the causes of `error` are looked at, because clients wrap them."""
    causes = list(causes_of(error))
    address = info.base_url or info.label
    for cause in causes:
        if isinstance(cause, Redirected):
            return UpstreamFailure(
                say("{provider} sends to another address, where nobody goes.", provider=info.label),
                provider=info.key,
                hint=say("Put the right address into the configuration."),
                status=cause.status,
            )
    if any(isinstance(cause, socket.gaierror) for cause in causes) or _says(causes, "name resolution", "not known"):
        return Unreachable(
            say("The address {address} is not known.", address=address),
            provider=info.key,
            hint=say("Check its spelling and the connection to the internet."),
        )
    unreachable = (httpx.ConnectError, httpx2.ConnectError, httpx.ConnectTimeout, httpx2.ConnectTimeout)
    if any(isinstance(cause, (*unreachable, ConnectionRefusedError)) for cause in causes) or _says(
        causes, "failed to connect"
    ):
        return Unreachable(
            say("Nobody answers at {address}.", address=address),
            provider=info.key,
            hint=start_hint or say("Check the address, and that the service runs."),
        )
    if any(isinstance(cause, TimeoutError | httpx.TimeoutException | httpx2.TimeoutException) for cause in causes):
        return silent(info)
    if any(isinstance(cause, LineTooLong | json.JSONDecodeError | UnicodeDecodeError) for cause in causes):
        return no_answer(info)
    if _says(causes, HUNG_UP) or any(before_the_answer(cause) for cause in causes):
        return Unreachable(
            say("{provider} hung up without an answer.", provider=info.label),
            provider=info.key,
            hint=say("Ask again."),
            status=None if any(on_new_connection(cause) for cause in causes) else NO_STATUS,
        )
    if any(isinstance(cause, httpx.HTTPError | httpx2.HTTPError | OSError) for cause in causes):
        return cut_off(info)
    return no_answer(info)


def status_of_words(words: str) -> int:
    """Return the status that an error inside an open stream stands for, where only its words tell."""
    return 429 if RATE_LIMIT.search(words) else 401 if NO_KEY.search(words) else 500


def no_answer(info: ProviderInfo) -> UpstreamFailure:
    """Return the error for bytes that are not of the protocol."""
    return UpstreamFailure(
        say("{provider} sent something that is no answer.", provider=info.label),
        provider=info.key,
        hint=say("Check that the address is that of the API."),
    )


def silent(info: ProviderInfo) -> UpstreamFailure:
    """Return the error for a service that says nothing any more."""
    return UpstreamFailure(
        say("{provider} has been silent for too long.", provider=info.label),
        provider=info.key,
        hint=say("Ask again, or allow it more time with FIRST_PIECE_SECONDS or IDLE_SECONDS."),
    )


def cut_off(info: ProviderInfo) -> UpstreamFailure:
    """Return the error for an answer that ended before its end."""
    return UpstreamFailure(
        say("The answer is incomplete: the connection to {provider} broke off.", provider=info.label),
        provider=info.key,
        hint=say("Ask again."),
    )


def retry_after_seconds(value: str | None) -> float | None:
    """Read a Retry-After header, seconds or a date (RFC 9110, section 10.2.3); `None` for what is neither."""
    if not value:
        return None
    try:
        seconds = float(value.removesuffix("s"))
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
        except ValueError:
            return None
    return max(0.0, seconds) if math.isfinite(seconds) else None


def readable(reason: str) -> str:
    """Return what a vendor said as one short line without markup and without the full stop."""
    line = " ".join(re.sub(r"<[^>]*>", " ", reason).split())
    return (line[:LONGEST_REASON] or "no reason given").rstrip(".")


def _wait(retry_after: float | None) -> Sentence:
    if retry_after is None:
        return say("Wait a little and ask again.")
    return say("Wait {seconds} s and ask again.", seconds=f"{retry_after:.0f}")


def causes_of(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and what it came from."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _says(causes: list[BaseException], *words: str) -> bool:
    return any(word in str(cause).lower() for cause in causes for word in words)
