"""Which providers there are. A new one is a line here; its module is imported when it is first used."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from types import MappingProxyType

from providers.base import Provider
from providers.types import ProviderSettings

PROVIDERS = MappingProxyType(
    {
        "transformers": "providers.transformers_local:TransformersProvider",
        "tuned": "providers.tuned:TunedProvider",
    }
)


def create_provider(key: str, settings: ProviderSettings, others: Callable[[str], Provider]) -> Provider:
    """Make the provider `key`; `others` gives it those it builds on. Raises KeyError for a key not in the catalog."""
    module_name, class_name = PROVIDERS[key].split(":")
    provider_class: type[Provider] = getattr(import_module(module_name), class_name)
    return provider_class(settings, others)
