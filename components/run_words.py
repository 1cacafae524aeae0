"""Datasets and runs in words, as a preview, and as a curve."""

from __future__ import annotations

import html
from datetime import datetime
from typing import TYPE_CHECKING

from components.errors import row_errors
from components.texts import in_language, text
from training.datasets import Dataset
from training.preview import Preview, PreviewRow
from training.run_status import RunStatus

if TYPE_CHECKING:
    from pandas import DataFrame


def dataset_label(dataset: Dataset, language: str) -> str:
    """Name a dataset in a list."""
    when = datetime.fromtimestamp(dataset.created_at).strftime("%Y-%m-%d %H:%M")
    rows = dataset.train_rows + dataset.held_out_rows
    return text("finetune_dataset_label", language, name=dataset.name, rows=rows, when=when)


def run_label(run_id: str, created_at: float) -> str:
    """Name a run in a list."""
    return f"{run_id} · {datetime.fromtimestamp(created_at):%Y-%m-%d %H:%M}"


def report(dataset: Dataset, preview: Preview, language: str) -> str:
    """Say in Markdown what is in a dataset, and what was left out of it."""
    report = dataset.report
    lines = [
        text(
            "finetune_report",
            language,
            train=dataset.train_rows,
            held_out=dataset.held_out_rows,
            duplicates=report.duplicates,
            longest=preview.longest,
        )
    ]
    if preview.too_long:
        lines.append(text("finetune_too_long", language, count=preview.too_long, limit=preview.limit))
    lines += [in_language(warning, language) for warning in report.warnings]
    if report.errors:
        lines.append(row_errors(report.errors, language))
    return "\n\n".join(lines)


def preview_html(preview: Preview, language: str) -> str:
    """Show rows as the model sees them, with what it learns marked; every text is escaped."""
    rows = [_row_html(row, language) for row in preview.rows]
    return f"<p>{html.escape(text('finetune_preview', language))}</p>{''.join(rows)}"


def _row_html(row: PreviewRow, language: str) -> str:
    held_out = text("finetune_row_held_out", language, tokens=row.tokens)
    learnt = text("finetune_row", language, tokens=row.tokens)
    pieces = (
        f"<mark>{html.escape(piece.text)}</mark>" if piece.learnt else html.escape(piece.text) for piece in row.pieces
    )
    label = html.escape(held_out if row.held_out else learnt)
    return f'<div class="row-preview"><span>{label}</span><pre>{"".join(pieces)}</pre></div>'


def state_line(status: RunStatus, language: str) -> str:
    """Say in Markdown how far a run is, how it ended, and what to do."""
    run = status.run
    parts = [f"**{text(f'run_state_{run.state}', language)}**"]
    if status.steps:
        parts.append(text("run_step", language, step=status.step, steps=status.steps))
    if status.loss is not None:
        parts.append(text("run_loss", language, loss=f"{status.loss:.3f}"))
    if status.tokens_per_second:
        parts.append(text("run_speed", language, speed=f"{status.tokens_per_second:,.0f}"))
    if status.eta_seconds:
        parts.append(text("run_eta", language, time=_duration(status.eta_seconds)))
    lines = [" · ".join(parts)]
    if run.error:
        lines.append(" ".join(in_language(part, language) for part in (run.error, run.hint) if part))
    if len(status.held_out) > 1:
        (_, before), *_, (_, after) = status.held_out
        lines.append(text("run_held_out", language, before=f"{before:.3f}", after=f"{after:.3f}"))
    if status.model and not status.is_active:
        lines.append(text("run_model", language, model=status.model))
    return "\n\n".join(lines)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"


def curve(status: RunStatus, language: str) -> DataFrame:
    """Return the losses with the columns step, loss and part."""
    from pandas import DataFrame

    training, held_out = text("run_training", language), text("run_measured", language)
    points = [(step, loss, training) for step, loss in status.curve]
    points += [(step, loss, held_out) for step, loss in status.held_out]
    return DataFrame(points, columns=["step", "loss", "part"])
