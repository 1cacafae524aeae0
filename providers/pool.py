"""Several models that answer as one: least busy first, a rest after a failure, failover before the first piece."""

from __future__ import annotations

import asyncio
import copy
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from functools import reduce
from typing import TypeVar

from providers.base import Provider
from providers.errors import (
    MissingKey,
    ModelNotFound,
    PaymentRequired,
    ProviderError,
    RateLimited,
    Rejected,
    Unauthorized,
)
from providers.http_errors import silent
from providers.sentences import say
from providers.types import (
    Capabilities,
    ChatRequest,
    Message,
    ModelInfo,
    Notice,
    ProviderInfo,
    ProviderSettings,
    ReasoningDelta,
    StreamEvent,
    TextDelta,
)

T = TypeVar("T")

FIND_SECONDS = 5.0
REST_SECONDS = 10.0
LONG_REST_SECONDS = 60.0
LONGEST_WAIT = 20.0
OF_THE_KEY = (Unauthorized, PaymentRequired, MissingKey)
ITS_OWN_FAULT = (ModelNotFound, *OF_THE_KEY)


@dataclass
class Member:
    """A model of a pool: how many answers it writes now, and until when it rests (monotonic seconds)."""

    provider: str
    model: str
    busy: int = 0
    rests_until: float = 0.0

    @property
    def model_id(self) -> str:
        """The id under which it can also be asked alone."""
        return f"{self.provider}/{self.model}"

    def rest(self, error: ProviderError) -> None:
        """Ask it nothing for a while: as long as it said, else by the kind of its failure."""
        wait = LONG_REST_SECONDS if isinstance(error, ITS_OWN_FAULT) else REST_SECONDS
        if error.retry_after is not None:
            wait = error.retry_after
        self.rests_until = max(self.rests_until, time.monotonic() + wait)


