"""The rows of a run as its trainer reads them: encoded, in one order that depends on nothing but the seed."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any

from providers.sentences import Sentence, say
from training.encoding import Encoded, encode
from training.recipes import Recipe
from training.rows import Row
from training.variations import forms_of

MEASURED = 256
MOST_REPLAYED_FORMS = 6

Forms = Sequence[Encoded]  # One row, as it is first and then in other wordings.


class RunFailed(Exception):
    """The run cannot go on; the sentences are for the person who started it."""

    def __init__(self, message: Sentence, hint: Sentence | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


def encoded_rows(
    rows: Sequence[Row], tokenizer: Any, limit: int, recipe: Recipe
) -> tuple[list[Forms], list[Encoded], int]:
    """Return the rows to learn, those held out, and how many were left out because they are too long."""
    pairs = [(row, encode(row, tokenizer)) for row in rows]
    fitting = [(row, encoded) for row, encoded in pairs if len(encoded.ids) <= limit]
    learnt = [row for row, _ in fitting if not row.held_out]
    if not learnt:
        raise RunFailed(
            say("Every row is longer than {limit} tokens, so nothing is left to train on.", limit=limit),
            say("Raise max_length as far as the model's context allows, or shorten the rows."),
        )
    held_out = [encoded for row, encoded in fitting if row.held_out]
    share, random = recipe.share_left_out(len(learnt)), Random(recipe.seed)
    forms: list[Forms] = [[encode(form, tokenizer) for form in forms_of(row, share, random)] for row in learnt]
    return forms, held_out[:MEASURED], len(pairs) - len(fitting)


def encoded_replay(rows: Sequence[Row], tokenizer: Any, limit: int) -> list[Forms]:
    """Return the rows that keep the model from forgetting, without those that are too long.

    A few questions with the same answer are forms of one row: what a model says to everything that it does not know
    would otherwise outweigh all else, and what the dataset teaches of it; as one row alone it would be forgotten.
    """
    by_answer: dict[str, list[Encoded]] = {}
    for row in rows:
        if len((encoded := encode(row, tokenizer)).ids) <= limit:
            by_answer.setdefault(row.messages[-1].content, []).append(encoded)
    starts = ((forms, start) for forms in by_answer.values() for start in range(0, len(forms), MOST_REPLAYED_FORMS))
    return [forms[start : start + MOST_REPLAYED_FORMS] for forms, start in starts]


def asked(rows: Sequence[Row]) -> set[str]:
    """Return the questions to which the rows teach answers."""
    return {message.content for row in rows for message in row.messages if message.role == "user"}


def in_order(learnt: Sequence[Forms], replayed: Sequence[Forms], recipe: Recipe, steps: int) -> list[Encoded]:
    """Return all rows of a run in the order in which they are read: each batch mixes both kinds, each pass is shuffled.

    A row is read as it is first, and in any of its forms after that.
    The order depends on the seed and the numbers alone, so that a resumed run reads on where it was.
    """
    random = Random(recipe.seed)
    per_batch = recipe.rows_in_batch if replayed else recipe.batch_size
    own = _shuffled_passes(learnt, per_batch * steps, random)
    other = _shuffled_passes(replayed, (recipe.batch_size - per_batch) * steps, random)
    order: list[Encoded] = []
    for step in range(steps):
        order += own[step * per_batch : (step + 1) * per_batch]
        order += other[step * (recipe.batch_size - per_batch) : (step + 1) * (recipe.batch_size - per_batch)]
    return order


def _shuffled_passes(rows: Sequence[Forms], count: int, random: Random) -> list[Encoded]:
    order: list[Encoded] = []
    while rows and len(order) < count:
        shuffled = random.sample(rows, len(rows))
        order += [random.choice(forms) if order else forms[0] for forms in shuffled]
    return order[:count]


def columns(rows: Sequence[Encoded]) -> list[dict[str, list[int]]]:
    """Return rows as the trainer takes them."""
    return [{"input_ids": list(row.ids), "labels": row.labels} for row in rows]
