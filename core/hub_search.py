"""Looking for models on the Hugging Face Hub."""

from __future__ import annotations

from core.model_entries import ModelEntry
from providers.hub_download import telling_errors

FOUND = 20
WEIGHTS_PER_BILLION = 1e9


def search_hub(words: str, token: str | None) -> list[ModelEntry]:
    """Return models of text with safetensors weights, the most downloaded first. Raises Unreachable."""
    from huggingface_hub import HfApi

    with telling_errors(words):
        found = list(
            HfApi(token=token).list_models(
                search=words[:100],
                pipeline_tag="text-generation",
                filter="safetensors",
                sort="downloads",
                limit=FOUND,
                expand=["downloads", "safetensors", "gated", "cardData"],
            )
        )
    return [_entry(model) for model in found]


def _entry(model: object) -> ModelEntry:
    weights = getattr(getattr(model, "safetensors", None), "total", None)
    card = getattr(model, "card_data", None)
    languages = getattr(card, "language", None) or ()
    names = [languages] if isinstance(languages, str) else [str(each) for each in languages]
    return ModelEntry(
        name=str(getattr(model, "id", ""))[:200],
        parameters=weights / WEIGHTS_PER_BILLION if isinstance(weights, int) and weights > 0 else None,
        license=str(getattr(card, "license", None) or "")[:60],
        languages=", ".join(names)[:100],
        gated=bool(getattr(model, "gated", False)),
    )
