"""The shapes of the API of this machine's models, and how the core's values become them. Sizes are bytes throughout."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypedDict

from components.texts import in_language
from core.downloads import Download
from core.model_entries import ModelEntry
from core.resources import Resources
from providers.types import LoadedModel, MemoryEstimate


class MemoryRow(TypedDict):
    """What a model would take; `context_length` in tokens."""

    device: str
    precision: str
    quantization: str
    context_length: int
    weights_bytes: int
    kv_cache_bytes: int
    overhead_bytes: int
    total_bytes: int
    available_bytes: int
    fits: bool
    fit: Literal["fits", "tight", "does_not_fit"]
    reason: str
    suggestion: str | None


class LoadedRow(TypedDict):
    """A model in memory: estimated and measured bytes, seconds since 1970, and tokens/s of its last answer."""

    id: str
    device: str
    precision: str
    quantization: str
    context_length: int
    memory_bytes: int
    estimated_bytes: int | None
    measured_bytes: int | None
    load_seconds: float
    loaded_at: float
    tokens_per_second: float | None
    reason: str | None


class LoadEvent(TypedDict, total=False):
    """One event of a load; `loaded` comes with `done`, the last one."""

    type: Literal["progress", "done"]
    seconds: float
    done_bytes: int
    total_bytes: int | None
    loaded: LoadedRow | None


class DownloadEvent(TypedDict):
    """How a download stands."""

    id: str
    state: Literal["running", "done", "cancelled", "failed"]
    done_bytes: int
    total_bytes: int | None
    bytes_per_second: float


class CatalogueRow(TypedDict):
    """A model that could be downloaded or asked; `parameters` are billions of weights."""

    id: str
    name: str
    local: bool
    parameters: float | None
    size: Literal["tiny", "small", "middle", "large"] | None
    context_length: int | None
    quantization: str | None
    license: str
    languages: str
    gated: bool
    note: str


class MemoryNow(TypedDict):
    """Memory, or a disk: all of it, and what is free."""

    total_bytes: int
    available_bytes: int


class GpuRow(TypedDict):
    """A GPU; what other programs hold is not free."""

    device: str
    name: str
    total_bytes: int
    available_bytes: int


class CpuRow(TypedDict):
    """The processor."""

    name: str
    cores: int
    features: list[str]


class MachineRow(TypedDict):
    """The machine now."""

    cpu: CpuRow
    ram: MemoryNow
    gpus: list[GpuRow]
    disk: MemoryNow
    own_bytes: int


def memory_row(estimate: MemoryEstimate, language: str) -> MemoryRow:
    """Return an estimate as the API shows it."""
    return {
        "device": estimate.device,
        "precision": estimate.precision,
        "quantization": estimate.quantization,
        "context_length": estimate.context_length,
        "weights_bytes": estimate.weights_bytes,
        "kv_cache_bytes": estimate.kv_cache_bytes,
        "overhead_bytes": estimate.overhead_bytes,
        "total_bytes": estimate.total_bytes,
        "available_bytes": estimate.available_bytes,
        "fits": estimate.fit != "does_not_fit",
        "fit": estimate.fit,
        "reason": in_language(estimate.reason, language),
        "suggestion": in_language(estimate.suggestion, language) if estimate.suggestion else None,
    }


def loaded_row(model_id: str, model: LoadedModel, speeds: Mapping[str, float], language: str) -> LoadedRow:
    """Return a model in memory as the API shows it."""
    return {
        "id": model_id,
        "device": model.device,
        "precision": model.precision,
        "quantization": model.quantization,
        "context_length": model.context_length,
        "memory_bytes": model.memory_bytes,
        "estimated_bytes": model.estimated_bytes,
        "measured_bytes": model.measured_bytes,
        "load_seconds": round(model.load_seconds, 3),
        "loaded_at": model.loaded_at,
        "tokens_per_second": speeds.get(model_id),
        "reason": in_language(model.reason, language) if model.reason else None,
    }


def download_event(download: Download) -> DownloadEvent:
    """Return how a download stands as the API shows it."""
    return {
        "id": download.model_id,
        "state": download.state,
        "done_bytes": download.progress.done,
        "total_bytes": download.progress.total,
        "bytes_per_second": round(download.bytes_per_second),
    }


def catalogue_row(entry: ModelEntry, language: str) -> CatalogueRow:
    """Return a model that is suggested or found as the API shows it."""
    return {
        "id": entry.model_id,
        "name": entry.name,
        "local": entry.local,
        "parameters": entry.parameters,
        "size": entry.size,
        "context_length": entry.context_length,
        "quantization": entry.quantization,
        "license": entry.license,
        "languages": entry.languages,
        "gated": entry.gated,
        "note": note_in(entry, language),
    }


def note_in(entry: ModelEntry, language: str) -> str:
    """Return an entry's note in a language; in English where there is no other."""
    return (entry.note_es if language == "es" else "") or entry.note


def machine_row(resources: Resources) -> MachineRow:
    """Return the machine as the API shows it."""
    return {
        "cpu": {
            "name": resources.processor.name,
            "cores": resources.processor.cores,
            "features": list(resources.processor.features),
        },
        "ram": {"total_bytes": resources.ram.total_bytes, "available_bytes": resources.ram.available_bytes},
        "gpus": [
            {
                "device": gpu.device,
                "name": gpu.name,
                "total_bytes": gpu.memory.total_bytes,
                "available_bytes": gpu.memory.available_bytes,
            }
            for gpu in resources.gpus
        ],
        "disk": {"total_bytes": resources.disk.total_bytes, "available_bytes": resources.disk.available_bytes},
        "own_bytes": resources.own_bytes,
    }
