"""Rows that keep a model from forgetting: its own answers to everyday questions, before it is trained.

Source: Huang et al., "Mitigating Catastrophic Forgetting in Large Language Models with Self-Synthesized Rehearsal",
2024.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import torch

from providers.types import Message
from training.rows import Row, from_line, to_line
from training.run_folder import write_whole

QUESTIONS = Path(__file__).parent / "replay_questions.txt"
BATCH = 16
LONGEST_ANSWER = 160
LIKE = 0.4
SECONDS = 60.0


@cache
def questions() -> tuple[str, ...]:
    """List the questions that are asked."""
    return tuple(line.strip() for line in QUESTIONS.read_text(encoding="utf-8").splitlines() if line.strip())


def questions_beside(taught: Collection[str]) -> list[str]:
    """List the questions that share less than `LIKE` of their words (Jaccard index) with each one that is taught."""
    known = {words for each in taught if (words := _words(each))}
    asked = {question: _words(question) for question in questions()}
    return [
        question
        for question, words in asked.items()
        if all(len(words & each) < LIKE * len(words | each) for each in known)
    ]


def replay_rows(
    model: Any, tokenizer: Any, kept: Path, shall_stop: Callable[[], bool], taught: Collection[str]
) -> list[Row]:
    """Return the model's own answers, from the file `kept` where a run before asked for them already.

    Questions like one in `taught` are left out: the dataset speaks for them and for what is asked almost alike. Takes
    at most a minute.
    """
    if kept.is_file():
        return [from_line(line) for line in kept.read_text(encoding="utf-8").split("\n") if line]
    asked = questions_beside(taught)
    rows: list[Row] = []
    deadline = time.monotonic() + SECONDS
    for start in range(0, len(asked), BATCH):
        if shall_stop() or time.monotonic() > deadline:
            break
        rows.extend(_answers(model, tokenizer, asked[start : start + BATCH]))
    write_whole(kept, "".join(map(to_line, rows)))
    return rows


def _words(text: str) -> frozenset[str]:
    """Return the words of a question without case and marks."""
    return frozenset("".join(letter if letter.isalnum() else " " for letter in text.lower()).split())


def _answers(model: Any, tokenizer: Any, asked: list[str]) -> Iterator[Row]:
    """Answer a batch of questions greedily; an answer that did not end is no example and is left out."""
    prompts = [
        tokenizer.apply_chat_template([{"role": "user", "content": each}], tokenize=False, add_generation_prompt=True)
        for each in asked
    ]
    tokenizer.padding_side = "left"
    inputs = tokenizer(prompts, return_tensors="pt", padding=True, add_special_tokens=False).to(model.device)
    with torch.inference_mode():
        written = model.generate(
            input_ids=inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            max_new_tokens=LONGEST_ANSWER,
            do_sample=False,
            pad_token_id=tokenizer.pad_token_id,
        )
    for question, ids in zip(asked, written[:, inputs["input_ids"].shape[1] :].tolist(), strict=True):
        if tokenizer.eos_token_id in ids:
            answer = tokenizer.decode(ids[: ids.index(tokenizer.eos_token_id)], skip_special_tokens=True).strip()
            if answer:
                yield Row((Message("user", question), Message("assistant", answer)), source="replay")
