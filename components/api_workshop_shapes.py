"""The shapes of the public API for feedback, datasets and runs, and how the core's values become them."""

from __future__ import annotations

from typing import Any, TypedDict

from components.texts import in_language
from core.feedback import Feedback
from core.feedback_files import RowError
from providers.sentences import Sentence
from training.datasets import Dataset
from training.preview import Preview
from training.recipes import recipe_json
from training.run_status import RunStatus


class FeedbackRow(TypedDict):
    """Feedback with its turn; times in seconds since 1970."""

    feedback_id: str
    turn_id: str
    conversation_id: str
    model: str
    question: str
    answer: str
    rating: str | None
    comment: str
    correction: str | None
    tags: list[str]
    created_at: float
    updated_at: float


class UploadedFile(TypedDict, total=False):
    """A file as gradio_client's `handle_file` sends it."""

    path: str
    url: str
    orig_name: str
    meta: dict[str, str]


class RowProblem(TypedDict):
    """Why a row, counted from 1, was left out."""

    row: int
    reason: str


class DatasetRow(TypedDict):
    """A dataset, and what became of the rows that were given."""

    dataset_id: str
    name: str
    source: str
    kind: str
    train_rows: int
    held_out_rows: int
    given: int
    duplicates: int
    errors: list[RowProblem]
    warnings: list[str]
    sha256: str
    created_at: float


class PreviewPiece(TypedDict):
    """A stretch of text; `learnt` when the model is trained to write it."""

    text: str
    learnt: bool


class PreviewedRow(TypedDict):
    """A row after the chat template."""

    source: str
    held_out: bool
    tokens: int
    pieces: list[PreviewPiece]


class HistogramBar(TypedDict):
    """How many rows have at most so many tokens, and more than the bar before."""

    tokens: int
    rows: int


class DatasetPreview(TypedDict):
    """A sample of a dataset as a model sees it, and the lengths of its rows in tokens."""

    rows: list[PreviewedRow]
    longest: int
    learnt_tokens: int
    too_long: int
    limit: int
    histogram: list[HistogramBar]


class RunRow(TypedDict):
    """A run; `model` is the id of the tuned model once there is one. Curves are lists of [step, loss]."""

    run_id: str
    dataset_id: str
    base_model: str
    method: str
    recipe: dict[str, Any]
    state: str
    step: int
    steps: int
    loss: float | None
    tokens_per_second: float | None
    eta_seconds: float | None
    curve: list[list[float]]
    held_out: list[list[float]]
    model: str
    error: str | None
    facts: dict[str, Any]
    created_at: float
    started_at: float | None
    ended_at: float | None


def feedback_row(feedback: Feedback) -> FeedbackRow:
    """Return feedback as the API shows it."""
    return {
        "feedback_id": feedback.id,
        "turn_id": feedback.turn.id,
        "conversation_id": feedback.turn.conversation_id,
        "model": feedback.turn.model,
        "question": feedback.turn.question,
        "answer": feedback.turn.answer,
        "rating": feedback.rating,
        "comment": feedback.comment,
        "correction": feedback.correction,
        "tags": list(feedback.tags),
        "created_at": feedback.created_at,
        "updated_at": feedback.updated_at,
    }


def row_problem(error: RowError, language: str) -> RowProblem:
    """Return why a row was left out."""
    return {"row": error.row, "reason": in_language(error.reason, language)}


def dataset_row(dataset: Dataset, language: str) -> DatasetRow:
    """Return a dataset as the API shows it."""
    report = dataset.report
    return {
        "dataset_id": dataset.id,
        "name": dataset.name,
        "source": dataset.source,
        "kind": dataset.kind,
        "train_rows": dataset.train_rows,
        "held_out_rows": dataset.held_out_rows,
        "given": report.given,
        "duplicates": report.duplicates,
        "errors": [row_problem(error, language) for error in report.errors],
        "warnings": [in_language(warning, language) for warning in report.warnings],
        "sha256": dataset.sha256,
        "created_at": dataset.created_at,
    }


def dataset_preview(preview: Preview) -> DatasetPreview:
    """Return a preview as the API shows it."""
    return {
        "rows": [
            {
                "source": row.source,
                "held_out": row.held_out,
                "tokens": row.tokens,
                "pieces": [{"text": piece.text, "learnt": piece.learnt} for piece in row.pieces],
            }
            for row in preview.rows
        ],
        "longest": preview.longest,
        "learnt_tokens": preview.learnt_tokens,
        "too_long": preview.too_long,
        "limit": preview.limit,
        "histogram": [{"tokens": tokens, "rows": rows} for tokens, rows in preview.histogram.items()],
    }


def run_row(status: RunStatus, language: str) -> RunRow:
    """Return a run as the API shows it."""
    run = status.run
    error = " ".join(in_language(part, language) for part in (run.error, run.hint) if isinstance(part, Sentence))
    return {
        "run_id": run.id,
        "dataset_id": run.dataset_id,
        "base_model": run.base_model,
        "method": run.method,
        "recipe": recipe_json(run.recipe),
        "state": run.state,
        "step": status.step,
        "steps": status.steps,
        "loss": status.loss,
        "tokens_per_second": status.tokens_per_second,
        "eta_seconds": status.eta_seconds,
        "curve": [list(point) for point in status.curve],
        "held_out": [list(point) for point in status.held_out],
        "model": status.model,
        "error": error or None,
        "facts": dict(status.facts),
        "created_at": run.created_at,
        "started_at": run.started_at,
        "ended_at": run.ended_at,
    }
