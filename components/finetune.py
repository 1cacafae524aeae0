"""The Fine-tune tab: data, model, a few settings, Start; then the loss as it falls, and the tuned model to talk to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from components.errors import error_sentence
from components.files import read_upload
from components.models import ModelPicker, ModelsTab, choose_on
from components.parameters import ParametersTab
from components.run_words import curve, dataset_label, preview_html, report, run_label, state_line
from components.texts import language_of, t, text
from core.models import Models
from core.users import User, current_user
from training.datasets import Dataset
from training.recipes import SPECS, Recipe, parse_recipe
from training.runs import RESUMABLE
from training.workshop import Workshop

TICK_SECONDS = 1.0
SAMPLE = 4
TRAINABLE = "transformers"
SETTINGS = ("epochs", "learning_rate", "rank", "dropout", "word_dropout", "batch_size", "max_length", "replay", "seed")
SHARES = ("dropout", "replay")
OPEN_CHAT = """() => { document.querySelector("#tab-chat-button").click(); }"""


@dataclass(frozen=True)
class DataPart:
    """Where the dataset is made, chosen and looked at."""

    with_thumbs_up: gr.Checkbox
    build: gr.Button
    upload: gr.UploadButton
    dataset: gr.Dropdown
    report: gr.Markdown
    preview: gr.HTML


@dataclass(frozen=True)
class SettingsPart:
    """What is trained, and how."""

    base: gr.Dropdown
    name: gr.Textbox
    settings: tuple[gr.components.Component, ...]
    start: gr.Button


@dataclass(frozen=True)
class RunPart:
    """The chosen run, and what can be done with it."""

    run: gr.Dropdown
    state: gr.Markdown
    plot: gr.LinePlot
    stop: gr.Button
    resume: gr.Button
    use: gr.Button
    model: gr.State
    timer: gr.Timer

    @property
    def shown(self) -> list[gr.components.Component]:
        """What a look at the run changes."""
        return [self.state, self.plot, self.stop, self.resume, self.use, self.model, self.timer]


@dataclass(frozen=True)
class FinetuneTab:
    """The three parts of the tab."""

    data: DataPart
    settings: SettingsPart
    runs: RunPart


def build() -> FinetuneTab:
    """Lay out the tab."""
    gr.Markdown(t("finetune_instructions"))
    with gr.Row(equal_height=False):
        with gr.Column(scale=1, min_width=300):
            data = _build_data()
            settings = _build_settings()
        with gr.Column(scale=1, min_width=300):
            runs = _build_runs()
    return FinetuneTab(data, settings, runs)


def _build_data() -> DataPart:
    gr.Markdown(t("finetune_data"))
    with gr.Row(equal_height=True):
        build_button = gr.Button(t("finetune_build"), elem_id="build-dataset", min_width=140, scale=2)
        upload = gr.UploadButton(
            t("finetune_import"),
            file_types=[".jsonl", ".json", ".txt"],
            elem_id="import-dataset",
            min_width=140,
            scale=2,
        )
    thumbs = gr.Checkbox(False, label=t("finetune_thumbs_up"), elem_id="include-thumbs-up")
    dataset = gr.Dropdown(
        [], label=t("finetune_dataset"), info=t("finetune_dataset_help"), elem_id="dataset", filterable=False
    )
    report = gr.Markdown(elem_id="dataset-report")
    preview = gr.HTML(elem_id="dataset-preview", padding=False)
    return DataPart(thumbs, build_button, upload, dataset, report, preview)


def _build_settings() -> SettingsPart:
    gr.Markdown(t("finetune_model"))
    base = gr.Dropdown([], label=t("finetune_base"), elem_id="base-model", allow_custom_value=True)
    with gr.Accordion(t("finetune_settings"), open=False, elem_id="run-settings"):
        name = gr.Textbox(label=t("finetune_name"), info=t("finetune_name_help"), elem_id="run-name", max_length=40)
        settings = tuple(_setting(key) for key in SETTINGS)
    start = gr.Button(t("finetune_start"), variant="primary", elem_id="start-run")
    return SettingsPart(base, name, settings, start)


def _setting(key: str) -> gr.components.Component:
    spec, first = SPECS[key], getattr(Recipe(), key)
    words = {"label": t(f"recipe_{key}"), "info": t(f"recipe_{key}_help"), "elem_id": f"recipe-{key}"}
    if key in SHARES:
        return gr.Slider(spec.minimum, spec.maximum, first, step=spec.step, buttons=["reset"], **words)
    return gr.Number(first, step=spec.step, precision=0 if spec.kind == "int" else None, **words)


def _build_runs() -> RunPart:
    gr.Markdown(t("finetune_runs"))
    run = gr.Dropdown([], label=t("finetune_run"), elem_id="run", filterable=False)
    state = gr.Markdown(elem_id="run-state")
    plot = gr.LinePlot(
        None,
        x="step",
        y="loss",
        color="part",
        color_title=" ",
        height=320,
        show_label=False,  # Gradio 6.31 cuts the legend off by the label's height.
        elem_id="loss-curve",
        visible=False,
    )
    with gr.Row():
        stop = gr.Button(t("finetune_stop"), variant="stop", elem_id="stop-run", visible=False, min_width=100)
        resume = gr.Button(t("finetune_resume"), elem_id="resume-run", visible=False, min_width=100)
        use = gr.Button(t("finetune_use"), variant="primary", elem_id="use-run", visible=False, min_width=100)
    return RunPart(run, state, plot, stop, resume, use, gr.State(""), gr.Timer(TICK_SECONDS, active=False))


def wire(
    ui: FinetuneTab,
    area: gr.Tab,
    picker: ModelPicker,
    models_tab: ModelsTab,
    parameters: ParametersTab,
    workshop: Workshop,
    models: Models,
) -> None:
    """Everything is read again when the tab is opened; while a run is active it is looked at each second."""
    quiet: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden", "concurrency_limit": None}
    slow = quiet | {"show_progress": "minimal"}
    last = quiet | {"trigger_mode": "always_last"}
    actions = FinetuneActions(workshop, models)
    data, settings, runs = ui.data, ui.settings, ui.runs
    look: dict[str, Any] = {"fn": actions.look, "inputs": runs.run, "outputs": runs.shown, **last}
    view: dict[str, Any] = {
        "fn": actions.view,
        "inputs": [data.dataset, settings.base],
        "outputs": [data.report, data.preview],
        **last,
        "show_progress": "minimal",
    }
    area.select(actions.open, [data.dataset, settings.base, runs.run], [data.dataset, settings.base, runs.run], **quiet)
    gr.on([data.dataset.change, settings.base.change], **view)
    data.build.click(actions.build, data.with_thumbs_up, data.dataset, **slow)
    data.upload.upload(actions.import_file, data.upload, data.dataset, **slow)
    settings.start.click(
        actions.start, [data.dataset, settings.base, settings.name, *settings.settings], runs.run, **slow
    )
    gr.on([runs.run.change, runs.timer.tick], **look)
    runs.stop.click(actions.stop, runs.run, None, **quiet).then(**look)
    runs.resume.click(actions.resume, runs.run, None, **quiet).then(**look)
    choose_on([runs.use.click], runs.model, models_tab, picker, parameters, models).then(
        None, None, None, js=OPEN_CHAT, **quiet
    )


@dataclass(frozen=True)
class FinetuneActions:
    """What the tab does, for the person who asks."""

    workshop: Workshop
    models: Models

    async def open(
        self, dataset: str | None, base: str | None, run: str | None, request: gr.Request
    ) -> tuple[Any, Any, Any]:
        """List datasets, base models and runs; what was chosen stays, else the newest is."""
        language, user = language_of(request), self._user(request)
        try:
            datasets = [(dataset_label(each, language), each.id) for each in await self.workshop.datasets.list(user)]
            runs = [(run_label(each.id, each.created_at), each.id) for each in await self.workshop.runs.list(user)]
        except Exception as error:
            gr.Warning(error_sentence(error, language))
            return gr.skip(), gr.skip(), gr.skip()
        bases = [
            (model.name, f"{model.provider}/{model.name}")
            for model in await self.models.list()
            if model.provider == TRAINABLE
        ]
        return _choices(datasets, dataset), _choices(bases, base or self.models.full_id("")), _choices(runs, run)

    async def build(self, with_thumbs_up: bool, request: gr.Request) -> Any:
        """Make a dataset of the person's feedback and choose it."""
        language, user = language_of(request), self._user(request)
        try:
            made = await self.workshop.datasets.build(
                user, text("finetune_from_feedback", language), with_thumbs_up=with_thumbs_up
            )
            return await self._chosen_dataset(user, made, language)
        except Exception as error:
            gr.Warning(error_sentence(error, language))
            return gr.skip()

    async def import_file(self, file: Any, request: gr.Request) -> Any:
        """Make a dataset of a file and choose it."""
        language, user = language_of(request), self._user(request)
        try:
            name = str(file).rpartition("/")[2][:200]
            return await self._chosen_dataset(
                user, await self.workshop.datasets.import_file(user, name, read_upload(file)), language
            )
        except Exception as error:
            gr.Warning(error_sentence(error, language))
            return gr.skip()

    async def view(self, dataset: str | None, base: str | None, request: gr.Request) -> tuple[str, str]:
        """Say what is in the chosen dataset, and show the first rows as the chosen model sees them."""
        language, user = language_of(request), self._user(request)
        if not dataset:
            return "", ""
        try:
            made = await self.workshop.datasets.get(user, dataset)
            preview = await self.workshop.preview(user, dataset, base or "", Recipe.max_length, SAMPLE)
        except Exception as error:
            return error_sentence(error, language), ""
        return report(made, preview, language), preview_html(preview, language)

    async def start(self, request: gr.Request, dataset: str | None, base: str | None, name: str, *values: Any) -> Any:
        """Start a run and choose it."""
        language, user = language_of(request), self._user(request)
        if not dataset:
            gr.Warning(text("finetune_no_dataset", language))
            return gr.skip()
        try:
            recipe = parse_recipe(dict(zip(SETTINGS, values, strict=True)))
            run = await self.workshop.runs.start(user, dataset, base or "", recipe, name=name or "")
            runs = [(run_label(each.id, each.created_at), each.id) for each in await self.workshop.runs.list(user)]
        except Exception as error:
            gr.Warning(error_sentence(error, language))
            return gr.skip()
        return gr.update(choices=runs, value=run.id)

    async def look(self, run_id: str | None, request: gr.Request) -> Sequence[Any]:
        """Say how far the run is, and which buttons it has now."""
        language = language_of(request)
        if not run_id:
            return [text("finetune_no_run", language), *[gr.skip()] * 6]
        try:
            status = await self.workshop.runs.status(self._user(request), run_id)
        except Exception as error:
            return [error_sentence(error, language), *[gr.skip()] * 5, gr.Timer(active=False)]
        return [
            state_line(status, language),
            gr.update(
                value=curve(status, language),
                x_title=text("finetune_step", language),
                y_title=text("finetune_loss", language),
                visible=bool(status.curve),
            ),
            gr.update(visible=status.is_active, interactive=status.run.state != "stopping"),
            gr.update(visible=status.run.state in RESUMABLE),
            gr.update(visible=bool(status.model) and not status.is_active),
            status.model,
            gr.Timer(active=status.is_active),
        ]

    async def stop(self, run_id: str | None, request: gr.Request) -> None:
        """End the run after its step."""
        try:
            await self.workshop.runs.stop(self._user(request), run_id or "")
        except Exception as error:
            gr.Warning(error_sentence(error, language_of(request)))

    async def resume(self, run_id: str | None, request: gr.Request) -> None:
        """Let the run go on."""
        try:
            await self.workshop.runs.resume(self._user(request), run_id or "")
        except Exception as error:
            gr.Warning(error_sentence(error, language_of(request)))

    async def _chosen_dataset(self, user: User, made: Dataset, language: str) -> Any:
        rows = [(dataset_label(each, language), each.id) for each in await self.workshop.datasets.list(user)]
        return gr.update(choices=rows, value=made.id)

    def _user(self, request: gr.Request) -> User:
        return current_user(self.models.settings, str(request.session_hash or ""))


def _choices(choices: Sequence[tuple[str, str]], chosen: str | None) -> Any:
    known = [value for _, value in choices]
    return gr.update(choices=list(choices), value=chosen if chosen in known else next(iter(known), None))
