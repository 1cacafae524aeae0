"""The public Gradio API of the loop: feedback, datasets, runs. No `from __future__` import here: see `api.py`."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gradio as gr

from components.api import named_text, session_of
from components.api_workshop_shapes import (
    DatasetPreview,
    DatasetRow,
    FeedbackRow,
    RunRow,
    UploadedFile,
    dataset_preview,
    dataset_row,
    feedback_row,
    run_row,
)
from components.errors import ErrorsForPage
from components.files import offer, read_upload
from components.texts import language_of
from core.errors import InvalidRequest
from core.feedback import MAX_LISTED, FeedbackFilter, Opinion
from core.feedback_files import to_lines
from core.models import Models
from core.parameters import ParameterSpec, parse_number
from core.users import User, current_user
from providers.sentences import say
from training.recipes import SPECS, parse_recipe
from training.workshop import Workshop

LIMIT = ParameterSpec("limit", "int", 1, MAX_LISTED, default=100)
OFFSET = ParameterSpec("offset", "int", 0, 10_000_000, default=0)
SAMPLE = ParameterSpec("rows", "int", 1, 50, default=5)
ALL = 1_000_000


@dataclass(frozen=True)
class WorkshopApi:
    """The endpoints, as bound methods of the services they call."""

    workshop: Workshop
    models: Models

    def register(self) -> None:
        """Publish the endpoints in the Blocks under construction."""
        endpoints: tuple[Callable[..., Any], ...] = (
            self.submit_feedback,
            self.list_feedback,
            self.export_feedback,
            self.build_dataset,
            self.import_dataset,
            self.preview_dataset,
            self.list_datasets,
            self.start_training,
            self.training_status,
            self.stop_training,
            self.resume_training,
            self.list_runs,
        )
        for endpoint in endpoints:
            gr.api(endpoint, api_name=endpoint.__name__, concurrency_limit=None)

    async def submit_feedback(
        self,
        turn_id: str,
        rating: str | None = None,
        comment: str | None = None,
        correction: str | None = None,
        tags: list[str] | None = None,
        request: gr.Request | None = None,
    ) -> FeedbackRow:
        """Rate, comment or correct an answer; when this returns it is on the server's disk.

        `turn_id` came with the answer's `done` event. `rating` is "up" or "down", `correction` the answer you wanted.
        What is not given stays as it was said before; an empty text takes it back.
        """
        with ErrorsForPage(request):
            opinion = Opinion(
                _optional_text("rating", rating),
                _optional_text("comment", comment),
                _optional_text("correction", correction),
                _tags(tags),
            )
            turn = named_text("turn_id", turn_id)
            return feedback_row(await self.workshop.feedback.submit(self._user(request), turn, opinion))

    async def list_feedback(
        self,
        kind: str = "",
        model: str = "",
        words: str = "",
        limit: int = 100,
        offset: int = 0,
        request: gr.Request | None = None,
    ) -> list[FeedbackRow]:
        """List your feedback, newest first. `kind` is "up", "down" or "corrected"; `words` occur in its texts."""
        with ErrorsForPage(request):
            count, start = int(parse_number(LIMIT, limit) or 0), int(parse_number(OFFSET, offset) or 0)
            wanted = _filter(kind, model, words)
            rows = await self.workshop.feedback.list(self._user(request), wanted, count, start)
            return [feedback_row(row) for row in rows]

    async def export_feedback(
        self, kind: str = "", model: str = "", words: str = "", request: gr.Request | None = None
    ) -> UploadedFile:
        """Export your feedback with its conversations as a JSON Lines file; takes what /list_feedback takes."""
        with ErrorsForPage(request):
            rows = await self.workshop.feedback.list(self._user(request), _filter(kind, model, words), ALL)
            return offer("".join(to_lines(rows)).encode("utf-8"), "feedback.jsonl")  # type: ignore[return-value]

    async def build_dataset(
        self,
        name: str = "",
        kind: str = "",
        model: str = "",
        words: str = "",
        include_thumbs_up: bool = False,
        request: gr.Request | None = None,
    ) -> DatasetRow:
        """Make a dataset of your corrections, and of the answers you rated up, if wanted.

        Rows that occur twice are dropped; a tenth of the conversations is held out to measure with.
        """
        with ErrorsForPage(request):
            dataset = await self.workshop.datasets.build(
                self._user(request),
                named_text("name", name),
                _filter(kind, model, words),
                _yes_or_no("include_thumbs_up", include_thumbs_up),
            )
            return dataset_row(dataset, language_of(request))

    async def import_dataset(
        self,
        file: UploadedFile | None = None,
        content: str = "",
        name: str = "",
        request: gr.Request | None = None,
    ) -> DatasetRow:
        """Make a dataset of a file, or of the text in `content`.

        JSON Lines of {"prompt", "completion"} or {"messages"}, or plain lines of text. Rows that cannot be read are
        reported with their number and left out.
        """
        with ErrorsForPage(request):
            if (file is None) == (not content):
                raise InvalidRequest(say("Give either file or content."))
            data = named_text("content", content).encode("utf-8", "replace") if file is None else read_upload(file)
            dataset = await self.workshop.datasets.import_file(self._user(request), named_text("name", name), data)
            return dataset_row(dataset, language_of(request))

    async def preview_dataset(
        self,
        dataset_id: str,
        model: str = "",
        max_length: int = 1024,
        rows: int = 5,
        request: gr.Request | None = None,
    ) -> DatasetPreview:
        """Show the first rows as `model` sees them, what of them it learns, and how long all rows are in its tokens."""
        with ErrorsForPage(request):
            longest = int(parse_number(SPECS["max_length"], max_length) or 0)
            sample = int(parse_number(SAMPLE, rows) or 0)
            user, dataset = self._user(request), named_text("dataset_id", dataset_id)
            return dataset_preview(
                await self.workshop.preview(user, dataset, named_text("model", model), longest, sample)
            )

    async def list_datasets(self, request: gr.Request | None = None) -> list[DatasetRow]:
        """List your datasets, newest first."""
        with ErrorsForPage(request):
            language = language_of(request)
            return [dataset_row(row, language) for row in await self.workshop.datasets.list(self._user(request))]

    async def start_training(
        self,
        dataset_id: str,
        base_model: str = "",
        method: str = "sft",
        recipe: dict[str, Any] | None = None,
        name: str = "",
        request: gr.Request | None = None,
    ) -> RunRow:
        """Fine-tune a transformers model on a dataset with LoRA; a second run waits for the first.

        `recipe` may set epochs, learning_rate, rank, dropout, word_dropout (the share of a question's words left out
        when it is read again), batch_size, max_length, replay (the share of rows that are the model's own answers,
        which keep it from forgetting) and seed. Follow it with /training_status.
        """
        with ErrorsForPage(request):
            user = self._user(request)
            run = await self.workshop.runs.start(
                user,
                named_text("dataset_id", dataset_id),
                named_text("base_model", base_model),
                parse_recipe(recipe),
                named_text("method", method),
                named_text("name", name)[:40],
            )
            return await self._status(user, run.id, request)

    async def training_status(self, run_id: str, request: gr.Request | None = None) -> RunRow:
        """Say how far a run is: state, step, loss, ETA in seconds, tokens/s, the curves, and the tuned model's id."""
        with ErrorsForPage(request):
            return await self._status(self._user(request), named_text("run_id", run_id), request)

    async def stop_training(self, run_id: str, request: gr.Request | None = None) -> RunRow:
        """End a run after the step it is in. What it has learnt is kept, can be used, and can be resumed."""
        with ErrorsForPage(request):
            run = await self.workshop.runs.stop(self._user(request), named_text("run_id", run_id))
            return await self._status(self._user(request), run.id, request)

    async def resume_training(self, run_id: str, request: gr.Request | None = None) -> RunRow:
        """Go on with a run that was stopped, failed or cut off, from its last whole checkpoint."""
        with ErrorsForPage(request):
            run = await self.workshop.runs.resume(self._user(request), named_text("run_id", run_id))
            return await self._status(self._user(request), run.id, request)

    async def list_runs(self, request: gr.Request | None = None) -> list[RunRow]:
        """List your runs, newest first."""
        with ErrorsForPage(request):
            user = self._user(request)
            runs = await self.workshop.runs.list(user)
            return [await self._status(user, run.id, request) for run in runs]

    def _user(self, request: gr.Request | None) -> User:
        return current_user(self.models.settings, session_of(request))

    async def _status(self, user: User, run_id: str, request: gr.Request | None) -> RunRow:
        return run_row(await self.workshop.runs.status(user, run_id), language_of(request))


def _filter(kind: Any, model: Any, words: Any) -> FeedbackFilter:
    return FeedbackFilter(named_text("kind", kind), named_text("model", model), named_text("words", words)[:500])


def _optional_text(name: str, value: Any) -> str | None:
    return None if value is None else named_text(name, value)


def _yes_or_no(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise InvalidRequest(say("{name} must be true or false.", name=name))
    return value


def _tags(tags: Any) -> tuple[str, ...] | None:
    if tags is None:
        return None
    if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
        raise InvalidRequest(say("tags must be a list of texts."))
    return tuple(tags)
