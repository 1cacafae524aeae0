"""The public API of the sources of answers: which there are, a key for this session, embeddings.

Gradio documents the types from the annotations and cannot read them as strings: no `from __future__` import here.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gradio as gr

from components.api import named_text, session_of
from components.api_shapes import Embeddings, ProviderRow
from components.errors import ErrorsForPage
from core.errors import InvalidRequest, NotFound
from core.models import Models
from core.sessions import SessionModels
from providers.sentences import say
from providers.types import ProviderInfo

MAX_TEXTS = 256
MAX_CHARACTERS = 200_000


@dataclass(frozen=True)
class ProvidersApi:
    """The endpoints, as bound methods of the services they call."""

    models: Models
    sessions: SessionModels

    def register(self) -> None:
        """Publish the endpoints in the Blocks under construction."""
        endpoints: tuple[Callable[..., Any], ...] = (self.list_providers, self.set_key, self.forget_key, self.embed)
        for endpoint in endpoints:
            gr.api(endpoint, api_name=endpoint.__name__, concurrency_limit=None)

    async def list_providers(self, request: gr.Request | None = None) -> list[ProviderRow]:
        """List the sources of answers, with the address of each and the variable that holds its key."""
        return [self._row(info, request) for info in self.models.providers()]

    async def set_key(self, provider: str, key: str, request: gr.Request | None = None) -> ProviderRow:
        """Use a key for one provider in this session; it is kept in memory only, and sent to its own address only.

        Of the key, only its last four characters are ever shown again.
        """
        with ErrorsForPage(request):
            info = self._provider(provider)
            self.models.session_keys.keep(session_of(request), info, named_text("key", key))
        return self._row(info, request)

    async def forget_key(self, provider: str = "", request: gr.Request | None = None) -> list[ProviderRow]:
        """Forget the key of one provider, or all keys of this session."""
        with ErrorsForPage(request):
            self.models.session_keys.forget(session_of(request), self._provider(provider).key if provider else "")
        return await self.list_providers(request)

    async def embed(self, texts: list[str], model: str = "", request: gr.Request | None = None) -> Embeddings:
        """Return the embedding of each text, a list of numbers, from a model that gives embeddings."""
        with ErrorsForPage(request):
            if not isinstance(texts, list) or not texts or not all(isinstance(text, str) and text for text in texts):
                raise InvalidRequest(say("texts must be a list of texts, none of them empty."))
            if len(texts) > MAX_TEXTS or sum(map(len, texts)) > MAX_CHARACTERS:
                raise InvalidRequest(
                    say(
                        "At most {count} texts of {length} characters in all are taken.",
                        count=MAX_TEXTS,
                        length=MAX_CHARACTERS,
                    )
                )
            models = self.models.for_session(session_of(request))
            model_id = models.full_id(named_text("model", model) or self.sessions.chosen(session_of(request)))
            rows = await models.embed(texts, model_id)
        return {"embeddings": [list(row) for row in rows], "model": model_id}

    def _provider(self, name: Any) -> ProviderInfo:
        for info in self.models.providers():
            if info.key == named_text("provider", name):
                return info
        raise NotFound(say("There is no provider {name}.", name=str(name)[:100]), say("Choose one of /list_providers."))

    def _row(self, info: ProviderInfo, request: gr.Request | None) -> ProviderRow:
        typed = self.models.session_keys.of(session_of(request)).get(info.key)
        return {
            "provider": info.key,
            "label": info.label,
            "local": info.local,
            "docs_url": info.docs_url,
            "base_url": info.base_url if self.models.settings.auth == "off" else None,
            "key_variable": info.key_variable,
            "key": typed.shown if typed else None,
        }
