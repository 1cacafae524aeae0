"""What vendors' lists of models do not say: context lengths, and prices, from the data of the package genai-prices."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version

from providers.types import Price

PACKAGE = "genai-prices"
MILLION, USUAL = 1_000_000, 1000  # tokens


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
    """Return what a million tokens cost in conversations of usual length; some vendors ask more for the longest."""
    read, written = cost_of(base_url, model, USUAL, 0), cost_of(base_url, model, 0, USUAL)
    if read is None or written is None:
        return None
    return Price(read * MILLION / USUAL, written * MILLION / USUAL, f"{PACKAGE} {version(PACKAGE)}")


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
