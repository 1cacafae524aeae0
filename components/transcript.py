"""Between the Chatbot's entries and the conversation: the page shows more than what the model said."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from components.pictures import Entry, is_kept, picture_entry, picture_path, read_picture
from components.texts import in_language, text
from core.chat import Answer
from providers.types import Image, Message, Notice

BLOCK_CHARACTERS = 3000
REMARK = "remark"
TURN = "turn-"
THUMBS = {"up": "Like", "down": "Dislike"}
FIGURES_MARK = "✓"
WARNING_MARK = "⚠"


def user_entry(message: str) -> Entry:
    """Return the entry of a person's message."""
    return {"role": "user", "content": _blocks(message)}


def answer_entry(answer: str, turn_id: str = "") -> Entry:
    """Return the entry of an answer. As text blocks, because Gradio eats the indentation of plain strings."""
    named = {"metadata": {"id": f"{TURN}{turn_id}"}} if turn_id else {}
    return {"role": "assistant", "content": _blocks(answer), **named}


def growing_entry(answer: str, turn_id: str) -> Entry:
    """Return the entry of an answer that is still written, in blocks: the browser lays out only the last one again.

    Blocks end at blank lines outside of code, once they are `BLOCK_CHARACTERS` long.
    """
    blocks, in_code = [""], False
    for paragraph in re.split(r"(?<=\n\n)", answer):
        if len(blocks[-1]) >= BLOCK_CHARACTERS and not in_code:
            blocks.append("")
        blocks[-1] += paragraph
        in_code ^= paragraph.count("```") % 2 == 1
    return answer_entry("", turn_id) | {"content": [each for block in blocks for each in _blocks(block)]}


def whole(entries: Sequence[Entry]) -> list[Entry]:
    """Return entries of one block each, as they are once nothing is written any more."""
    return [entry | {"content": _blocks(entry_text(entry))} if turn_id_of(entry) else entry for entry in entries]


def turn_id_of(entry: Entry) -> str:
    """Return the id of the turn whose answer an entry is; empty for all others."""
    entry_id = str((entry.get("metadata") or {}).get("id") or "")
    return entry_id.removeprefix(TURN) if entry_id.startswith(TURN) else ""


def shown_ratings(entries: Sequence[Entry], ratings: Mapping[str, str]) -> list[str | None]:
    """Return which thumb is pressed under each entry that is not the person's, from the ratings by turn id."""
    return [THUMBS.get(ratings.get(turn_id_of(entry), "")) for entry in entries if entry["role"] == "assistant"]


def reasoning_entry(reasoning: str, language: str) -> Entry:
    """Return the folded entry of the model's thinking."""
    return {
        "role": "assistant",
        "content": _blocks(reasoning),
        "metadata": {"title": text("answer_reasoning", language), "status": "done"},
    }


def figures_entry(answer: Answer, language: str) -> Entry:
    """Return the line under an answer: tokens, with ≈ where nobody counted them, tokens/s, first token, notices."""
    line = text(
        "answer_figures",
        language,
        tokens=f"{'≈ ' if answer.usage.estimated else ''}{answer.usage.completion_tokens}",
        speed=f"{answer.timings.tokens_per_second:.1f}",
        first=f"{answer.timings.first_token_ms / 1000:.2f}",
    )
    if answer.logprobs:
        mean = sum(math.exp(token.logprob) for token in answer.logprobs) / len(answer.logprobs)
        line += " · " + text("answer_likely", language, percent=f"{100 * mean:.0f}")
    if answer.cost_usd is not None:
        line += " · " + text("answer_cost", language, cost=f"{answer.cost_usd:.4g}")
    if answer.finish_reason == "length":
        line += " · " + text("answer_cut", language)
    if answer.finish_reason == "filtered":
        line += " · " + text("answer_filtered", language)
    return remark_entry("\n".join((f"{FIGURES_MARK} {line}", *notice_lines(answer.notices, language))))


def remark_entry(remark: str) -> Entry:
    """Return an entry that the page says, not the model: figures, an error, or that the answer was stopped."""
    return {"role": "assistant", "content": _blocks(remark), "metadata": {"id": REMARK}}


def warning_entry(warning: str) -> Entry:
    """Return a remark that something did not go as asked."""
    return remark_entry(f"{WARNING_MARK} {warning}")


def notice_lines(notices: Iterable[Notice], language: str) -> list[str]:
    """Return the notices as lines of a Markdown list."""
    return [f"- {in_language(notice.sentence, language)}" for notice in notices]


def conversation(entries: Sequence[Entry]) -> tuple[Message, ...]:
    """Return what the person and the model said, without what the page said about it; reads the pictures.

    Raises InvalidRequest for a picture that cannot be read.
    """
    said: list[Message] = []
    pictures: list[Image] = []
    for entry in entries:
        if path := picture_path(entry):
            pictures.append(read_picture(path))
        elif not _is_remark(entry) and (content := entry_text(entry)):
            images = tuple(pictures) if entry["role"] == "user" else ()
            said.append(Message(entry["role"], content, images))
            pictures.clear()
    return tuple(said)


def without_lost_pictures(entries: Sequence[Entry], language: str) -> list[Entry]:
    """Return the entries with a remark in place of each picture that is no longer on the server."""
    return [_found(entry, language) for entry in entries]


def entry_text(entry: Entry) -> str:
    """Return the text of an entry, whichever form Gradio gave it."""
    content = entry["content"]
    if isinstance(content, str):
        return content
    return "".join(block["text"] for block in content if block.get("type") == "text")


def up_to_last_question(entries: Sequence[Entry]) -> list[Entry]:
    """Return the entries up to and with the person's last message."""
    last = max((index for index, entry in enumerate(entries) if entry["role"] == "user"), default=-1)
    return list(entries[: last + 1])


def split_last_question(entries: Sequence[Entry]) -> tuple[list[Entry], dict[str, Any]]:
    """Return what comes before the person's last message, and that message as the box holds one: text and files."""
    before = up_to_last_question(entries)
    question = entry_text(before.pop()) if before else ""
    files: list[str] = []
    while before and (path := picture_path(before[-1])):
        files.insert(0, path)
        before.pop()
    return before, {"text": question, "files": files}


def _blocks(content: str) -> list[dict[str, str]]:
    return [{"type": "text", "text": content}]


def _found(entry: Entry, language: str) -> Entry:
    """Return an entry with no more of a file than the path of a picture that is there."""
    if not (path := picture_path(entry)):
        return entry
    if is_kept(path):
        return picture_entry(path)
    return warning_entry(text("picture_lost", language, name=Path(path).name))


def _is_remark(entry: Entry) -> bool:
    metadata = entry.get("metadata") or {}
    return metadata.get("id") == REMARK or bool(metadata.get("title"))
