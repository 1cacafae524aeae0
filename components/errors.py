"""One mapping from our errors to what a person sees; anything else is logged and told without its inside."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from types import TracebackType

import gradio as gr

from components.texts import in_language, language_of, text
from core.errors import RequestRefused
from core.feedback_files import RowError
from providers.errors import ProviderError
from providers.sentences import say

log = logging.getLogger(__name__)


def error_sentence(error: Exception, language: str = "en") -> str:
    """Return what happened and what to do, in `language`."""
    if not isinstance(error, RequestRefused | ProviderError):
        log.error("unexpected error", exc_info=error)
        return in_language(say("Something unexpected went wrong. The server's log says more."), language)
    parts = (error.message, error.hint)
    return " ".join(in_language(part, language) for part in parts if part)


def for_page(error: Exception, language: str = "en") -> gr.Error:
    """Return the error that Gradio shows on the page and sends to API clients."""
    return gr.Error(error_sentence(error, language), print_exception=False)


class ErrorsForPage:
    """What goes wrong inside is told to the caller of an endpoint, in the language of the request."""

    def __init__(self, request: gr.Request | None) -> None:
        self._language = language_of(request)

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, Exception):
            raise for_page(error, self._language) from None


def row_errors(errors: Sequence[RowError], language: str, most: int = 5) -> str:
    """Say why rows of a file were left out, a line each for the first ones."""
    lines = [
        text("row_error", language, row=error.row, reason=in_language(error.reason, language))
        for error in errors[:most]
    ]
    return "\n".join((text("row_errors", language, count=len(errors)), *(f"- {line}" for line in lines)))
