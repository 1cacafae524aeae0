"""The Feedback tab: what was said of the answers, with the conversation beside it, to read, change and carry away."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import gradio as gr

from components.errors import error_sentence, row_errors
from components.files import read_upload
from components.texts import language_of, t, text
from components.transcript import answer_entry, user_entry
from core.feedback import Feedback, FeedbackFilter, FeedbackStore, Opinion
from core.feedback_files import parse_feedback, to_lines
from core.models import Models
from core.users import User, current_user

COLUMNS = ("rating", "question", "answer", "correction", "comment", "model", "time")
KINDS = ("all", "up", "down", "corrected")
RATINGS = ("up", "down", "none")
SHOWN = 200
EXPORTED = 1_000_000
EXCERPT = 80

DOWNLOAD = """(lines) => {
  if (!lines) return;
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([lines], { type: "application/x-ndjson" }));
  link.download = "feedback.jsonl";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}"""


@dataclass(frozen=True)
class FeedbackTab:
    """The table with its filters, and the selected row with its conversation."""

    kind: gr.Radio
    words: gr.Textbox
    table: gr.Dataframe
    ids: gr.State
    count: gr.Markdown
    refresh: gr.Button
    export: gr.Button
    exported: gr.Textbox
    upload: gr.UploadButton
    selected: gr.State
    conversation: gr.Chatbot
    editor: gr.Column
    rating: gr.Radio
    comment: gr.Textbox
    correction: gr.Textbox
    save: gr.Button
    ask_delete: gr.Button
    confirm: gr.Row
    delete: gr.Button
    keep: gr.Button


def build() -> FeedbackTab:
    """Lay out the tab."""
    gr.Markdown(t("feedback_instructions"))
    with gr.Row(equal_height=False):
        with gr.Column(scale=3, min_width=300):
            with gr.Row(equal_height=True):
                kind = gr.Radio(
                    [(t(f"feedback_kind_{choice}"), "" if choice == "all" else choice) for choice in KINDS],
                    value="",
                    label=t("feedback_kind_label"),
                    elem_id="feedback-kind",
                    scale=2,
                    min_width=260,
                )
                words = gr.Textbox(label=t("feedback_words_label"), elem_id="feedback-words", min_width=160, scale=1)
            table = gr.Dataframe(
                headers=[t(f"feedback_{field}") for field in COLUMNS],
                interactive=False,
                elem_id="feedback-table",
                label=t("feedback_table"),
                buttons=[],
                wrap=True,
                max_height=480,
                column_widths=["70px", "160px", "200px", "200px", "140px", "120px", "140px"],
            )
            count = gr.Markdown(elem_id="feedback-count")
            with gr.Row():
                refresh = gr.Button(t("feedback_refresh"), elem_id="feedback-refresh", size="sm", min_width=100)
                export = gr.Button(t("feedback_export"), elem_id="feedback-export", size="sm", min_width=100)
                upload = gr.UploadButton(
                    t("feedback_import"),
                    file_types=[".jsonl", ".json", ".txt"],
                    elem_id="feedback-import",
                    size="sm",
                    min_width=100,
                )
        with gr.Column(scale=2, min_width=300, visible=False, elem_id="feedback-editor") as editor:
            conversation = gr.Chatbot(
                label=t("feedback_conversation"),
                elem_id="feedback-conversation",
                buttons=["copy"],
                allow_tags=False,
                layout="bubble",
                group_consecutive_messages=False,
                height=320,
            )
            rating = gr.Radio(
                [(t(f"feedback_rating_{mark}"), "" if mark == "none" else mark) for mark in RATINGS],
                label=t("feedback_rating_label"),
                elem_id="feedback-rating",
            )
            correction = gr.Textbox(
                label=t("feedback_correction"),
                info=t("feedback_correction_help"),
                lines=3,
                max_lines=12,
                elem_id="feedback-correction",
            )
            comment = gr.Textbox(label=t("feedback_comment"), lines=2, max_lines=8, elem_id="feedback-comment")
            with gr.Row():
                save = gr.Button(t("feedback_save"), variant="primary", elem_id="feedback-save", min_width=100)
                ask_delete = gr.Button(t("feedback_delete"), elem_id="feedback-delete", min_width=100)
            with gr.Row(visible=False, elem_id="feedback-confirm") as confirm:
                delete = gr.Button(
                    t("feedback_delete_confirm"), variant="stop", elem_id="feedback-delete-confirm", min_width=100
                )
                keep = gr.Button(t("feedback_delete_keep"), elem_id="feedback-delete-keep", min_width=100)
    exported = gr.Textbox(visible="hidden", elem_id="feedback-exported")
    return FeedbackTab(
        kind,
        words,
        table,
        gr.State([]),
        count,
        refresh,
        export,
        exported,
        upload,
        gr.State(""),
        conversation,
        editor,
        rating,
        comment,
        correction,
        save,
        ask_delete,
        confirm,
        delete,
        keep,
    )


def wire(ui: FeedbackTab, area: gr.Tab, feedback: FeedbackStore, models: Models) -> None:
    """Fill the table whenever the tab is opened; a selected row opens beside it."""
    quiet: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden", "concurrency_limit": None}
    actions = FeedbackActions(feedback, models)
    filters, listing = [ui.kind, ui.words], [ui.table, ui.ids, ui.count]
    opened = [ui.selected, ui.editor, ui.conversation, ui.rating, ui.correction, ui.comment, ui.confirm]
    # Without `always_last` Gradio drops what the person does while the list before it is still coming.
    gr.on(
        [area.select, ui.kind.change, ui.words.submit, ui.refresh.click],
        actions.list_rows,
        filters,
        listing,
        trigger_mode="always_last",
        **quiet,
    )
    ui.table.select(actions.open, [ui.ids], opened, trigger_mode="always_last", **quiet)
    ui.save.click(actions.save, [ui.selected, ui.rating, ui.correction, ui.comment], opened, **quiet).then(
        actions.list_rows, filters, listing, **quiet
    )
    ui.ask_delete.click(lambda: gr.update(visible=True), None, ui.confirm, **quiet)
    ui.keep.click(lambda: gr.update(visible=False), None, ui.confirm, **quiet)
    ui.delete.click(actions.delete, ui.selected, opened, **quiet).then(actions.list_rows, filters, listing, **quiet)
    ui.export.click(actions.export, filters, ui.exported, **quiet).then(None, ui.exported, None, js=DOWNLOAD, **quiet)
    ui.upload.upload(actions.import_file, ui.upload, None, **quiet).then(actions.list_rows, filters, listing, **quiet)


@dataclass(frozen=True)
class FeedbackActions:
    """What the tab does, for the person who asks."""

    feedback: FeedbackStore
    models: Models

    async def list_rows(self, kind: str, words: str, request: gr.Request) -> tuple[Any, list[str], str]:
        """Return the table, the ids of its rows, and how many there are in all."""
        language, user, wanted = (
            language_of(request),
            self._user(request),
            FeedbackFilter(kind or "", words=words or ""),
        )
        try:
            rows = await self.feedback.list(user, wanted, SHOWN)
            total = await self.feedback.count(user, wanted)
        except Exception as error:
            gr.Warning(error_sentence(error, language))
            return gr.skip(), [], ""
        headers = [text(f"feedback_{field}", language) for field in COLUMNS]
        counted = text("feedback_count", language, shown=len(rows), total=total)
        return (
            gr.update(headers=headers, value=[_cells(row, language) for row in rows]),
            [row.id for row in rows],
            counted if rows else text("feedback_nothing", language),
        )

    async def open(self, ids: list[str], request: gr.Request, event: gr.SelectData) -> Sequence[Any]:
        """Show the selected feedback with its conversation."""
        place = event.index[0] if isinstance(event.index, list | tuple) else event.index
        if place >= len(ids):  # The empty row of an empty table.
            return _closed()
        try:
            return _opened(await self.feedback.get(self._user(request), ids[place]))
        except Exception as error:
            gr.Warning(error_sentence(error, language_of(request)))
            return _closed()

    async def save(
        self, selected: str, rating: str | None, correction: str, comment: str, request: gr.Request
    ) -> Sequence[Any]:
        """Keep what was changed; feedback of which nothing is left is closed."""
        language, user = language_of(request), self._user(request)
        try:
            turn = (await self.feedback.get(user, selected)).turn
            kept = await self.feedback.submit(user, turn.id, Opinion(rating or "", comment or "", correction or ""))
        except Exception as error:
            gr.Warning(error_sentence(error, language))
            return [gr.skip()] * len(_closed())
        gr.Info(text("feedback_saved", language))
        return _opened(kept) if kept.rating or kept.comment or kept.correction or kept.tags else _closed()

    async def delete(self, selected: str, request: gr.Request) -> Sequence[Any]:
        """Forget the selected feedback."""
        try:
            await self.feedback.delete(self._user(request), selected)
        except Exception as error:
            gr.Warning(error_sentence(error, language_of(request)))
        return _closed()

    async def export(self, kind: str, words: str, request: gr.Request) -> str:
        """Return the filtered feedback as JSON Lines, for the browser to save."""
        wanted = FeedbackFilter(kind or "", words=words or "")
        try:
            rows = await self.feedback.list(self._user(request), wanted, EXPORTED)
        except Exception as error:
            gr.Warning(error_sentence(error, language_of(request)))
            return ""
        if not rows:
            gr.Warning(text("feedback_nothing", language_of(request)))
        return "".join(to_lines(rows))

    async def import_file(self, file: Any, request: gr.Request) -> None:
        """Keep the feedback of a file, and say what could not be read."""
        language = language_of(request)
        try:
            found = parse_feedback(read_upload(file))
            await self.feedback.add(self._user(request), found.feedback)
        except Exception as error:
            gr.Warning(error_sentence(error, language))
            return
        gr.Info(text("feedback_imported", language, count=len(found.feedback)))
        if found.errors:
            gr.Warning(row_errors(found.errors, language))

    def _user(self, request: gr.Request) -> User:
        return current_user(self.models.settings, str(request.session_hash or ""))


def _cells(row: Feedback, language: str) -> list[str]:
    when = datetime.fromtimestamp(row.updated_at, UTC).astimezone()
    return [
        text(f"feedback_rating_{row.rating}", language) if row.rating else "–",
        _excerpt(row.turn.question),
        _excerpt(row.turn.answer),
        _excerpt(row.correction or ""),
        _excerpt(row.comment),
        row.turn.model.removeprefix("transformers/"),
        f"{when:%Y-%m-%d %H:%M}",
    ]


def _excerpt(words: str) -> str:
    line = " ".join(words.split())
    return line if len(line) <= EXCERPT else line[: EXCERPT - 1] + "…"


def _opened(row: Feedback) -> Sequence[Any]:
    said = [
        user_entry(message.content) if message.role == "user" else answer_entry(message.content)
        for message in row.turn.messages
        if message.role != "system"
    ]
    return (
        row.id,
        gr.update(visible=True),
        [*said, answer_entry(row.turn.answer)],
        row.rating or "",
        row.correction or "",
        row.comment,
        gr.update(visible=False),
    )


def _closed() -> Sequence[Any]:
    return "", gr.update(visible=False), [], "", "", "", gr.update(visible=False)
