"""Which providers there are. A new one is a line here; its module is imported when it is first used."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from types import MappingProxyType

from providers.base import Provider
from providers.types import ProviderSettings

PROVIDERS = MappingProxyType(
    {
        "transformers": "providers.transformers_local:TransformersProvider",
        "tuned": "providers.tuned:TunedProvider",
        "llama_cpp": "providers.llama_cpp:LlamaCppProvider",
        "ollama": "providers.ollama:OllamaProvider",
        "openai": "providers.openai:OpenAIProvider",
        "anthropic": "providers.anthropic:AnthropicProvider",
        "gemini": "providers.gemini:GeminiProvider",
        "huggingface": "providers.huggingface:HuggingFaceProvider",
        "pool": "providers.pool:PoolProvider",
    }
)
PROTOCOLS = ("openai", "anthropic", "gemini", "huggingface", "ollama")


def provider_names(settings: ProviderSettings) -> list[str]:
    """Return the names of all providers: those of the catalog, and the services that the configuration adds."""
    return list(dict.fromkeys([*PROVIDERS, *(endpoint.name for endpoint in settings.endpoints)]))


def create_provider(name: str, settings: ProviderSettings, others: Callable[[str], Provider]) -> Provider:
    """Make the provider `name`; `others` gives it those it builds on. Raises KeyError for a name that is not there."""
    endpoint = next((each for each in settings.endpoints if each.name == name), None)
    module_name, class_name = PROVIDERS[endpoint.protocol if endpoint else name].split(":")
    provider_class: type[Provider] = getattr(import_module(module_name), class_name)
    return provider_class(replace(settings, endpoint=endpoint), others)
