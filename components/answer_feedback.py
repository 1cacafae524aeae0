"""What a person says of an answer where it stands: a thumb, a comment, and the answer they wanted in its place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from components.errors import error_sentence
from components.pictures import Entry
from components.texts import language_of, text
from components.transcript import answer_entry, shown_ratings, turn_id_of
from core.errors import RequestRefused
from core.feedback import FeedbackStore, Opinion
from core.settings import Settings
from core.users import User, current_user


@dataclass(frozen=True)
class AnswerFeedback:
    """Keeps what is said of answers, for the person who says it."""

    feedback: FeedbackStore
    settings: Settings

    async def rate(self, request: gr.Request, entries: list[Entry], event: gr.LikeData) -> tuple[Any, str, Any, Any]:
        """Keep a thumb, or take it back, and offer to say why."""
        turn_id = turn_id_of(entries[place_of(event)])
        rating = {True: "up", False: "down"}.get(event.liked, "") if isinstance(event.liked, bool) else ""
        try:
            kept = await self.feedback.submit(self.user(request), turn_id, Opinion(rating=rating))
        except Exception as error:
            gr.Warning(error_sentence(error, language_of(request)))
            return gr.skip(), "", gr.update(visible=False), gr.skip()
        shown = gr.update(feedback_value=await self.ratings(request, entries))
        return shown, turn_id, gr.update(visible=bool(rating)), kept.comment

    async def comment(self, request: gr.Request, turn_id: str, comment: str) -> Any:
        """Keep why the last answer was rated so."""
        try:
            await self.feedback.submit(self.user(request), turn_id, Opinion(comment=comment or ""))
        except Exception as error:
            gr.Warning(error_sentence(error, language_of(request)))
            return gr.skip()
        gr.Info(text("comment_kept", language_of(request)))
        return gr.update(visible=False)

    async def correct(self, request: gr.Request, entries: list[Entry], index: int, correction: str) -> list[Entry]:
        """Keep the answer that the person wanted; return the conversation as if the model had given it."""
        language, turn_id = language_of(request), turn_id_of(entries[index])
        try:
            await self.feedback.submit(self.user(request), turn_id, Opinion(correction=correction))
        except Exception as error:
            gr.Warning(error_sentence(error, language))
            return list(entries)
        gr.Info(text("correction_kept", language))
        return [*entries[:index], answer_entry(correction, turn_id), *entries[index + 1 :]]

    async def ratings(self, request: gr.Request, entries: Sequence[Entry]) -> list[str | None]:
        """Return which thumbs are pressed; none where they cannot be read."""
        turn_ids = [turn_id for entry in entries if (turn_id := turn_id_of(entry))]
        try:
            return shown_ratings(entries, await self.feedback.ratings(self.user(request), turn_ids))
        except RequestRefused:
            return []

    def user(self, request: gr.Request) -> User:
        """Return who asks."""
        return current_user(self.settings, str(request.session_hash or ""))


def place_of(event: gr.LikeData | gr.EditData) -> int:
    """Return the number of the entry that an event is about."""
    return event.index if isinstance(event.index, int) else event.index[0]
