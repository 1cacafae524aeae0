"""The table of providers in the README, from the code: `python -m core.provider_table` prints it."""

from __future__ import annotations

from core.configuration import KEY_VARIABLES
from core.models import Models
from core.parameters import SPECS
from core.settings import Settings
from providers.types import ProviderInfo

HEADS = (
    "provider",
    "what it needs",
    "variables",
    "leaves out",
    "images",
    "reasoning",
    "embeddings",
    "schema",
    "logprobs",
)
SEPARATE = ("json_schema", "logprobs")


def provider_table() -> str:
    """Return the table as Markdown: what the models of each provider can at most."""
    models = Models(Settings())
    lines = [HEADS, tuple("---" for _ in HEADS)]
    for info in models.providers():
        taken = models.provider(info.key).capabilities("").parameters if info.key != "pool" else frozenset(SPECS)
        left_out = [name for name in SPECS if name not in taken and name not in SEPARATE]
        marks = [_mark(name in info.offers) for name in ("images", "reasoning", "embeddings")]
        lines.append(
            (
                f"`{info.key}` {info.label}",
                info.needs,
                " ".join(f"`{name}`" for name in _variables(info)) or "–",
                ", ".join(f"`{name}`" for name in left_out) or "nothing",
                *marks,
                _mark("json_schema" in taken),
                _mark("logprobs" in taken),
            )
        )
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _variables(info: ProviderInfo) -> list[str]:
    address = [info.base_url_variable] if info.base_url_variable else []
    return [*KEY_VARIABLES.get(info.key, ()), *address]


def _mark(offered: bool) -> str:
    return "yes" if offered else "–"


if __name__ == "__main__":
    print(provider_table())
