"""What vendors' lists of models do not say: context lengths, and prices, from the data of the package genai-prices."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version

from providers.types import Price

PACKAGE = "genai-prices"
MILLION = 1_000_000


@cache
def context_window(base_url: str, model: str) -> int | None:
    """Return how many tokens a model of the service at this address reads; `None` where that is not known."""
    from genai_prices.data_snapshot import get_snapshot

    try:
        _, known = get_snapshot().find_provider_model(model, None, None, base_url)
    except LookupError:
        return None
    return known.context_window


@cache
def price_of(base_url: str, model: str) -> Price | None:
    """Return what a million tokens cost; the longest prompts may cost more, which a turn's price counts."""
    cost = cost_of(base_url, model, MILLION, 0), cost_of(base_url, model, 0, MILLION)
    if cost[0] is None or cost[1] is None:
        return None
    return Price(cost[0], cost[1], f"{PACKAGE} {version(PACKAGE)}")


def cost_of(base_url: str, model: str, prompt_tokens: int, completion_tokens: int) -> float | None:
    """Return what a turn costs in US dollars; `None` where the price is not known."""
    from genai_prices import Usage, calc_price

    try:
        price = calc_price(
            Usage(input_tokens=prompt_tokens, output_tokens=completion_tokens),
            model,
            provider_api_url=base_url,
            genai_request_timestamp=datetime.now(UTC),
        )
    except LookupError:
        return None
    return float(price.total_price)
