"""The public API of the models of this machine: what fits, loading, freeing, downloading, deleting, the machine.

Gradio documents the types from the annotations and cannot read them as strings: no `from __future__` import here.
"""

import asyncio
import time
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import gradio as gr

from components.api import named_text, session_of
from components.api_models_shapes import (
    CatalogueRow,
    DownloadEvent,
    LoadedRow,
    LoadEvent,
    MachineRow,
    MemoryRow,
    catalogue_row,
    download_event,
    loaded_row,
    machine_row,
    memory_row,
)
from components.errors import ErrorsForPage
from components.texts import language_of
from core.load_options import parse_options
from core.models import Models
from core.resources import measure
from core.users import check_may_manage

TICK_SECONDS = 0.3


@dataclass(frozen=True)
class ModelsApi:
    """The endpoints, as bound methods of the services they call."""

    models: Models

    def register(self) -> None:
        """Publish the endpoints in the Blocks under construction."""
        endpoints: tuple[Callable[..., Any], ...] = (
            self.estimate_memory,
            self.load_model,
            self.unload_model,
            self.cancel_model,
            self.download_model,
            self.delete_model,
            self.make_default,
            self.loaded_models,
            self.list_catalogue,
            self.search_hub,
            self.resources,
        )
        for endpoint in endpoints:
            gr.api(endpoint, api_name=endpoint.__name__, concurrency_limit=None)

    async def estimate_memory(
        self,
        model: str,
        device: str = "auto",
        precision: str = "auto",
        quantization: str = "auto",
        context_length: int | None = None,
        request: gr.Request | None = None,
    ) -> MemoryRow:
        """Say what a model would take in memory, by its files' headers; one of the Hub is not downloaded for that.

        `fit` is "fits", "tight" or "does_not_fit"; `suggestion` says what would fit instead, `reason` why these options
        were chosen.
        """
        with ErrorsForPage(request):
            options = parse_options(device, precision, quantization, context_length)
            return memory_row(
                await self._models(request).estimate(named_text("model", model), options), language_of(request)
            )

    async def load_model(  # type: ignore[misc]  # Gradio documents the type of one event.
        self,
        model: str,
        device: str = "auto",
        precision: str = "auto",
        quantization: str = "auto",
        context_length: int | None = None,
        attention: str = "auto",
        force: bool = False,
        request: gr.Request | None = None,
    ) -> LoadEvent:
        """Load a model with these options, streamed as events; it is downloaded first where it is not here yet.

        Events are {"type": "progress", "seconds", "done_bytes", "total_bytes"}; the last is {"type": "done", "loaded"}.
        `device` is auto, cpu, cuda, cuda:N, mps or spread; `precision` auto, fp32, bf16 or fp16; `quantization` auto,
        none, int8 or nf4. What does not fit is refused with the figures, unless `force`. If it fails, what was loaded
        before still answers.
        """
        with ErrorsForPage(request):
            models = self._models(request)
            check_may_manage(models.settings)
            options = parse_options(device, precision, quantization, context_length, attention)
            start = time.monotonic()
            load = asyncio.ensure_future(models.load(named_text("model", model), True, options, bool(force)))
            while not load.done():
                yield {"type": "progress", "seconds": round(time.monotonic() - start, 1), **self._bytes_of(model)}
                await asyncio.wait({load}, timeout=TICK_SECONDS)
            info = load.result()
            model_id = f"{info.provider}/{info.name}"
            loaded = models.state(model_id).loaded
            yield {
                "type": "done",
                "seconds": round(time.monotonic() - start, 1),
                "loaded": loaded_row(model_id, loaded, models.speeds, language_of(request)) if loaded else None,
            }

    async def unload_model(self, model: str, request: gr.Request | None = None) -> list[LoadedRow]:
        """Free a model's memory, unless it is answering; return what is still loaded."""
        with ErrorsForPage(request):
            await self._models(request).unload(named_text("model", model))
        return await self.loaded_models(request)

    async def cancel_model(self, model: str, request: gr.Request | None = None) -> list[LoadedRow]:
        """End the loading or the download of a model; what was downloaded is kept for the next time."""
        with ErrorsForPage(request):
            self._models(request).cancel(named_text("model", model))
        return await self.loaded_models(request)

    async def download_model(self, model: str, request: gr.Request | None = None) -> DownloadEvent:  # type: ignore[misc]
        """Download a model of the Hub or of Ollama, streamed as events with the bytes done and in all.

        It goes on when the caller leaves, and one that was cut off goes on from where it was. The last event has the
        state "done".
        """
        with ErrorsForPage(request):
            async with aclosing(self._models(request).download(named_text("model", model))) as states:
                async for state in states:
                    yield download_event(state)

    async def delete_model(self, model: str, request: gr.Request | None = None) -> list[LoadedRow]:
        """Delete a model in simpleIA's folder or in the Hugging Face cache from the disk."""
        with ErrorsForPage(request):
            await self._models(request).delete(named_text("model", model))
        return await self.loaded_models(request)

    async def make_default(self, model: str, request: gr.Request | None = None) -> str:
        """Let a model answer where none is named, from now on and after a restart; return its id."""
        with ErrorsForPage(request):
            return await self._models(request).make_default(named_text("model", model))

    async def loaded_models(self, request: gr.Request | None = None) -> list[LoadedRow]:
        """List the models in memory, with what each was estimated and measured to take, and its last speed."""
        found = self.models.residency.residents()
        return [
            loaded_row(
                f"{each.provider.info.key}/{each.model.name}", each.model, self.models.speeds, language_of(request)
            )
            for each in found
        ]

    async def list_catalogue(self, request: gr.Request | None = None) -> list[CatalogueRow]:
        """List the models that are suggested, and those that the owner wrote down."""
        return [catalogue_row(entry, language_of(request)) for entry in self.models.known_entries()]

    async def search_hub(self, words: str, request: gr.Request | None = None) -> list[CatalogueRow]:
        """Search the Hugging Face Hub for models of text with safetensors weights, the most downloaded first."""
        with ErrorsForPage(request):
            found = await self._models(request).search(named_text("words", words))
            return [catalogue_row(entry, language_of(request)) for entry in found]

    async def resources(self, request: gr.Request | None = None) -> MachineRow:
        """Measure the machine now: processor, memory within the container's limits, GPUs, disk."""
        return machine_row(await asyncio.to_thread(measure, self.models.settings.data_dir))

    def _bytes_of(self, model: str) -> dict[str, Any]:
        progress = self.models.state(model).progress
        return {"done_bytes": progress.done, "total_bytes": progress.total} if progress else {}

    def _models(self, request: gr.Request | None) -> Models:
        return self.models.for_session(session_of(request))
