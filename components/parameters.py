"""The Parameters tab: the system prompt, how answers are shown, and every sampling parameter, from one table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from components.texts import language_of, t, text
from core.parameters import PARAMETERS, ParameterSpec
from providers.types import Capabilities

PREFERENCES_KEY = "simpleia-preferences"
MIRROR_JS = "(value) => value"


@dataclass(frozen=True)
class ParametersTab:
    """The controls that others read; `values` follows the order of `PARAMETERS`."""

    system: gr.Textbox
    streaming: gr.Checkbox
    markdown: gr.Checkbox
    values: tuple[gr.components.Component, ...]
    reset: gr.Button

    @property
    def all(self) -> list[gr.components.Component]:
        """Every control whose value is kept over a reload."""
        return [self.system, self.streaming, self.markdown, *self.values]


@dataclass(frozen=True)
class ParametersPanel:
    """The slim panel beside the chat, and what the browser keeps; Gradio reads it only from a tab that is open."""

    mirrors: tuple[gr.components.Component, ...]
    summary: gr.Markdown
    preferences: gr.BrowserState
    restored: gr.State


def build() -> ParametersTab:
    """Lay out the tab."""
    with gr.Row(equal_height=False):
        with gr.Column(scale=1, min_width=300):
            gr.Markdown(t("parameters_instructions"))
            system = gr.Textbox(
                label=t("parameters_system_label"),
                info=t("parameters_system_help"),
                lines=8,
                max_lines=20,
                placeholder=t("parameters_system_placeholder"),
                elem_id="system-prompt",
            )
            streaming = gr.Checkbox(
                True, label=t("parameters_streaming_label"), info=t("parameters_streaming_help"), elem_id="streaming"
            )
            markdown = gr.Checkbox(
                True, label=t("parameters_markdown_label"), info=t("parameters_markdown_help"), elem_id="markdown"
            )
            reset = gr.Button(t("parameters_reset"), elem_id="reset-parameters")
        with gr.Column(scale=1, min_width=300):
            values = tuple(_control_with_reset(spec) for spec in PARAMETERS)
    return ParametersTab(
        system=system,
        streaming=streaming,
        markdown=markdown,
        values=values,
        reset=reset,
    )


def build_panel() -> ParametersPanel:
    """Lay out the chat's panel: the most used parameters, and a summary of all that are in force."""
    mirrors = tuple(_control(spec, f"panel-{spec.name}", help_text=False) for spec in PARAMETERS if spec.prominent)
    return ParametersPanel(
        mirrors=mirrors,
        summary=gr.Markdown(elem_id="parameters-in-force"),
        preferences=gr.BrowserState({}, storage_key=PREFERENCES_KEY, secret=PREFERENCES_KEY),
        restored=gr.State(False),
    )


def wire(ui: ParametersTab, panel: ParametersPanel, demo: gr.Blocks) -> None:
    """Keep the twins equal, the summary true, and the values in the browser."""
    quiet: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
    inputs, kept = [panel.restored, *ui.all], [panel.preferences, panel.summary]
    prominent = [control for spec, control in zip(PARAMETERS, ui.values, strict=True) if spec.prominent]
    for control, mirror in zip(prominent, panel.mirrors, strict=True):
        mirror.input(None, mirror, control, js=MIRROR_JS, **quiet).then(remember, inputs, kept, queue=False, **quiet)
        control.change(None, control, mirror, js=MIRROR_JS, **quiet)
    for control in ui.all:
        control.change(remember, inputs, kept, queue=False, trigger_mode="always_last", **quiet)
    ui.reset.click(defaults, None, ui.all, queue=False, **quiet)
    demo.load(restore, panel.preferences, [panel.restored, *ui.all, *panel.mirrors], queue=False, **quiet).then(
        remember, inputs, kept, queue=False, **quiet
    )


def in_force(ui: ParametersTab, panel: ParametersPanel) -> list[gr.components.Component]:
    """Return the controls whose values the chat uses, in the order of `PARAMETERS`: those that it shows beside it."""
    twins = iter(panel.mirrors)
    return [next(twins) if spec.prominent else control for spec, control in zip(PARAMETERS, ui.values, strict=True)]


