"""Which models stay in memory: what was used longest ago leaves first, and nothing leaves that answers."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from providers.base import LocalProvider
from providers.errors import OutOfMemory, ProviderError
from providers.sentences import say
from providers.types import LoadedModel, LoadOptions, MemoryEstimate

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Resident:
    """A model in memory, with who holds it and when it was used last (monotonic seconds)."""

    provider: LocalProvider
    model: LoadedModel
    used_at: float

    @property
    def held_bytes(self) -> int:
        """What it would give back."""
        return max(self.model.memory_bytes, self.model.measured_bytes or 0)


@dataclass
class Residency:
    """Makes room for models over all local providers, and brings back what left in vain."""

    providers: Callable[[], Iterable[LocalProvider]]
    _used_at: dict[tuple[str, str], float] = field(default_factory=dict)

    def touch(self, provider: LocalProvider, name: str) -> None:
        """Remember that a model is used now."""
        self._used_at[provider.info.key, name] = time.monotonic()

    def residents(self) -> list[Resident]:
        """List what is in memory, the model used longest ago first."""
        found = [
            Resident(provider, model, self._used_at.get((provider.info.key, model.name), 0.0))
            for provider in self.providers()
            for model in provider.loaded()
        ]
        return sorted(found, key=lambda resident: resident.used_at)

    def resident(self, provider: LocalProvider, name: str) -> list[Resident]:
        """Return the model `name` where it is in memory, else nothing."""
        return [each for each in self.residents() if _is(each, provider, name)]

    async def make_room(
        self, provider: LocalProvider, name: str, options: LoadOptions | None, force: bool
    ) -> list[Resident]:
        """Free idle models until `name` fits; return those that left. Raises OutOfMemory where that is not enough.

        With `force` nothing is refused: what can leave leaves, and the rest is tried.
        """
        estimate = await provider.estimate(name, options)
        own = sum(  # It leaves for itself.
            each.held_bytes for each in self.resident(provider, name) if _shares_memory(each.model, estimate)
        )
        if estimate.total_bytes <= estimate.available_bytes + own:
            return []
        leavers = [each for each in self.residents() if self._may_leave(each, provider, name, estimate)]
        lacking = estimate.total_bytes - estimate.available_bytes - own
        if sum(each.held_bytes for each in leavers) < lacking and not force:
            raise _does_not_fit(name, estimate, sum(each.held_bytes for each in leavers))
        left: list[Resident] = []
        for leaver in leavers:
            if leaver.provider.is_busy(leaver.model.name):
                continue
            await leaver.provider.unload(leaver.model.name)
            left.append(leaver)
            estimate = await provider.estimate(name, options)
            if estimate.total_bytes <= estimate.available_bytes + own:
                return left
        if force:
            return left
        await self.bring_back(left)
        raise _does_not_fit(name, estimate, 0)

    async def bring_back(self, left: Iterable[Resident]) -> None:
        """Load again what left for a model that then could not be loaded."""
        for each in left:
            try:
                await each.provider.load(each.model.name)
            except ProviderError as error:
                log.warning("%s could not be loaded again: %s", each.model.name, error)

    def _may_leave(self, each: Resident, provider: LocalProvider, name: str, estimate: MemoryEstimate) -> bool:
        shares = _shares_memory(each.model, estimate)
        return shares and not _is(each, provider, name) and not each.provider.is_busy(each.model.name)


def _is(each: Resident, provider: LocalProvider, name: str) -> bool:
    return each.provider is provider and each.model.name == name


def _shares_memory(model: LoadedModel, estimate: MemoryEstimate) -> bool:
    if "spread" in (model.device, estimate.device):
        return "cpu" not in (model.device, estimate.device)
    return model.device == estimate.device


def _does_not_fit(name: str, estimate: MemoryEstimate, freeable: int) -> OutOfMemory:
    return OutOfMemory(
        say(
            "{model} needs about {needed} on {device}, and {free} are free.",
            model=name,
            needed=_gigabytes(estimate.total_bytes),
            device=estimate.device,
            free=_gigabytes(estimate.available_bytes + freeable),
        ),
        hint=estimate.suggestion,
    )


def _gigabytes(size_bytes: int) -> str:
    return f"{size_bytes / 1e9:.1f} GB"
