"""From a row to tokens, each learnt or only read. The preview and the training use this same function."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from core.errors import InvalidRequest
from providers.chat_templates import plain_template
from providers.sentences import say
from providers.types import Message
from training.rows import Row

IGNORED = -100


@dataclass(frozen=True)
class Encoded:
    """A row's tokens, and which of them the model learns to write."""

    ids: tuple[int, ...]
    learnt: tuple[bool, ...]

    @property
    def labels(self) -> list[int]:
        """The targets of the loss: the token where it is learnt, else -100."""
        return [token if learnt else IGNORED for token, learnt in zip(self.ids, self.learnt, strict=True)]


@dataclass(frozen=True)
class Piece:
    """A stretch of a row's text as the model sees it."""

    text: str
    learnt: bool


def load_tokenizer(folder: Path, config: dict[str, Any]) -> Any:
    """Load the tokenizer of a base model with the chat template that it answers with."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    if not tokenizer.chat_template:
        tokenizer.chat_template, _ = plain_template(config)
    return tokenizer


def encode(row: Row, tokenizer: Any) -> Encoded:
    """Encode a row: of a conversation the last message is learnt, with the token that ends it; a text is learnt whole.

    Raises InvalidRequest where the chat template cannot format the conversation.
    """
    end = tokenizer.eos_token_id
    if not row.messages:
        ids = [*tokenizer(row.text)["input_ids"], *([] if end is None else [end])]
        return Encoded(tuple(ids), (True,) * len(ids))
    prompt = _prompt(row.messages[:-1], tokenizer)
    whole = _render(row.messages, tokenizer)
    said = whole[len(prompt) :] if whole.startswith(prompt) else row.messages[-1].content
    prompt_ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    ids = list(tokenizer(said, add_special_tokens=False)["input_ids"])
    if end is not None:
        if end in ids:
            ids = ids[: ids.index(end) + 1]
        else:
            ids = [*tokenizer(said.rstrip("\n"), add_special_tokens=False)["input_ids"], end]
    return Encoded((*prompt_ids, *ids), (False,) * len(prompt_ids) + (True,) * len(ids))


def pieces(encoded: Encoded, tokenizer: Any) -> list[Piece]:
    """Return a row's text in the stretches that are learnt and those that are only read."""
    stretches = groupby(zip(encoded.ids, encoded.learnt, strict=True), key=lambda each: each[1])
    return [Piece(tokenizer.decode([token for token, _ in tokens]), learnt) for learnt, tokens in stretches]


def _prompt(messages: Sequence[Message], tokenizer: Any) -> str:
    return _render(messages, tokenizer, add_generation_prompt=True)


def _render(messages: Sequence[Message], tokenizer: Any, **options: Any) -> str:
    listed = [{"role": message.role, "content": message.content} for message in messages]
    try:
        return str(tokenizer.apply_chat_template(listed, tokenize=False, **options))
    except Exception as error:
        raise InvalidRequest(
            say("This model's chat template cannot format a conversation of the dataset."),
            say("Leave out the system prompt, or choose another model."),
        ) from error
