"""Loads of local models, one after the other: room is made, options are kept, and what fails leaves no gap."""

from __future__ import annotations

import asyncio
import copy
import logging
import time
from dataclasses import dataclass, field, replace
from functools import partial

from core.errors import RequestRefused
from core.library import Library
from core.residency import Residency
from providers.base import LocalProvider
from providers.errors import Cancelled, ProviderError
from providers.sentences import say
from providers.types import LoadedModel, LoadOptions

log = logging.getLogger(__name__)


@dataclass
class Loads:
    """The loads of one server, by the ids of their models.

    `since` says from when a model is on its way (monotonic seconds), `errors` why the last load of one failed.
    """

    library: Library
    residency: Residency
    device: str
    since: dict[str, float] = field(default_factory=dict)
    errors: dict[str, ProviderError] = field(default_factory=dict)
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock, repr=False)
    _tasks: dict[str, dict[asyncio.Task[LoadedModel], asyncio.Event]] = field(default_factory=dict, repr=False)

    def begin(self, model_id: str) -> None:
        """Remember that a model is on its way, and forget how it failed before."""
        self.since.setdefault(model_id, time.monotonic())
        self.errors.pop(model_id, None)

    def failed(self, model_id: str, error: ProviderError) -> None:
        """Remember why a model is not there."""
        self.errors[model_id] = copy.copy(error)  # Its traceback would hold the half-loaded weights.

    def end(self, model_id: str) -> None:
        """Forget that a model is on its way, unless its load goes on without whoever leaves."""
        if model_id not in self._tasks:
            self.since.pop(model_id, None)

    async def load(self, provider: LocalProvider, name: str, options: LoadOptions | None, force: bool) -> LoadedModel:
        """Load a model in its turn; a caller that leaves does not end the turn of a load that goes on."""
        model_id = f"{provider.info.key}/{name}"
        self.residency.touch(provider, name)
        if base := provider.rests_on(name):
            self.residency.touch(*base)
        if options is None and any(model.name == name for model in provider.loaded()):
            return await provider.load(name)
        cancelled = asyncio.Event()
        load = asyncio.create_task(self._load_in_turn(provider, name, options, force, cancelled))
        self._tasks.setdefault(model_id, {})[load] = cancelled
        load.add_done_callback(partial(self._ended, model_id))
        return await asyncio.shield(load)

    def cancel(self, model_id: str) -> None:
        """End the loads of a model that still wait for their turn."""
        for cancelled in self._tasks.get(model_id, {}).values():
            cancelled.set()

    def wanted(self, model_id: str, options: LoadOptions | None) -> LoadOptions | None:
        """Return the options given, else those chosen last, before a restart too; the settings say an open device."""
        wanted = options or self.library.options(model_id)
        return replace(wanted, device=self.device) if wanted and wanted.device == "auto" else wanted

    async def keep_options(self, model_id: str, options: LoadOptions) -> None:
        """Load a model like this from now on, where that can be written down."""
        try:
            await asyncio.to_thread(self.library.keep_options, model_id, options)
        except RequestRefused as error:
            log.warning("How %s was loaded is not kept: %s", model_id, error)

    async def aclose(self) -> None:
        """Stop all loads."""
        loads = [load for loads in self._tasks.values() for load in loads]
        for load in loads:
            load.cancel()
        await asyncio.gather(*loads, return_exceptions=True)

    async def _load_in_turn(
        self, provider: LocalProvider, name: str, options: LoadOptions | None, force: bool, cancelled: asyncio.Event
    ) -> LoadedModel:
        model_id = f"{provider.info.key}/{name}"
        async with self._turn:
            wanted = self.wanted(model_id, options)
            before = self.residency.resident(provider, name)
            left = [] if cancelled.is_set() else await self.residency.make_room(provider, name, wanted, force)
            try:
                if cancelled.is_set():
                    raise Cancelled(say("The loading was cancelled."), provider=provider.info.key)
                loaded = await provider.load(name, wanted)
            except Exception:
                await self.residency.bring_back([*left, *before])
                raise
            if options:
                await self.keep_options(model_id, options)
        return loaded

    def _ended(self, model_id: str, load: asyncio.Task[LoadedModel]) -> None:
        del self._tasks[model_id][load]
        if not self._tasks[model_id]:
            del self._tasks[model_id]
            self.end(model_id)
        if not load.cancelled() and isinstance(error := load.exception(), ProviderError):
            self.failed(model_id, error)  # Whoever waited may have left.
