"""Prices and context lengths that the vendors' lists do not say."""

from __future__ import annotations

from providers.prices import context_window, price_of

OPENAI = "https://api.openai.com/v1"


def test_a_known_model_has_a_price_and_says_where_it_is_from() -> None:
    price = price_of(OPENAI, "gpt-4o")

    assert price is not None
    assert 0 < price.input < price.output
    assert price.date.startswith("genai-prices ")
    assert context_window(OPENAI, "gpt-4o") == 128_000


def test_the_same_name_elsewhere_has_none() -> None:
    for address, model in ((OPENAI, "nobody-knows-this"), ("http://127.0.0.1:8000/v1", "gpt-4o"), ("", "")):
        assert price_of(address, model) is None
        assert context_window(address, model) is None