def defaults() -> list[Any]:
    """Return the first values of all controls; the system prompt is emptied too."""
    return ["", True, True, *(_first_value(spec) for spec in PARAMETERS)]


def restore(preferences: Mapping[str, Any] | None) -> list[Any]:
    """Return True, and the values of all controls and of the panel's twins, as this browser kept them."""
    kept = preferences if isinstance(preferences, dict) else {}
    values = {name: kept.get(name, first) for name, first in zip(_NAMES, defaults(), strict=True)}
    return [True, *values.values(), *(values[spec.name] for spec in PARAMETERS if spec.prominent)]


def remember(request: gr.Request, restored: bool, *values: Any) -> tuple[Any, Any]:
    """Return what the browser keeps, and the summary of what is in force; nothing before `restore` has read it."""
    if not restored:
        return gr.skip(), gr.skip()
    return dict(zip(_NAMES, values, strict=True)), summary(values, language_of(request))


def summary(values: Sequence[Any], language: str) -> str:
    """Say in Markdown which settings shape the next answer."""
    system, _, _, *numbers = values
    lines = [
        f"- {text(f'parameter_{spec.name}_label', language)}: **{_shown(value)}**"
        for spec, value in zip(PARAMETERS, numbers, strict=True)
        if value not in (None, "", spec.neutral) and not spec.prominent
    ]
    if system and system.strip():
        excerpt = " ".join(system.split())
        lines.append(
            f"- {text('parameters_system_label', language)}: “{excerpt[:120]}{'…' if len(excerpt) > 120 else ''}”"
        )
    return "\n".join(lines) or text("panel_nothing_else", language)


def to_values(numbers: Sequence[Any]) -> dict[str, Any]:
    """Return the controls' values by parameter name, as `core.parameters.parse_parameters` takes them."""
    return {
        spec.name: value.splitlines() if spec.kind == "texts" else value
        for spec, value in zip(PARAMETERS, numbers, strict=True)
        if value is not None
    }


def for_capabilities(capabilities: Capabilities) -> list[Any]:
    """Return updates that grey out what the model does not take."""
    return [gr.update(interactive=spec.name in capabilities.parameters) for spec in PARAMETERS]


_NAMES = ("system", "streaming", "markdown", *(spec.name for spec in PARAMETERS))


def _control(spec: ParameterSpec, elem_id: str, help_text: bool = True) -> gr.components.Component:
    words = {
        "label": t(f"parameter_{spec.name}_label"),
        "info": t(f"parameter_{spec.name}_help") if help_text else None,
        "elem_id": elem_id,
    }
    if spec.kind == "float":
        return gr.Slider(spec.minimum, spec.maximum, spec.shown, step=spec.step, buttons=["reset"], **words)
    if spec.kind == "int":
        return gr.Number(spec.shown, step=spec.step, precision=0, scale=1, min_width=120, **words)
    placeholder = t("parameter_stop_placeholder") if spec.kind == "texts" else t("parameter_json_schema_placeholder")
    return gr.Textbox("", lines=2, max_lines=12, placeholder=placeholder, scale=1, min_width=120, **words)


def _control_with_reset(spec: ParameterSpec) -> gr.components.Component:
    """Lay out a parameter of the tab; a slider brings its own reset."""
    if spec.kind == "float":
        return _control(spec, f"parameter-{spec.name}")
    with gr.Row(equal_height=False, elem_classes="with-reset"):
        control = _control(spec, f"parameter-{spec.name}")
        reset = gr.Button(t("parameter_reset"), size="sm", scale=0, min_width=60, elem_id=f"reset-{spec.name}")
    reset.click(
        lambda: _first_value(spec), None, control, api_visibility="private", queue=False, show_progress="hidden"
    )
    return control


def _first_value(spec: ParameterSpec) -> Any:
    return "" if spec.kind in ("texts", "schema") else spec.shown


def _shown(value: Any) -> str:
    return " ⏎ ".join(value.splitlines()) if isinstance(value, str) else f"{value:g}"
