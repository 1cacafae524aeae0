"""The Monitor tab: what the engines do now, told by themselves, while somebody looks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gradio as gr

from components.model_words import size_text
from components.texts import language_of, t, text
from core.models import Models
from providers.types import EngineFigures

TICK_SECONDS = 1.0
COLUMNS = ("model", "running", "waiting", "speed", "cache", "kept", "reused")
IS_OPEN = "() => document.querySelector('#monitor-table')?.checkVisibility() ?? false"


@dataclass(frozen=True)
class MonitorTab:
    """The table of engines, and the clock that reads them again."""

    table: gr.Dataframe
    timer: gr.Timer
    is_open: gr.Checkbox


def build() -> MonitorTab:
    """Lay out the tab."""
    gr.Markdown(t("monitor_instructions"))
    table = gr.Dataframe(
        headers=[t(f"monitor_{figure}") for figure in COLUMNS],
        elem_id="monitor-table",
        label=t("tab_monitor"),
        show_label=False,
        interactive=False,
        buttons=[],
        type="array",
        wrap=True,
        column_widths=["28%", *["12%"] * (len(COLUMNS) - 1)],
    )
    return MonitorTab(table, gr.Timer(TICK_SECONDS, active=False), gr.Checkbox(visible=False, value=False))


def wire(ui: MonitorTab, area: gr.Tab, models: Models) -> None:
    """Read the engines once a second from when the tab is opened until it is left."""
    quiet: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden", "queue": False}
    monitor = Monitor(models)
    area.select(monitor.figures, None, [ui.table, ui.timer], **quiet)
    ui.timer.tick(monitor.figures_again, ui.is_open, [ui.table, ui.timer], js=IS_OPEN, **quiet)


@dataclass(frozen=True)
class Monitor:
    """What the tab shows, for the person who looks."""

    models: Models

    def figures(self, request: gr.Request) -> list[Any]:
        """Show the engines, and go on looking."""
        language = language_of(request)
        headers = [text(f"monitor_{figure}", language) for figure in COLUMNS]
        return [gr.update(headers=headers, value=self._rows(language)), gr.Timer(active=True)]

    def figures_again(self, is_open: bool, request: gr.Request) -> list[Any]:
        """Show the engines, or stop looking where the tab is not open any more."""
        return self.figures(request) if is_open else [gr.skip(), gr.Timer(active=False)]

    def _rows(self, language: str) -> list[list[str]]:
        engines = self.models.engines()
        return [_row(model_id, figures, language) for model_id, figures in engines.items()] or [
            [text("monitor_nothing", language), *["–"] * (len(COLUMNS) - 1)]
        ]


def _row(model_id: str, figures: EngineFigures, language: str) -> list[str]:
    cache = f"{size_text(figures.cache_bytes)} / {size_text(figures.cache_limit_bytes)}"
    apart = "" if figures.batched else f" ({text('monitor_apart', language)})"
    return [
        model_id + apart,
        str(figures.running),
        str(figures.waiting),
        f"{figures.tokens_per_second:.1f}" if figures.batched else "–",
        cache,
        str(figures.kept_conversations),
        f"{figures.reused_tokens:,}",
    ]
