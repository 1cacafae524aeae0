"""Tuned models: adapters that runs left, answering on the base model's own weights in memory."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractContextManager, aclosing
from dataclasses import dataclass, replace
from pathlib import Path

from providers.base import LocalProvider, Provider
from providers.errors import ModelNotFound, Rejected
from providers.local_folders import ModelFolder
from providers.sentences import say
from providers.transformers_local import TransformersProvider
from providers.types import (
    Capabilities,
    ChatRequest,
    LoadedModel,
    LoadOptions,
    MemoryEstimate,
    Message,
    ModelInfo,
    ProviderInfo,
    ProviderSettings,
    StreamEvent,
)

CARD = "tuned.json"
ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")  # Without the second, PEFT would read a pickle.


@dataclass(frozen=True)
class Card:
    """What a run's folder says of its tuned model: the base's name within `transformers`, and the adapter's folder."""

    base: str
    adapter: Path


class TunedProvider(LocalProvider):
    """Answers as `tuned/<run>`, beside its base and on one copy of its weights."""

    info = ProviderInfo(
        key="tuned",
        label="Tuned here",
        local=True,
        needs="a run that finished or was stopped",
        docs_url="https://huggingface.co/docs/peft",
    )

    def __init__(self, settings: ProviderSettings, others: Callable[[str], Provider]) -> None:
        self._runs_dir = settings.runs_dir
        self._others = others

    @property
    def _engine(self) -> TransformersProvider:
        engine = self._others("transformers")
        assert isinstance(engine, TransformersProvider)
        return engine

    async def list_models(self) -> list[ModelInfo]:
        cards = sorted(self._runs_dir.glob(f"*/{CARD}"), key=lambda card: card.stat().st_mtime, reverse=True)
        models = []
        for card in cards:
            try:
                models.append(await self.find_model(card.parent.name))
            except ModelNotFound:
                continue
        return models

    async def find_model(self, model: str) -> ModelInfo:
        card = self._card(model)
        base = await self._engine.find_model(card.base)
        if base.source == "hub":
            raise ModelNotFound(
                say("The base of {name} is not on this machine: {base}.", name=model, base=card.base),
                provider=self.info.key,
                hint=say("Put its folder back, or ask {base} once to download it.", base=card.base),
            )
        return replace(
            base,
            name=model,
            provider=self.info.key,
            source="tuned",
            size_bytes=sum(file.stat().st_size for file in card.adapter.glob("*.safetensors")),
            loaded=any(loaded.name == model for loaded in self.loaded()),
        )

    async def stream(self, request: ChatRequest) -> AsyncGenerator[StreamEvent, None]:
        card = self._card(request.model)
        async with aclosing(self._engine.stream(replace(request, model=card.base, adapter=card.adapter))) as events:
            async for event in events:
                yield event

    def capabilities(self, model: str) -> Capabilities:
        return self._engine.capabilities(model)

    async def count_tokens(self, messages: Sequence[Message], model: str) -> int:
        return await self._engine.count_tokens(messages, self._card(model).base)

    async def load(self, model: str, options: LoadOptions | None = None) -> LoadedModel:
        card = self._card(model)
        return replace(await self._engine.load_adapter(card.base, card.adapter, options), name=model)

    async def unload(self, model: str) -> None:
        for folder, info in self._engine.loaded_adapters().items():  # A run that went on may have left several.
            if folder.parent.name == model:
                self._engine.unload_adapter(info.name, folder)

    def loaded(self) -> list[LoadedModel]:
        adapters = self._engine.loaded_adapters()
        return [replace(info, name=folder.parent.name) for folder, info in adapters.items()]

    async def estimate(self, model: str, options: LoadOptions | None = None) -> MemoryEstimate:
        card = self._card(model)
        base = await self._engine.estimate(card.base, options)
        own = sum(file.stat().st_size for file in card.adapter.glob("*.safetensors"))
        if any(loaded.name == card.base for loaded in self._engine.loaded()):
            return replace(base, weights_bytes=own, kv_cache_bytes=0, overhead_bytes=0)
        return replace(base, weights_bytes=base.weights_bytes + own)

    def is_busy(self, model: str) -> bool:
        adapters = self._engine.loaded_adapters()
        return any(self._engine.is_busy(info.name) for folder, info in adapters.items() if folder.parent.name == model)

    def hold(self, model: str) -> AbstractContextManager[None]:
        return self._engine.hold(self._card(model).base)

    def rests_on(self, model: str) -> tuple[LocalProvider, str]:
        return self._engine, self._card(model).base

    def cancel_load(self, model: str) -> None:
        self._engine.cancel_load(self._card(model).base)

    async def aclose(self) -> None:
        """Nothing is held here: the weights are the engine's."""

    async def training_folder(self, model: str) -> ModelFolder:
        raise Rejected(
            say("{model} is a tuned model.", model=f"tuned/{model}"),
            provider=self.info.key,
            hint=say("Fine-tune its base, {base}, on all the feedback instead.", base=self._card(model).base),
        )

    def _card(self, model: str) -> Card:
        try:
            folder = _within(self._runs_dir, model)
            data = json.loads((folder / CARD).read_text(encoding="utf-8"))
            adapter = _within(folder, data["adapter"])
            for file in ADAPTER_FILES:
                (adapter / file).stat()
            return Card(str(data["base"]), adapter)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ModelNotFound(
                say("There is no tuned model {name}.", name=model[:100]),
                provider=self.info.key,
                hint=say("Choose one of the list; a run has one when it finished or was stopped."),
            ) from error


def _within(folder: Path, name: str) -> Path:
    """Return what is called `name` directly in a folder. Raises ValueError for a name that leads elsewhere."""
    if name in ("", "..") or Path(name).name != name:
        raise ValueError(name)
    return folder / name
