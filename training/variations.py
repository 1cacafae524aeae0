"""Other wordings of a question, so that few rows teach what is meant and not how it was put.

Source: the random deletion of "EDA: Easy Data Augmentation Techniques" (Wei and Zou 2019, arXiv:1901.11196), which
helps most where rows are few.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from random import Random

from training.rows import Row

WORDS = re.compile(r"\S+\s*")
FORMS = 12


def forms_of(row: Row, share: float, random: Random) -> Sequence[Row]:
    """Return a row as it is, followed by forms in which that share of the last question's words is left out."""
    if not share or not row.messages or row.messages[-2].role != "user":
        return [row]
    shortened = (_shortened(row, share, random) for _ in range(FORMS - 1))
    return list(dict.fromkeys([row, *shortened]))


def _shortened(row: Row, share: float, random: Random) -> Row:
    """Leave out each word of the last question with a probability; a question that would be empty stays as it is."""
    *before, question, answer = row.messages
    kept = "".join(word for word in WORDS.findall(question.content) if random.random() >= share).strip()
    return replace(row, messages=(*before, replace(question, content=kept or question.content), answer))
