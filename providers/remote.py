"""What all services on the network have in common: a key, a list of models kept for a minute, patience, and retries."""

from __future__ import annotations

import asyncio
import copy
import time
from abc import abstractmethod
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import fields, replace
from importlib import import_module
from typing import Any, Self

from providers.base import Provider
from providers.errors import MissingKey, ModelNotFound, ProviderError, RateLimited, Unreachable, UpstreamFailure
from providers.estimates import estimate_messages
from providers.http_client import HttpClient
from providers.http_errors import NO_STATUS, causes_of, connection_error, cut_off, no_answer, silent, status_error
from providers.patience import patient
from providers.sentences import Sentence, say
from providers.stop_sequences import ended_before_stop
from providers.types import (
    Capabilities,
    ChatRequest,
    Endpoint,
    Finished,
    Message,
    ModelInfo,
    Notice,
    Parameters,
    ProviderSettings,
    ReasoningDelta,
    StreamEvent,
    TextDelta,
)

LIST_SECONDS = 60.0
LONGEST_WAIT = 20.0
LONGEST_NAME = 200
EMBEDDED_AT_ONCE = 32  # More rows in one line would be longer than a line may be.


class RemoteProvider(Provider):
    """A provider whose models answer elsewhere. A protocol says how to list, how to ask, and what its errors mean."""

    package: str
    needs_key = True
    start_hint: Sentence | None = None

    def __init__(self, settings: ProviderSettings, others: Callable[[str], Provider]) -> None:
        endpoint = settings.endpoint or Endpoint(self.info.key, self.info.key)
        self._endpoint = endpoint
        self._timeouts = settings.timeouts
        self._key = endpoint.api_key
        self._listed: tuple[float, list[ModelInfo] | None] | None = None
        self._listing: asyncio.Task[list[ModelInfo] | None] | None = None
        self._sdk: Any = None
        own_address = endpoint.base_url is not None
        self.needs_key = self.needs_key and not own_address
        self.info = replace(
            self.info,
            key=endpoint.name,
            label=endpoint.label or (endpoint.name if own_address else self.info.label),
            key_variable=endpoint.key_variable if own_address else self.info.key_variable,
            base_url=endpoint.base_url or self.info.base_url,
        )
        self._http = HttpClient(settings.timeouts, self.info.base_url)

    @abstractmethod
    async def _list(self) -> list[ModelInfo] | None:
        """Ask the service for its models; `None` where it has no list, so that any name may be tried."""

    @abstractmethod
    def _events(self, request: ChatRequest) -> AsyncGenerator[StreamEvent, None]:
        """Ask once. Whatever the vendor's client raises is translated by `_error`."""

    @abstractmethod
    def _error(self, error: Exception) -> ProviderError | None:
        """Translate an error of the vendor's client; `None` where it is one of the connection."""

    @abstractmethod
    def _describe(self, name: str) -> ModelInfo:
        """Describe a model of which only the name is known."""

    def _taken(self, parameters: Parameters, info: ModelInfo) -> tuple[Parameters, list[Notice]]:
        """Return the parameters that a model takes together, and a notice for each that is left out."""
        return only_taken(parameters, info)

    @property
    def has_key(self) -> bool:
        """Whether the server has a key for it."""
        return bool(self._key)

    def with_key(self, key: str) -> Self:
        """Return this provider with another key; it shares the connections."""
        twin = copy.copy(self)
        twin._key, twin._listed, twin._listing, twin._sdk = key, None, None, None
        return twin

    async def list_models(self) -> list[ModelInfo]:
        if self.needs_key and not self._key:
            return []
        return await self._models() or []

    async def check(self) -> None:
        """Raise what keeps the service from answering; the list of models of the last minute counts as an answer."""
        self._check_key()
        await self._models()

    async def find_model(self, model: str) -> ModelInfo:
        self._check_key()
        if not model or len(model) > LONGEST_NAME or not model.isprintable():
            raise self._not_found(model)
        listed = await self._models()
        if listed is None:
            return self._describe(model)
        for info in listed:
            if info.name == model:
                return info
        raise self._not_found(model)

    def capabilities(self, model: str) -> Capabilities:
        known = (self._listed[1] if self._listed else None) or []
        return next((info for info in known if info.name == model), self._describe(model)).capabilities

    async def count_tokens(self, messages: Sequence[Message], model: str) -> int:
        return estimate_messages(messages)

    async def stream(self, request: ChatRequest) -> AsyncGenerator[StreamEvent, None]:
        info = await self.find_model(request.model)
        parameters, notices = self._taken(request.parameters, info)
        for notice in notices:
            yield notice
        request = replace(request, parameters=parameters)
        for attempt in range(1, request.attempts + 1):
            began = False
            try:
                async with aclosing(self._patiently(request)) as events:
                    async for event in events:
                        began = began or isinstance(event, TextDelta | ReasoningDelta)
                        yield event
                return
            except ProviderError as error:
                pause = pause_after(error, attempt)
                if began or pause is None or attempt == request.attempts:
                    raise
            yield Notice(say("{provider} was busy and was asked again.", provider=self.info.label))
            await asyncio.sleep(pause)

    async def aclose(self) -> None:
        await self._http.aclose()

    async def _patiently(self, request: ChatRequest) -> AsyncGenerator[StreamEvent, None]:
        """Ask once: silences end, errors are ours, and an answer without an end is one that broke off."""
        began = False
        try:
            async with aclosing(
                ended_before_stop(
                    patient(self._events(request), self._timeouts.first_piece, self._timeouts.idle), request
                )
            ) as events:
                async for event in events:
                    began = True
                    yield event
                    if isinstance(event, Finished):
                        return
        except ProviderError:
            raise
        except TimeoutError as error:
            raise silent(self.info) from error
        except Exception as error:
            raise self._translated(error) from self._cause(error)
        raise cut_off(self.info) if began else no_answer(self.info)

    async def _models(self) -> list[ModelInfo] | None:
        """Return the list of the last minute; who asks while it is being fetched waits for the same one."""
        if self._listed and time.monotonic() - self._listed[0] <= LIST_SECONDS:
            return self._listed[1]
        if self._listing is None:
            self._listing = asyncio.create_task(self._fetched_list())
            self._listing.add_done_callback(self._list_fetched)
        return await asyncio.shield(self._listing)

    def _list_fetched(self, listing: asyncio.Task[list[ModelInfo] | None]) -> None:
        self._listing = None
        if not listing.cancelled():
            listing.exception()  # Whoever waited may have left.

    async def _fetched_list(self) -> list[ModelInfo] | None:
        # The import of a vendor's client takes up to a second, in which nobody else shall wait.
        await asyncio.to_thread(import_module, self.package)
        try:
            async with asyncio.timeout(self._timeouts.idle):
                listed = await self._list()
        except ProviderError:
            raise
        except Exception as error:
            raise self._translated(error) from self._cause(error)
        self._listed = time.monotonic(), listed
        return listed

    def _translated(self, error: Exception) -> ProviderError:
        if isinstance(error, ProviderError):
            return error
        return self._error(error) or connection_error(self.info, error, self.start_hint)

    def _cause(self, error: Exception) -> Exception | None:
        """Return what an error of ours may say that it came from: nothing in which a service repeats the key."""
        if self._key and any(self._key in str(cause) for cause in causes_of(error)):
            return None
        return error

    def _refused(self, status: int, reason: str, retry_after: float | None = None) -> ProviderError:
        """Return the error for a status; some services repeat the key in their reason."""
        clean = reason.replace(self._key, f"…{self._key[-4:]}") if self._key else reason
        return status_error(self.info, status, clean, retry_after)

    def _check_key(self) -> None:
        if self.needs_key and not self._key:
            raise MissingKey(
                say("{provider} needs a key.", provider=self.info.label),
                provider=self.info.key,
                hint=say("Set {variable}, or type the key in the Models tab.", variable=self.info.key_variable),
            )

    def _not_found(self, model: str) -> ModelNotFound:
        return ModelNotFound(
            say("{provider} has no model {model}.", provider=self.info.label, model=model[:100] or "''"),
            provider=self.info.key,
            hint=say("Choose a model of the list."),
        )


