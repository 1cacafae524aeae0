"""Downloads that outlive the page that began them: one for each model, whoever waits for it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Literal

from providers.errors import Cancelled, ProviderError
from providers.sentences import say
from providers.types import Progress

log = logging.getLogger(__name__)

State = Literal["running", "done", "cancelled", "failed"]
TICK_SECONDS = 0.25
KEPT = 50


@dataclass(frozen=True)
class Download:
    """How a download stands; bytes, and the speed in bytes/s since it began here."""

    model_id: str
    state: State = "running"
    progress: Progress = Progress("", 0)
    bytes_per_second: float = 0.0
    error: ProviderError | None = None


@dataclass
class Downloads:
    """The downloads of one server. They go on when nobody looks, and what was cut off goes on from where it was."""

    _jobs: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    _shown: dict[str, Download] = field(default_factory=dict)

    def list(self) -> list[Download]:
        """List the downloads of this server, the newest last."""
        return list(self._shown.values())

    def of(self, model_id: str) -> Download | None:
        """Say how the download of a model stands."""
        return self._shown.get(model_id)

    def start(self, model_id: str, fetch: Callable[[], AsyncGenerator[Progress, None]]) -> None:
        """Begin to fetch a model, unless that is being done."""
        if model_id in self._jobs:
            return
        self._shown.pop(model_id, None)
        self._shown[model_id] = Download(model_id)
        while len(self._shown) > KEPT:
            ended = next((key for key in self._shown if key not in self._jobs), None)
            if ended is None:
                break
            del self._shown[ended]
        self._jobs[model_id] = asyncio.create_task(self._run(model_id, fetch))
        self._jobs[model_id].add_done_callback(lambda _: self._jobs.pop(model_id, None))

    def cancel(self, model_id: str) -> None:
        """Stop a download; what was fetched is kept for the next time."""
        if job := self._jobs.get(model_id):
            job.cancel()

    async def watch(self, model_id: str) -> AsyncGenerator[Download, None]:
        """Yield how a download stands, again and again until it has ended; leaving does not end it.

        Raises the error of a download that failed or was cancelled.
        """
        while job := self._jobs.get(model_id):
            yield self._shown[model_id]
            await asyncio.wait({job}, timeout=TICK_SECONDS)
        ended = self._shown[model_id]
        yield ended
        if ended.error:
            raise ended.error

    async def aclose(self) -> None:
        """Stop all downloads."""
        jobs = list(self._jobs.values())
        for job in jobs:
            job.cancel()
        await asyncio.gather(*jobs, return_exceptions=True)

    async def _run(self, model_id: str, fetch: Callable[[], AsyncGenerator[Progress, None]]) -> None:
        start, first = time.monotonic(), None
        try:
            async with aclosing(fetch()) as steps:
                async for progress in steps:
                    first = progress.done if first is None else first
                    seconds = max(time.monotonic() - start, 1e-3)
                    self._shown[model_id] = Download(
                        model_id, progress=progress, bytes_per_second=max(0, progress.done - first) / seconds
                    )
            self._end(model_id, "done")
        except asyncio.CancelledError:
            cancelled = Cancelled(
                say("The download was cancelled."), hint=say("Start it again to go on from where it was.")
            )
            self._end(model_id, "cancelled", cancelled)
        except ProviderError as error:
            self._end(model_id, "failed", error)
        except Exception:
            log.exception("The download of %s failed", model_id)
            self._end(model_id, "failed", ProviderError(say("The download of {name} was cut off.", name=model_id)))

    def _end(self, model_id: str, state: State, error: ProviderError | None = None) -> None:
        with contextlib.suppress(KeyError):
            self._shown[model_id] = replace(self._shown[model_id], state=state, error=error, bytes_per_second=0.0)
