"""The model picker in the header with its state, and the Models tab."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import gradio as gr

from components.errors import error_sentence
from components.model_panel import (
    Detail,
    Overview,
    Suggestions,
    build_detail,
    build_overview,
    build_suggestions,
    options_of,
)
from components.model_panel import wire as wire_panel
from components.model_words import size_text
from components.parameters import ParametersTab, for_capabilities
from components.texts import in_language, language_of, t, text
from core.errors import RequestRefused
from core.models import Models, ModelState
from core.parameters import PARAMETERS
from providers.errors import ProviderError
from providers.types import LoadedModel, LoadOptions, ModelInfo

POLL_SECONDS = 0.3
COLUMNS = ("model", "source", "size", "context", "state")


@dataclass(frozen=True)
class ModelPicker:
    """The choice, which the next question goes to; the last one that worked; and how the model stands."""

    choice: gr.Dropdown
    chosen: gr.State
    state: gr.Markdown


@dataclass(frozen=True)
class ModelsTab:
    """What is here, what is in memory, what is suggested, and a field for any model with what can be done with it."""

    table: gr.Dataframe
    other: gr.Textbox
    refresh: gr.Button
    overview: Overview
    suggestions: Suggestions
    detail: Detail


def build_picker(models: Models) -> ModelPicker:
    """Lay out the picker and its state line."""
    default = models.full_id("")
    with gr.Row(elem_id="picker-row"):
        choice = gr.Dropdown(
            [(_label(default), default)],
            value=default,
            label=t("picker_label"),
            show_label=False,
            container=False,
            allow_custom_value=True,
            elem_id="model",
            min_width=180,
            scale=0,
        )
        state = gr.Markdown(elem_id="model-state")
    return ModelPicker(choice=choice, chosen=gr.State(default), state=state)


def build() -> ModelsTab:
    """Lay out the tab."""
    with gr.Row(equal_height=False):
        with gr.Column(scale=3, min_width=320):
            overview = build_overview()
            gr.Markdown(t("models_instructions"))
            table = gr.Dataframe(
                headers=[t(f"models_{column}") for column in COLUMNS],
                interactive=False,
                elem_id="models-table",
                column_widths=["290px", "140px", "95px", "95px", "105px"],
                label=t("models_table"),
                show_label=False,
                buttons=[],
                wrap=True,
            )
            refresh = gr.Button(t("models_refresh"), elem_id="refresh-models", size="sm")
            suggestions = build_suggestions()
        with gr.Column(scale=2, min_width=320, elem_id="model-detail"):
            other = gr.Textbox(
                label=t("models_other_label"),
                info=t("models_other_help"),
                elem_id="other-model",
                placeholder="HuggingFaceTB/SmolLM2-135M-Instruct",
                max_lines=1,  # A box of several lines takes the height of the tab when it is laid out unseen.
                submit_btn=t("models_use"),
            )
            detail = build_detail()
    return ModelsTab(table, other, refresh, overview, suggestions, detail)


def wire(
    ui: ModelsTab,
    picker: ModelPicker,
    parameters: ParametersTab,
    models: Models,
    key_changes: list[Any],
    area: gr.Tab,
    demo: gr.Blocks,
) -> None:
    """Choosing anywhere loads the model, shows how far it is, and greys out what it does not take."""
    quiet: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
    lists = [ui.table, picker.choice]
    actions = ModelActions(models)
    choose_on([picker.choice.input], picker.choice, ui, picker, parameters, models)
    choose_on([ui.other.submit], ui.other, ui, picker, parameters, models)
    for change in key_changes:
        change.then(actions.list_rows, picker.choice, lists, **quiet)
    ui.table.select(
        actions.choose_row,
        picker.chosen,
        _changed_by_choice(picker, parameters),
        concurrency_limit=None,
        trigger_mode="always_last",
        **quiet,
    ).then(actions.list_rows, picker.choice, lists, **quiet)
    ui.table.select(actions.name_row, None, ui.other, **quiet)
    listing: dict[str, Any] = {"fn": actions.list_rows, "inputs": picker.choice, "outputs": lists, **quiet}
    wire_panel(ui.overview, ui.suggestions, ui.detail, area, ui.other, models, listing, demo)
    ui.detail.load.click(
        actions.load,
        [ui.other, picker.chosen, ui.detail.force, *ui.detail.options],
        _changed_by_choice(picker, parameters),
        concurrency_limit=None,
        trigger_mode="once",
        **quiet,
    ).then(**listing)
    ui.refresh.click(actions.list_rows, picker.choice, lists, **quiet)
    demo.load(actions.list_rows, picker.choice, lists, **quiet)
    built = models.full_id("")
    demo.load(lambda: actions.new_default(built), None, _changed_by_choice(picker, parameters), **quiet)
    demo.load(actions.follow_default, None, picker.state, concurrency_limit=None, **quiet).then(
        actions.list_rows, picker.choice, lists, **quiet
    )


def choose_on(
    triggers: list[Any],
    wanted: gr.components.Component,
    ui: ModelsTab,
    picker: ModelPicker,
    parameters: ParametersTab,
    models: Models,
) -> Any:
    """Choose the model that `wanted` names on any of these events; return the event that follows."""
    quiet: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
    actions = ModelActions(models)
    return gr.on(
        triggers,
        actions.choose,
        [wanted, picker.chosen],
        _changed_by_choice(picker, parameters),
        concurrency_limit=None,
        trigger_mode="always_last",
        **quiet,
    ).then(actions.list_rows, picker.choice, [ui.table, picker.choice], **quiet)


def _changed_by_choice(picker: ModelPicker, parameters: ParametersTab) -> list[Any]:
    return [picker.choice, picker.chosen, picker.state, *parameters.values]


@dataclass(frozen=True)
class ModelActions:
    """What the picker and the Models tab do."""

    models: Models

    async def choose(
        self,
        model_id: str,
        before: str,
        request: gr.Request,
        options: LoadOptions | None = None,
        force: bool = False,
    ) -> AsyncGenerator[list[Any], None]:
        """Load `model_id` and tell how far it is; on an error go back to the model that was chosen before."""
        language = language_of(request)
        same = [gr.skip()] * len(PARAMETERS)
        full_id = self.models.full_id(model_id or before)
        models = self._models(request)
        load = asyncio.ensure_future(models.load(full_id, fetch=True, options=options, force=force))
        done: set[Any] = set()
        while not done:
            yield [_selected(full_id), gr.skip(), state_line(self.models.state(full_id), language), *same]
            done, _ = await asyncio.wait({load}, timeout=POLL_SECONDS)
        try:
            info = load.result()
        except (ProviderError, RequestRefused) as error:
            gr.Warning(error_sentence(error, language))
            yield [_selected(before), before, state_line(self.models.state(before), language), *same]
            return
        known = models.capabilities(before) == info.capabilities
        yield [
            _selected(full_id),
            full_id,
            state_line(self.models.state(full_id), language),
            *(same if known else for_capabilities(info.capabilities)),
        ]

    async def choose_row(
        self, before: str, request: gr.Request, event: gr.SelectData
    ) -> AsyncGenerator[list[Any], None]:
        """Load the model of the row that was clicked."""
        async for update in self.choose(event.row_value[0], before, request):
            yield update

    async def load(
        self, request: gr.Request, model_id: str, before: str, force: bool, *values: Any
    ) -> AsyncGenerator[list[Any], None]:
        """Load the named model with the options that the fields hold, and use it."""
        try:
            wanted = options_of(values)
        except RequestRefused as error:
            gr.Warning(error_sentence(error, language_of(request)))
            return
        async for update in self.choose(model_id, before, request, wanted, bool(force)):
            yield update

    def name_row(self, event: gr.SelectData) -> str:
        """Return the model of the row that was clicked."""
        return str(event.row_value[0])

    def new_default(self, built: str) -> list[Any]:
        """Choose the default where another one was made it since the page was built."""
        default = self.models.full_id("")
        if default == built:
            return [gr.skip()] * (3 + len(PARAMETERS))
        return [_selected(default), default, gr.skip(), *for_capabilities(self.models.capabilities(default))]

    async def follow_default(self, request: gr.Request) -> AsyncGenerator[str, None]:
        """Bring the default model into memory, and tell how it stands."""
        async with aclosing(self.follow(self.models.full_id(""), request)) as lines:
            async for line in lines:
                yield line

    async def follow(self, model_id: str, request: gr.Request) -> AsyncGenerator[str, None]:
        """Bring the chosen model into memory, where it is not, and tell how it stands until it is or has failed."""
        language = language_of(request)
        load = asyncio.ensure_future(self._models(request).load(model_id))
        while not load.done():
            yield state_line(self.models.state(model_id), language)
            await asyncio.wait({load}, timeout=POLL_SECONDS)
        with contextlib.suppress(ProviderError, RequestRefused):
            load.result()
        yield state_line(self.models.state(model_id), language)

    async def list_rows(self, current: str, request: gr.Request) -> tuple[Any, Any]:
        """Return the table's rows and the picker's choices."""
        language = language_of(request)
        rows = await self._models(request).list()
        ids = [self.models.full_id(f"{row.provider}/{row.name}") for row in rows]
        choices = list(dict.fromkeys([*ids, current]))
        return (
            gr.update(
                headers=[text(f"models_{column}", language) for column in COLUMNS],
                value=[_row(self.models, model_id, row, language) for model_id, row in zip(ids, rows, strict=True)],
            ),
            gr.update(choices=[(_label(model_id), model_id) for model_id in choices]),
        )

    def _models(self, request: gr.Request) -> Models:
        return self.models.for_session(str(request.session_hash or ""))


def state_line(state: ModelState, language: str) -> str:
    """Say in a line whether the model is in memory, with its size, or how long it has been loading."""
    if state.loaded:
        loaded = state.loaded
        return text(
            "state_ready",
            language,
            device=loaded.device,
            precision=loaded.precision,
            size=size_text(loaded.memory_bytes),
        )
    if state.error:
        return text("state_failed", language, reason=in_language(state.error.message, language))
    if state.progress:
        done = size_text(state.progress.done)
        whole = size_text(state.progress.total) if state.progress.total else "?"
        return text("state_downloading", language, done=done, total=whole)
    if state.service and not state.loading_since:
        return text("state_service", language, service=state.service)
    if state.loading_since:
        return text("state_loading", language, seconds=f"{time.monotonic() - state.loading_since:.0f}")
    return text("state_waiting", language)


def _row(models: Models, model_id: str, row: ModelInfo, language: str) -> list[str]:
    loaded = models.state(model_id).loaded
    return [
        model_id,
        text(f"source_{row.source}", language),
        size_text(row.size_bytes),
        f"{row.context_length:,}" if row.context_length else "–",
        _in_memory(loaded, language) if loaded else "–",
    ]


def _in_memory(loaded: LoadedModel, language: str) -> str:
    size = size_text(loaded.memory_bytes)
    if loaded.batched:
        return text("models_in_memory", language, size=size)
    return text("models_in_memory_apart", language, size=size)


def _label(model_id: str) -> str:
    return model_id.removeprefix("transformers/")


def _selected(model_id: str) -> Any:
    return gr.update(value=model_id)