def only_taken(parameters: Parameters, info: ModelInfo) -> tuple[Parameters, list[Notice]]:
    """Return the parameters that a model takes, and a notice for each that was given and is left out."""
    empty = Parameters()
    left_out = {
        field.name: getattr(empty, field.name)
        for field in fields(Parameters)
        if getattr(parameters, field.name) != getattr(empty, field.name)
        and field.name not in info.capabilities.parameters
    }
    notices = [
        Notice(say("{model} does not take {name}; it was left out.", model=info.name, name=name)) for name in left_out
    ]
    return replace(parameters, **left_out), notices


def pause_after(error: ProviderError, attempt: int) -> float | None:
    """Return the seconds to wait before asking again; `None` where that would not help or take too long."""
    if isinstance(error, RateLimited):
        wait = 2.0**attempt if error.retry_after is None else error.retry_after
        return wait if wait <= LONGEST_WAIT else None
    if isinstance(error, Unreachable) and error.status == NO_STATUS:
        return 0.0 if attempt == 1 else None
    if isinstance(error, UpstreamFailure) and error.status and error.status >= 500:
        if error.retry_after is not None:
            return error.retry_after if error.retry_after <= LONGEST_WAIT else None
        return 0.5 * 2.0 ** (attempt - 1)
    return None
