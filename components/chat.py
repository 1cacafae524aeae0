"""The Chat tab: a conversation that streams, and that can be stopped, edited, asked again and taken back."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from components.answer_feedback import AnswerFeedback, place_of
from components.errors import error_sentence
from components.message_names import NAME_THE_BOX
from components.models import ModelPicker
from components.parameters import ParametersPanel, ParametersTab, build_panel, in_force, to_values
from components.pictures import Entry, picture_entries
from components.streaming import with_pings
from components.texts import language_of, t, text
from components.transcript import (
    answer_entry,
    conversation,
    entry_text,
    figures_entry,
    growing_entry,
    reasoning_entry,
    remark_entry,
    split_last_question,
    up_to_last_question,
    user_entry,
    warning_entry,
    whole,
    without_lost_pictures,
)
from core.chat import MAX_CHARACTERS, Answer, Chat, Question
from core.feedback import FeedbackStore
from core.parameters import parse_parameters
from providers.types import Queued, ReasoningDelta, TextDelta

CONVERSATION_KEY = "simpleia-conversation"
UPDATE_SECONDS = 0.1
KEEP_SECONDS = 1.0
SLOWER_BY = 100_000  # characters for each second of the pause
KEPT_CHARACTERS = 1_000_000
UNCHANGED = [gr.skip(), gr.skip(), gr.skip()]
LATEX = [
    {"left": left, "right": right, "display": display}
    for left, right, display in (("$$", "$$", True), ("\\[", "\\]", True), ("\\(", "\\)", False))
]


@dataclass(frozen=True)
class ChatTab:
    """The conversation, the message box, the panel, and what the browser keeps of them."""

    chatbot: gr.Chatbot
    message: gr.MultimodalTextbox
    panel: ParametersPanel
    kept: gr.BrowserState
    rated: gr.State
    comment_row: gr.Row
    comment: gr.Textbox
    close_comment: gr.Button


def build() -> ChatTab:
    """Lay out the tab."""
    with gr.Row(elem_id="chat-row"):
        with gr.Column(scale=4, min_width=280, elem_id="chat-column"):
            chatbot = gr.Chatbot(
                elem_id="chat",
                label=t("chat_label"),
                show_label=False,
                editable="all",
                buttons=["copy", "copy_all"],
                latex_delimiters=LATEX,
                allow_tags=False,
                layout="bubble",
                group_consecutive_messages=False,
                placeholder=t("chat_placeholder"),
                height="60vh",
                resizable=True,
            )
            with gr.Row(visible=False, elem_id="comment-row", equal_height=True) as comment_row:
                comment = gr.Textbox(
                    elem_id="comment",
                    label=t("comment_label"),
                    placeholder=t("comment_placeholder"),
                    show_label=False,
                    lines=1,
                    max_lines=4,
                    submit_btn=t("comment_save"),
                    min_width=200,
                )
                close_comment = gr.Button(t("comment_close"), elem_id="close-comment", size="sm", scale=0, min_width=80)
            message = gr.MultimodalTextbox(
                elem_id="message",
                file_types=["image"],
                file_count="multiple",
                max_plain_text_length=MAX_CHARACTERS,
                label=t("message_label"),
                placeholder=t("message_placeholder"),
                show_label=False,
                lines=1,
                max_lines=8,
                submit_btn=True,
                stop_btn=False,
                autofocus=True,
            )
        with gr.Column(scale=1, min_width=220, elem_id="panel"):
            gr.Markdown(t("panel_title"))
            panel = build_panel()
    return ChatTab(
        chatbot=chatbot,
        message=message,
        panel=panel,
        kept=gr.BrowserState(None, storage_key=CONVERSATION_KEY, secret=CONVERSATION_KEY),
        rated=gr.State(""),
        comment_row=comment_row,
        comment=comment,
        close_comment=close_comment,
    )


def wire(
    ui: ChatTab,
    picker: ModelPicker,
    parameters: ParametersTab,
    chat: Chat,
    feedback: FeedbackStore,
    demo: gr.Blocks,
) -> None:
    """Send, ask again and edit stream an answer; Stop and everything that changes the conversation end it."""
    page = [ui.chatbot, ui.message, ui.kept]
    settings = [ui.kept, picker.choice, parameters.system, parameters.streaming, *in_force(parameters, ui.panel)]
    streaming: dict[str, Any] = {
        "api_visibility": "private",
        "concurrency_limit": None,
        "show_progress": "hidden",
    }
    quick: dict[str, Any] = {"api_visibility": "private", "queue": False, "show_progress": "hidden"}
    said = AnswerFeedback(feedback, chat.models.settings)
    actions = ChatActions(chat, said)
    send = ui.message.submit(actions.ask, [ui.message, ui.chatbot, *settings], page, **streaming)
    example = ui.chatbot.example_select(actions.ask_example, [ui.chatbot, *settings], page, **streaming)
    retry = ui.chatbot.retry(actions.ask_again, [ui.chatbot, *settings], page, cancels=[send, example], **streaming)
    edit = ui.chatbot.edit(
        actions.ask_edited, [ui.chatbot, *settings], page, cancels=[send, example, retry], **streaming
    )
    running = [send, example, retry, edit]
    changes: tuple[tuple[Any, Any, list[Any]], ...] = (
        (ui.message.stop, stopped, [ui.chatbot, ui.kept]),
        (ui.chatbot.undo, take_back, [ui.chatbot, ui.kept]),
        (ui.chatbot.clear, clear, []),
    )
    for event, change, inputs in changes:
        event(None, None, None, cancels=running, **quick).then(change, inputs, page, **quick)
    parameters.markdown.change(lambda on: gr.update(render_markdown=on), parameters.markdown, ui.chatbot, **quick)
    demo.load(actions.restore, [ui.kept, ui.panel.preferences], [ui.chatbot, ui.kept], **quick)
    demo.load(None, None, None, js=NAME_THE_BOX, **quick)
    ui.chatbot.like(said.rate, [ui.chatbot], [ui.chatbot, ui.rated, ui.comment_row, ui.comment], **streaming)
    ui.comment.submit(said.comment, [ui.rated, ui.comment], [ui.comment_row], **streaming)
    ui.close_comment.click(lambda: gr.update(visible=False), None, ui.comment_row, **quick)


@dataclass(frozen=True)
class ChatActions:
    """What asks the model: each streams updates of the page."""

    chat: Chat
    said: AnswerFeedback

    async def ask(
        self, request: gr.Request, message: Mapping[str, Any], entries: list[Entry], *settings: Any
    ) -> AsyncGenerator[list[Any], None]:
        """Add the message to the conversation and stream its answer; an empty message changes nothing."""
        if not message["text"].strip():
            gr.Warning(text("message_empty", language_of(request)))
            yield UNCHANGED
            return
        asked = [*picture_entries(message["files"]), user_entry(message["text"])]
        async for update in self._answer(request, [*entries, *asked], settings):
            yield update

    async def ask_example(
        self, request: gr.Request, event: gr.SelectData, entries: list[Entry], *settings: Any
    ) -> AsyncGenerator[list[Any], None]:
        """Ask one of the suggestions of the empty page."""
        async for update in self.ask(request, _only_text(event.value["text"]), entries, *settings):
            yield update

    async def ask_again(
        self, request: gr.Request, entries: list[Entry], *settings: Any
    ) -> AsyncGenerator[list[Any], None]:
        """Throw the last answer away and ask again."""
        async for update in self._answer(request, up_to_last_question(entries), settings):
            yield update

    async def ask_edited(
        self, request: gr.Request, event: gr.EditData, entries: list[Entry], *settings: Any
    ) -> AsyncGenerator[list[Any], None]:
        """Replace the edited message, forget what came after it, and ask; an edited answer is a correction."""
        index, entries = place_of(event), without_lost_pictures(entries, language_of(request))
        if entries[index]["role"] == "assistant":
            corrected = await self.said.correct(request, entries, index, str(event.value))
            yield [corrected, _idle(), _keep(corrected, _conversation_id(settings[0]))]
            return
        async for update in self.ask(request, _only_text(str(event.value)), entries[:index], *settings):
            yield update

    async def restore(
        self, kept: Mapping[str, Any] | None, preferences: Mapping[str, Any] | None, request: gr.Request
    ) -> tuple[Any, Any]:
        """Bring back the conversation that this browser kept, and mark an answer that a reload cut off."""
        language = language_of(request)
        remembered = kept["entries"] if isinstance(kept, dict) and isinstance(kept.get("entries"), list) else []
        entries = whole(without_lost_pictures(remembered, language))
        marked = gr.skip()
        if isinstance(kept, dict) and kept.get("running"):
            entries.append(warning_entry(text("answer_interrupted", language)))
            marked = _keep(entries, _conversation_id(kept))
        markdown = bool((preferences or {}).get("markdown", True))
        examples = [{"text": text(f"example_{number}", language)} for number in (1, 2, 3)]
        brought_back = (
            {"value": entries, "feedback_value": await self.said.ratings(request, entries)} if entries else {}
        )
        return gr.update(examples=examples, render_markdown=markdown, **brought_back), marked

    async def _answer(
        self, request: gr.Request, entries: list[Entry], settings: Sequence[Any]
    ) -> AsyncGenerator[list[Any], None]:
        """Stream the answer to the last entry, at most ten updates a second, and fewer when it is long."""
        language, turn_id = language_of(request), uuid.uuid4().hex
        kept, model, system, streaming, *numbers = settings
        conversation_id, session = _conversation_id(kept), str(request.session_hash or "")
        try:
            entries = await asyncio.to_thread(without_lost_pictures, entries, language)
            *history, message = await asyncio.to_thread(conversation, entries)
            await self.chat.check_pictures(message.images, model, session)
        except Exception as error:
            gr.Warning(error_sentence(error, language))
            yield UNCHANGED
            return
        yield [entries, _busy(), _keep(entries, conversation_id, running=True)]
        written, thought = "", ""
        shown = kept_at = time.monotonic()
        try:
            question = Question(
                message=message.content,
                history=tuple(history),
                model=model,
                system=system or "",
                conversation_id=conversation_id,
                parameters=parse_parameters(to_values(numbers)),
                images=message.images,
                session=session,
                user=self.said.user(request),
                turn_id=turn_id,
            )
            async for event in with_pings(self.chat.stream(question)):
                if isinstance(event, Answer):
                    entries = [
                        *_with_answer(entries, event.text, event.reasoning, language, turn_id),
                        figures_entry(event, language),
                    ]
                    continue
                if isinstance(event, Queued):
                    waiting = remark_entry(text("answer_queued", language, place=event.place))
                    yield [[*entries, waiting], gr.skip(), gr.skip()]
                    continue
                written += event.text if isinstance(event, TextDelta) else ""
                thought += event.text if isinstance(event, ReasoningDelta) else ""
                now = time.monotonic()
                if event is None or not streaming or now - shown < _update_seconds(len(written)):
                    if event is None:
                        yield UNCHANGED
                    continue
                growing = [growing_entry(written, turn_id)] if written else []
                partial_entries = [*_with_answer(entries, "", thought, language, turn_id), *growing]
                keeping = now - kept_at >= KEEP_SECONDS
                kept_at, shown = (now, now) if keeping else (kept_at, now)
                yield [
                    partial_entries,
                    gr.skip(),
                    _keep(partial_entries, conversation_id, running=True) if keeping else gr.skip(),
                ]
        except Exception as error:
            failure = text("answer_failed", language, reason=error_sentence(error, language))
            entries = [*_with_answer(entries, written, thought, language, turn_id), warning_entry(failure)]
        yield [entries, _idle(), _keep(entries, conversation_id)]


def stopped(entries: list[Entry], kept: Mapping[str, Any] | None, request: gr.Request) -> list[Any]:
    """Mark the answer as stopped; what was written stays."""
    language = language_of(request)
    entries = [*whole(without_lost_pictures(entries, language)), warning_entry(text("answer_stopped", language))]
    return [entries, _idle(), _keep(entries, _conversation_id(kept))]


def take_back(entries: list[Entry], kept: Mapping[str, Any] | None, request: gr.Request) -> list[Any]:
    """Remove the last question with its answer, and put the question back into the message box."""
    before, question = split_last_question(without_lost_pictures(entries, language_of(request)))
    if not question["text"]:
        return UNCHANGED
    return [before, _idle(value=question), _keep(before, _conversation_id(kept))]


def clear() -> list[Any]:
    """Begin a new conversation; the system prompt and the parameters stay."""
    return [gr.update(value=[], feedback_value=[]), _idle(), None]


def _with_answer(entries: list[Entry], written: str, thought: str, language: str, turn_id: str) -> list[Entry]:
    thinking = [reasoning_entry(thought, language)] if thought else []
    return [*entries, *thinking, *([answer_entry(written, turn_id)] if written else [])]


def _update_seconds(length: int) -> float:
    """Return the pause between updates: the longer an answer is, the longer Gradio's page takes to compare it."""
    return UPDATE_SECONDS + length / SLOWER_BY


def _only_text(message: str) -> dict[str, Any]:
    return {"text": message, "files": []}


def _busy() -> Any:
    return gr.update(value=_only_text(""), submit_btn=False, stop_btn=True)


def _idle(**changes: Any) -> Any:
    return gr.update(submit_btn=True, stop_btn=False, **changes)


def _conversation_id(kept: Mapping[str, Any] | None) -> str:
    return str((kept or {}).get("id") or uuid.uuid4().hex)


def _keep(entries: list[Entry], conversation_id: str, running: bool = False) -> dict[str, Any]:
    """Return what the browser keeps: the newest entries that fit its storage."""
    kept: list[Entry] = []
    room = KEPT_CHARACTERS
    for entry in reversed(entries):
        room -= len(entry_text(entry))
        if room < 0:
            break
        kept.insert(0, entry)
    return {"entries": kept, "id": conversation_id, "running": running}
