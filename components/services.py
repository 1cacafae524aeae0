"""The services that answer beside this machine, in the Models tab: where they are, and a key for this session."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import gradio as gr

from components.errors import error_sentence
from components.texts import language_of, t, text
from components.transcript import FIGURES_MARK, WARNING_MARK
from core.errors import RequestRefused
from core.models import Models
from providers.errors import ProviderError
from providers.types import ProviderInfo

COLUMNS = ("service", "needs", "key", "state")
UNKNOWN = "…"


@dataclass(frozen=True)
class ServicesArea:
    """The table of services, and the form for a key."""

    accordion: gr.Accordion
    table: gr.Dataframe
    service: gr.Dropdown
    key: gr.Textbox
    forget: gr.Button


def build(models: Models) -> ServicesArea:
    """Lay out the area."""
    takes_key = [(info.label, info.key) for info in models.providers() if info.key_variable]
    with gr.Accordion(t("services_title"), open=False, elem_id="services") as accordion:
        gr.Markdown(t("services_instructions"))
        table = gr.Dataframe(
            headers=[t(f"services_{head}") for head in COLUMNS],
            interactive=False,
            elem_id="services-table",
            label=t("services_title"),
            show_label=False,
            buttons=[],
            wrap=True,
        )
        with gr.Row(equal_height=True, elem_id="key-row"):
            service = gr.Dropdown(
                takes_key,
                value=takes_key[0][1],
                label=t("services_service"),
                elem_id="key-service",
                min_width=160,
                scale=1,
            )
            key = gr.Textbox(
                label=t("services_key_label"),
                placeholder=t("services_key_placeholder"),
                type="password",
                max_length=600,
                submit_btn=t("services_use"),
                elem_id="service-key",
                min_width=240,
                scale=3,
            )
            forget = gr.Button(t("services_forget"), elem_id="forget-key", min_width=120, scale=0)
    return ServicesArea(accordion=accordion, table=table, service=service, key=key, forget=forget)


def wire(ui: ServicesArea, models: Models, demo: gr.Blocks) -> list[Any]:
    """Keep and forget keys; return the events after which the list of models is another."""
    quiet: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
    actions = ServiceActions(models)
    demo.load(actions.rows, None, ui.table, queue=False, **quiet)
    demo.unload(actions.leave)
    changes = [
        ui.key.submit(actions.keep, [ui.service, ui.key], [ui.key, ui.table], **quiet),
        ui.forget.click(actions.forget, ui.service, ui.table, **quiet),
    ]
    for event in (ui.accordion.expand, *(change.then for change in changes)):
        event(actions.checked_rows, None, ui.table, concurrency_limit=None, **quiet)
    return changes


@dataclass(frozen=True)
class ServiceActions:
    """What the area does. A key is kept for the page's session alone, and never shown again."""

    models: Models

    def keep(self, service: str, key: str, request: gr.Request) -> tuple[Any, Any]:
        """Keep a key, empty its field, and show the key's end in the table."""
        language = language_of(request)
        try:
            kept = self.models.session_keys.keep(_session(request), self._info(service), key or "")
        except RequestRefused as error:
            gr.Warning(error_sentence(error, language))
            return gr.skip(), gr.skip()
        gr.Info(text("services_kept", language, end=kept.shown))
        return "", self.rows(request)

    def forget(self, service: str, request: gr.Request) -> Any:
        """Forget a key."""
        self.models.session_keys.forget(_session(request), self._info(service).key)
        return self.rows(request)

    async def checked_rows(self, request: gr.Request) -> Any:
        """Return the table with how each service stands, asked now."""
        return self.rows(request, await self.models.for_session(_session(request)).service_errors())

    def rows(self, request: gr.Request, errors: Mapping[str, ProviderError | None] | None = None) -> Any:
        """Return the table; of the services that are not in `errors` nothing is known yet."""
        language = language_of(request)
        typed = self.models.session_keys.of(_session(request))
        services = [info for info in self.models.providers() if info.key_variable or info.base_url]
        return gr.update(
            headers=[text(f"services_{head}", language) for head in COLUMNS],
            value=[
                [
                    info.label,
                    text("services_needs_key", language) if info.key_variable else text("services_no_key", language),
                    typed[info.key].shown if info.key in typed else self._key_state(info, language),
                    _state((errors or {}).get(info.key, UNKNOWN), language),
                ]
                for info in services
            ],
        )

    def leave(self, request: gr.Request) -> None:
        """Forget all keys of a page that was closed."""
        self.models.session_keys.forget(_session(request))

    def _key_state(self, info: ProviderInfo, language: str) -> str:
        if not info.key_variable:
            return "–"
        if self.models.has_key(info.key):
            return text("services_from_server", language, variable=info.key_variable)
        return text("services_none", language)

    def _info(self, service: str) -> ProviderInfo:
        return next(info for info in self.models.providers() if info.key == service)


def _state(error: ProviderError | str | None, language: str) -> str:
    if isinstance(error, ProviderError):
        return f"{WARNING_MARK} {error_sentence(error, language)}"
    return error or f"{FIGURES_MARK} {text('services_answers', language)}"


def _session(request: gr.Request) -> str:
    return str(request.session_hash or "")
