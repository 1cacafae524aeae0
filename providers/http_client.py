"""How every provider reaches its service: no redirects, little patience, and lines with an end."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable
from contextvars import ContextVar
from ipaddress import ip_address
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx
import httpx2

from providers.types import Timeouts

S = TypeVar("S")
T = TypeVar("T")

OPENED = "simpleia.opened"
ANSWERED = "simpleia.answered"
LONGEST_LINE = 4_000_000
CONNECTIONS = 1000
KEEP_SECONDS = 2.0  # llama.cpp's server closes after 5; who closes first must not be left to chance.


_opened: ContextVar[list[Any] | None] = ContextVar("opened", default=None)


class LineTooLong(Exception):
    """A service sent more bytes without a line's end than any honest answer has."""


class Redirected(Exception):
    """A service sent to another address."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class Refusal(Exception):
    """A status of 400 or more, with the headers, which some clients throw away."""

    def __init__(self, status: int, reason: str, retry_after: str | None) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
        self.retry_after = retry_after


async def raise_refusal(response: Any) -> None:
    """Raise Refusal for an error, as an event hook of a client that would forget the headers."""
    if response.status_code >= 400:
        raise Refusal(response.status_code, response.text, response.headers.get("retry-after"))


class HttpClient:
    """A client of httpx2 that is opened on first use and that several conversations share."""

    def __init__(self, timeouts: Timeouts, address: str | None, kept_connections: int = 100) -> None:
        self._timeouts, self._address = timeouts, address
        self._kept_connections = kept_connections
        self._client: httpx2.AsyncClient | None = None

    def get(self) -> httpx2.AsyncClient:
        """Return the client."""
        if self._client is None:
            self._client = httpx2.AsyncClient(
                timeout=httpx2.Timeout(silence(self._timeouts), connect=self._timeouts.connect),
                limits=httpx2.Limits(
                    max_connections=CONNECTIONS,
                    max_keepalive_connections=self._kept_connections,
                    keepalive_expiry=KEEP_SECONDS,
                ),
                **careful(self._address),
            )
        return self._client

    async def aclose(self) -> None:
        """Close the connections."""
        if self._client is not None:
            await self._client.aclose()


async def leaving_nothing_open(call: Awaitable[AsyncIterator[T]]) -> AsyncGenerator[T, None]:
    """Yield the pieces of a stream, and close its response, for a client that does not when its stream is left."""
    responses: list[Any] = []

    async def watched(step: Awaitable[S]) -> S:
        token = _opened.set(responses)
        try:
            return await step
        finally:
            _opened.reset(token)

    try:
        pieces = aiter(await watched(call))
        while True:
            try:
                piece = await watched(anext(pieces))
            except StopAsyncIteration:
                return
            yield piece
    finally:
        for response in responses:
            await response.aclose()


def careful(address: str | None = None) -> dict[str, Any]:
    """Return arguments of an `AsyncClient` of httpx or httpx2 for a service at `address`.

    Redirects are not followed: they would carry the key to an address that nobody configured. What is on this machine
    is not asked through the environment's proxy, which would read along and cannot reach it.
    """
    return {
        "trust_env": not is_loopback(address),
        "follow_redirects": False,
        "event_hooks": {
            "request": [_watch_connection],
            "response": [_bound_lines, _refuse_redirect, _read_refusal, _remember],
        },
    }


def is_loopback(address: str | None) -> bool:
    """Say whether an address is on this machine."""
    host = urlsplit(address or "").hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def on_new_connection(error: BaseException) -> bool:
    """Say whether a request failed on a connection that was opened for it: its service may have begun with it.

    A connection that was kept from before and closed without a byte had been given up before the request arrived.
    """
    try:
        request = error.request  # type: ignore[attr-defined]
    except (AttributeError, RuntimeError):  # httpx raises RuntimeError where it does not know.
        return False
    return bool(request.extensions.get(OPENED))


def before_the_answer(error: BaseException) -> bool:
    """Say whether a connection broke while its request was sent or waited for: nothing of the answer had come."""
    if not isinstance(error, httpx.NetworkError | httpx2.NetworkError):
        return False
    try:
        return ANSWERED not in error.request.extensions
    except RuntimeError:  # httpx does not know its request.
        return False


def silence(timeouts: Timeouts) -> float:
    """Return the seconds without a byte after which a connection is given up; pieces are timed apart from this."""
    return max(timeouts.first_piece, timeouts.idle) + 1


async def _watch_connection(request: Any) -> None:
    """Note on the request when a connection is opened for it, and when an answer begins.

    Source: httpx's documentation, "Request extensions".
    """

    async def trace(event: str, _: Any) -> None:
        if event == "connection.connect_tcp.started":
            request.extensions[OPENED] = True
        elif event.endswith("receive_response_headers.complete"):
            request.extensions[ANSWERED] = True

    request.extensions = {**request.extensions, "trace": trace}


async def _bound_lines(response: Any) -> None:
    response.stream = _BoundedLines(response.stream)


async def _refuse_redirect(response: Any) -> None:
    """Raise Redirected: some clients would take the empty page for an empty answer."""
    if 300 <= response.status_code < 400:
        raise Redirected(response.status_code)


async def _read_refusal(response: Any) -> None:
    """Read what a service says about an error: some clients look at it when the connection is closed already."""
    if response.status_code >= 400:
        await response.aread()


async def _remember(response: Any) -> None:
    if (opened := _opened.get()) is not None:
        opened.append(response)


class _BoundedLines(httpx.AsyncByteStream, httpx2.AsyncByteStream):
    """A response's bytes; raises LineTooLong when a line does not end."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    async def __aiter__(self) -> AsyncGenerator[bytes, None]:
        length = 0
        async for chunk in self._stream:
            end = chunk.rfind(b"\n")
            length = len(chunk) - end - 1 if end >= 0 else length + len(chunk)
            if length > LONGEST_LINE:
                raise LineTooLong
            yield chunk

    async def aclose(self) -> None:
        await self._stream.aclose()
