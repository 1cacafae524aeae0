"""Refusals are sentences, in any language."""

from __future__ import annotations

from core.errors import InvalidRequest
from providers.errors import ModelNotFound, ProviderError, RateLimited, Rejected
from providers.sentences import say


def test_a_refusal_says_what_happened_and_what_to_do() -> None:
    assert str(InvalidRequest(say("No {thing}.", thing="tea"), say("Boil water."))) == "No tea. Boil water."
    assert str(InvalidRequest(say("No tea."))) == "No tea."
    assert str(ModelNotFound(say("No model."), hint=say("Look again."))) == "No model. Look again."


def test_a_sentence_without_values_may_hold_braces_and_values_are_not_templates() -> None:
    assert str(say('{"role": "user"}')) == '{"role": "user"}'
    assert str(say("It is {value}.", value="{secret}")) == "It is {secret}."


def test_errors_of_providers_are_sorted() -> None:
    limited = RateLimited(say("Too many."), retry_after=2.5)

    assert isinstance(limited, Rejected)
    assert isinstance(limited, ProviderError)
    assert (limited.status, limited.retry_after) == (429, 2.5)
