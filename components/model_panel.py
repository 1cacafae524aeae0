"""The management part of the Models tab: the machine, what is in memory, what is suggested, and one model in detail."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from html import escape
from typing import Any

import gradio as gr

from components.api_models_shapes import note_in
from components.errors import error_sentence
from components.model_words import downloads_html, estimate_html, loaded_html, machine_html
from components.texts import language_of, t, text
from core.errors import RequestRefused
from core.load_options import parse_options
from core.model_entries import ModelEntry
from core.models import Models
from core.resources import measure
from providers.errors import ProviderError
from providers.types import ATTENTIONS, DEVICES, PRECISIONS, QUANTIZATIONS, LoadOptions

IS_OPEN = "() => document.querySelector('#machine')?.checkVisibility() ?? false"
TICK_SECONDS = 2.0
OPTIONS = ("device", "precision", "quantization", "attention")
COLUMNS = ("model", "size", "context", "licence", "languages", "note")


@dataclass(frozen=True)
class Overview:
    """The machine and what is in memory, looked at every two seconds while the tab is open."""

    machine: gr.HTML
    loaded: gr.HTML
    downloads: gr.HTML
    timer: gr.Timer
    is_open: gr.Checkbox

    @property
    def shown(self) -> list[gr.components.Component]:
        """What a look changes."""
        return [self.machine, self.loaded, self.downloads]


@dataclass(frozen=True)
class Suggestions:
    """The catalogue, and what a search on the Hub found."""

    catalogue: gr.Dataframe
    words: gr.Textbox
    found: gr.Dataframe


@dataclass(frozen=True)
class Detail:
    """What would be done with the model that the field names, and how."""

    estimate: gr.HTML
    options: tuple[gr.components.Component, ...]
    force: gr.Checkbox
    load: gr.Button
    cancel: gr.Button
    unload: gr.Button
    download: gr.Button
    default: gr.Button
    delete: gr.Button
    confirm: gr.Button
    keep: gr.Button
    asking: gr.Row


def build_overview() -> Overview:
    """Lay out the machine, and what is in memory."""
    machine = gr.HTML(elem_id="machine", padding=False)
    gr.Markdown(t("loaded_title"))
    loaded = gr.HTML(elem_id="loaded-models", padding=False)
    downloads = gr.HTML(elem_id="downloads", padding=False)
    is_open = gr.Checkbox(visible=False, value=False)
    return Overview(machine, loaded, downloads, gr.Timer(TICK_SECONDS, active=False), is_open)


def build_suggestions() -> Suggestions:
    """Lay out the catalogue and the search."""
    with gr.Accordion(t("catalogue_title"), open=False, elem_id="catalogue"):
        catalogue = _table("catalogue-table")
    with gr.Accordion(t("hub_title"), open=False, elem_id="hub"):
        words = gr.Textbox(label=t("hub_words"), submit_btn=t("hub_search"), elem_id="hub-words", max_length=100)
        found = _table("hub-table")
    return Suggestions(catalogue, words, found)


def build_detail() -> Detail:
    """Lay out what can be done with one model."""
    estimate = gr.HTML(elem_id="estimate", padding=False)
    with gr.Accordion(t("options_title"), open=False, elem_id="load-options"):
        with gr.Row():
            choices = (DEVICES, PRECISIONS, QUANTIZATIONS, ATTENTIONS)
            device, precision, quantization, attention = map(_choice, OPTIONS, choices)
        context = gr.Number(
            None, precision=0, label=t("option_context"), info=t("option_context_help"), elem_id="option-context"
        )
        force = gr.Checkbox(False, label=t("option_force"), info=t("option_force_help"), elem_id="option-force")
    with gr.Row():
        load = gr.Button(t("model_load"), variant="primary", elem_id="load-model", min_width=110)
        cancel = gr.Button(t("model_cancel"), elem_id="cancel-model", min_width=110)
    with gr.Row():
        download = gr.Button(t("model_download"), elem_id="download-model", min_width=110, size="sm")
        unload = gr.Button(t("model_unload"), elem_id="unload-model", min_width=110, size="sm")
        default = gr.Button(t("model_default"), elem_id="default-model", min_width=110, size="sm")
        delete = gr.Button(t("model_delete"), elem_id="delete-model", min_width=110, size="sm")
    with gr.Row(visible=False, elem_id="delete-question") as asking:
        confirm = gr.Button(t("model_delete_confirm"), variant="stop", elem_id="confirm-delete", min_width=110)
        keep = gr.Button(t("model_keep"), elem_id="keep-model", min_width=110)
    options = (device, precision, quantization, context, attention)
    return Detail(estimate, options, force, load, cancel, unload, download, default, delete, confirm, keep, asking)


def _choice(option: str, choices: tuple[str, ...]) -> gr.Dropdown:
    return gr.Dropdown(
        list(choices),
        value="auto",
        label=t(f"option_{option}"),
        elem_id=f"option-{option}",
        allow_custom_value=option == "device",  # As in cuda:1.
        filterable=option == "device",
        min_width=120,
    )


def _table(elem_id: str) -> gr.Dataframe:
    return gr.Dataframe(
        headers=[t(f"catalogue_{heading}") for heading in COLUMNS],
        interactive=False,
        elem_id=elem_id,
        show_label=False,
        buttons=[],
        wrap=True,
        column_widths=["25%", "11%", "12%", "13%", "13%", "26%"],
    )


def wire(
    overview: Overview,
    suggestions: Suggestions,
    detail: Detail,
    area: gr.Tab,
    model: gr.Textbox,
    models: Models,
    lists: dict[str, Any],
    demo: gr.Blocks,
) -> None:
    """The overview is looked at while the tab is open; a row of a list names its model in the field `model`."""
    quiet: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden", "concurrency_limit": None}
    slow = quiet | {"show_progress": "minimal", "show_progress_on": detail.estimate}
    actions = PanelActions(models)
    look: dict[str, Any] = {"fn": actions.look, "inputs": None, "outputs": overview.shown, **quiet}
    ask: dict[str, Any] = {
        "fn": actions.estimate,
        "inputs": [model, *detail.options],
        "outputs": detail.estimate,
        **slow,
        "trigger_mode": "always_last",
    }
    area.select(lambda: gr.Timer(active=True), None, overview.timer, **quiet).then(**look)
    demo.load(actions.open, None, [model, suggestions.catalogue], **quiet)
    overview.timer.tick(actions.look_again, overview.is_open, [*overview.shown, overview.timer], js=IS_OPEN, **quiet)
    gr.on([model.change, *(option.change for option in detail.options)], **ask)
    for table in (suggestions.catalogue, suggestions.found):
        table.select(actions.name_row, None, model, **quiet)
    suggestions.words.submit(
        actions.search, suggestions.words, suggestions.found, **quiet | {"show_progress": "minimal"}
    )
    detail.cancel.click(actions.cancel, model, None, **quiet).then(**look)
    detail.unload.click(actions.unload, model, None, **quiet).then(**look).then(**ask).then(**lists)
    detail.download.click(actions.download, model, overview.downloads, **quiet).then(**look).then(**ask).then(**lists)
    detail.default.click(actions.prefer, model, None, **quiet)
    named = gr.State("")  # What the question is about stays, whatever the field holds when it is answered.
    detail.delete.click(actions.ask_to_delete, model, [detail.asking, detail.confirm, named], **quiet)
    detail.keep.click(lambda: gr.update(visible=False), None, detail.asking, **quiet)
    detail.confirm.click(actions.delete, named, detail.asking, **quiet).then(**look).then(**lists)


@dataclass(frozen=True)
class PanelActions:
    """What the panel does, for the person who asks."""

    models: Models

    async def open(self, request: gr.Request) -> tuple[Any, Any]:
        """Name the model that is being fetched, if any, and list what is suggested."""
        running = [each.model_id for each in self.models.downloads.list() if each.state == "running"]
        rows = _rows(self.models.known_entries(), language_of(request))
        return running[-1] if running else gr.skip(), rows

    async def look(self, request: gr.Request) -> tuple[str, str, str]:
        """Show the machine, what is in memory, and what is being fetched."""
        language = language_of(request)
        resources = await asyncio.to_thread(measure, self.models.settings.data_dir)
        return (
            machine_html(resources, language),
            loaded_html(self.models.residency.residents(), self.models.speeds, language),
            downloads_html(self.models.downloads.list(), language),
        )

    async def look_again(self, is_open: bool, request: gr.Request) -> list[Any]:
        """Show the same again, or stop looking where the tab is not open any more."""
        if is_open:
            return [*await self.look(request), gr.skip()]
        return [gr.skip(), gr.skip(), gr.skip(), gr.Timer(active=False)]

    async def estimate(self, request: gr.Request, model: str, *values: Any) -> str:
        """Show what the named model would take with these options."""
        language = language_of(request)
        if not model.strip():
            return ""
        try:
            estimate = await self._models(request).estimate(model, options_of(values))
        except (ProviderError, RequestRefused) as error:
            return f"<p class='quiet'>{escape(error_sentence(error, language))}</p>"
        return estimate_html(estimate, language)

    def name_row(self, event: gr.SelectData) -> str:
        """Return the model of the row that was clicked."""
        return str(event.row_value[0])

    async def search(self, words: str, request: gr.Request) -> Any:
        """Look for models on the Hub."""
        try:
            found = await self._models(request).search(words)
        except (ProviderError, RequestRefused) as error:
            gr.Warning(error_sentence(error, language_of(request)))
            return gr.skip()
        return _rows(found, language_of(request))

    async def download(self, model: str, request: gr.Request) -> Any:
        """Fetch the named model and show how far it is; leaving the page does not end it."""
        language = language_of(request)
        try:
            async for _ in self._models(request).download(model):
                yield downloads_html(self.models.downloads.list(), language)
        except (ProviderError, RequestRefused) as error:
            gr.Warning(error_sentence(error, language))

    async def cancel(self, model: str, request: gr.Request) -> None:
        """End the loading and the download of the named model."""
        await self._telling(request, self._cancel(model, request))

    async def unload(self, model: str, request: gr.Request) -> None:
        """Free the named model."""
        await self._telling(request, self._models(request).unload(model))

    async def prefer(self, model: str, request: gr.Request) -> None:
        """Let the named model answer where none is named."""
        if chosen := await self._telling(request, self._models(request).make_default(model)):
            gr.Info(text("model_is_default", language_of(request), model=chosen))

    def ask_to_delete(self, model: str, request: gr.Request) -> tuple[Any, Any, str]:
        """Ask whether the named model is really to be deleted."""
        confirm = text("model_delete_confirm", language_of(request), model=model)
        return gr.update(visible=bool(model.strip())), gr.update(value=confirm), model

    async def delete(self, model: str, request: gr.Request) -> Any:
        """Delete the model that was asked about from the disk."""
        await self._telling(request, self._models(request).delete(model))
        return gr.update(visible=False)

    async def _cancel(self, model: str, request: gr.Request) -> None:
        self._models(request).cancel(model)

    async def _telling(self, request: gr.Request, work: Any) -> Any:
        try:
            return await work
        except (ProviderError, RequestRefused) as error:
            gr.Warning(error_sentence(error, language_of(request)))
            return None

    def _models(self, request: gr.Request) -> Models:
        return self.models.for_session(str(request.session_hash or ""))


def options_of(values: tuple[Any, ...]) -> LoadOptions:
    """Return the options that the fields hold. Raises InvalidRequest."""
    device, precision, quantization, context_length, attention = values
    return parse_options(device, precision, quantization, context_length, attention)


def _rows(entries: Any, language: str) -> Any:
    return gr.update(
        headers=[text(f"catalogue_{heading}", language) for heading in COLUMNS],
        value=[_row(entry, language) for entry in entries],
    )


def _row(entry: ModelEntry, language: str) -> list[str]:
    size = f"{entry.parameters:.2g} B" if entry.parameters else "–"
    notes = [text("catalogue_gated", language) if entry.gated else "", note_in(entry, language)]
    return [
        entry.model_id.removeprefix("transformers/"),
        size,
        f"{entry.context_length:,}" if entry.context_length else "–",
        entry.license or "–",
        entry.languages or "–",
        " ".join(note for note in notes if note),
    ]