class PoolProvider(Provider):
    """Answers from whichever member of a pool is free. The services' own retries are off: this is the only loop."""

    info = ProviderInfo(
        key="pool",
        label="Pools",
        local=False,
        docs_url="",
        needs="a pool in config/models.json",
        offers=frozenset({"images", "reasoning", "embeddings"}),
    )

    def __init__(self, settings: ProviderSettings, others: Callable[[str], Provider]) -> None:
        self._pools = {pool.name: pool.members for pool in settings.pools}
        self._others = others
        self._members: dict[str, list[Member]] = {}
        self._is_shared = True

    def asking(self, others: Callable[[str], Provider]) -> PoolProvider:
        """Return these pools with other keys for their members; who is busy and who rests is the same."""
        view = copy.copy(self)
        view._others, view._is_shared = others, False
        return view

    async def list_models(self) -> list[ModelInfo]:
        rows = await asyncio.gather(*(self.find_model(name) for name in self._pools), return_exceptions=True)
        return [row for row in rows if isinstance(row, ModelInfo)]

    async def find_model(self, model: str) -> ModelInfo:
        members = self._of(model)
        awake = [member for member in members if member.rests_until <= time.monotonic()]
        found = await asyncio.gather(*map(self._found, awake or members), return_exceptions=True)
        infos = [info for info in found if isinstance(info, ModelInfo)]
        if not infos:
            raise next(error for error in found if isinstance(error, BaseException))
        lengths = [info.context_length for info in infos if info.context_length]
        return ModelInfo(
            name=model,
            provider=self.info.key,
            local=all(info.local for info in infos),
            source="pool",
            capabilities=reduce(_common, (info.capabilities for info in infos)),
            context_length=min(lengths) if lengths else None,
        )

    def capabilities(self, model: str) -> Capabilities:
        members = self._of(model)
        return reduce(_common, (self._others(member.provider).capabilities(member.model) for member in members))

    async def count_tokens(self, messages: Sequence[Message], model: str) -> int:
        return await self._first(model, lambda provider, name: provider.count_tokens(messages, name))

    async def embed(self, texts: Sequence[str], model: str) -> list[list[float]]:
        return await self._first(model, lambda provider, name: provider.embed(texts, name))

    async def stream(self, request: ChatRequest) -> AsyncGenerator[StreamEvent, None]:
        members = self._of(request.model)
        untried = list(members)
        failure: ProviderError | None = None
        for _ in range(max(request.attempts, len(members))):
            member = self._next(untried or members)
            if (wait := member.rests_until - time.monotonic()) > 0:
                if wait > LONGEST_WAIT:
                    raise failure or _all_rest(self.info.key, wait)
                await asyncio.sleep(wait)
            untried = [each for each in untried if each is not member]
            began = False
            member.busy += 1
            try:
                asked = replace(request, model=member.model, attempts=1)
                yield Notice(say("{model} answers.", model=member.model_id))
                async with aclosing(self._others(member.provider).stream(asked)) as events:
                    async for event in events:
                        began = began or isinstance(event, TextDelta | ReasoningDelta)
                        yield event
                return
            except ProviderError as error:
                if _is_the_requests(error):
                    raise
                self._rest(member, error)
                failure = error
                if began:
                    raise
            finally:
                member.busy -= 1
            yield Notice(say("{model} failed: {reason}", model=member.model_id, reason=failure.message))
        assert failure is not None
        raise failure

    async def aclose(self) -> None:
        """Nothing is held here: the connections are the members'."""

    def _of(self, pool: str) -> list[Member]:
        if pool not in self._pools:
            raise ModelNotFound(
                say("There is no pool {name}.", name=pool[:100] or "''"),
                provider=self.info.key,
                hint=say("Choose one of the list, or add it to config/models.json."),
            )
        if pool not in self._members:
            parts = [member.partition("/") for member in self._pools[pool]]
            self._members[pool] = [Member(provider, model) for provider, _, model in parts]
        return self._members[pool]

    async def _found(self, member: Member) -> ModelInfo:
        provider = self._others(member.provider)
        try:
            async with asyncio.timeout(FIND_SECONDS):
                return await provider.find_model(member.model)
        except TimeoutError as error:
            raise silent(provider.info) from error

    async def _first(self, pool: str, ask: Callable[[Provider, str], Awaitable[T]]) -> T:
        """Ask the members for what is no answer, one after the other, until one gives it; who fails rests."""
        failure: ProviderError | None = None
        for member in sorted(self._of(pool), key=_order):
            try:
                return await ask(self._others(member.provider), member.model)
            except ProviderError as error:
                if _is_the_requests(error):
                    raise
                self._rest(member, error)
                failure = error
        assert failure is not None
        raise failure

    def _rest(self, member: Member, error: ProviderError) -> None:
        """Let a member rest for everybody, unless only this person's key failed."""
        if self._is_shared or not isinstance(error, OF_THE_KEY):
            member.rest(error)

    def _next(self, members: Sequence[Member]) -> Member:
        """Return who rests least, and among those who do not rest, who writes least."""
        return min(members, key=_order)


def _order(member: Member) -> tuple[float, int]:
    return max(0.0, member.rests_until - time.monotonic()), member.busy


def _is_the_requests(error: ProviderError) -> bool:
    """Say whether a request is to blame, so that no member would take it."""
    return isinstance(error, Rejected) and not isinstance(error, (*ITS_OWN_FAULT, RateLimited))


def _common(one: Capabilities, other: Capabilities) -> Capabilities:
    return Capabilities(
        parameters=one.parameters & other.parameters,
        system=one.system and other.system,
        images=one.images and other.images,
        reasoning=one.reasoning or other.reasoning,
        embeddings=one.embeddings and other.embeddings,
        exact_token_count=one.exact_token_count and other.exact_token_count,
    )


def _all_rest(provider: str, wait: float) -> RateLimited:
    return RateLimited(
        say("All models of this pool rest after failures."),
        provider=provider,
        hint=say("Wait {seconds} s and ask again.", seconds=f"{wait:.0f}"),
        retry_after=wait,
    )
