"""The table: how many held-out questions the starter model answers as it was taught."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModelForCausalLM, AutoTokenizer

from training.starter.phrases import LANGUAGES, Language
from training.starter.questions import GOALS, Message, Question, questions, refusals

_MOST_TOKENS, _BATCH = 256, 96
WELL_FORMED, WELL_FORMED_GOAL = "well formed", 0.99
REFUSED, REFUSED_GOAL = "wrongly refused", 0.03
_LOOP = re.compile(r"(\b\w[\w', ]{6,}?)(?:\W+\1){2}")
# Words that only one of the languages has, to tell them apart.
_OWN_WORDS = {
    "en": frozenset(("the", "is", "and", "you", "your", "with", "for", "what", "are", "of", "this", "that", "answer")),
    "es": frozenset(
        ("el", "la", "los", "las", "y", "tu", "con", "para", "que", "es", "una", "por", "respuesta", "del")
    ),
}


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer of the model."""

    text: str
    tokens: int
    finished: bool


@dataclass(frozen=True, slots=True)
class Failure:
    """A held-out question that got another answer."""

    row: str
    language: Language
    question: str
    answer: str


@dataclass(frozen=True, slots=True)
class PassRate:
    """How many questions of one row passed in one language. `goal` is a least share, for refusals a greatest one."""

    row: str
    language: Language
    passed: int
    total: int
    goal: float


@dataclass(frozen=True, slots=True)
class Report:
    """The pass rates of a model, and what failed."""

    rates: tuple[PassRate, ...]
    failures: tuple[Failure, ...]

    def share(self, row: str) -> float:
        """Return the share of a row in both languages together."""
        rates = [rate for rate in self.rates if rate.row == row]
        return sum(rate.passed for rate in rates) / sum(rate.total for rate in rates)


class Speaker:
    """A saved model, with an adapter or none, that answers conversations, in float32."""

    def __init__(self, folder: Path, adapter: Path | None = None) -> None:
        self._tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
        self._model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        if adapter:
            self._model = PeftModel.from_pretrained(self._model, adapter).merge_and_unload()

    def length(self, text: str) -> int:
        """Count the tokens of a text."""
        return len(self._ids(text))

    def answer(self, messages: Sequence[Message], temperature: float = 0, max_tokens: int = 480) -> Reply:
        """Answer the last message; temperature 0 takes the most likely token."""
        return self.answers([messages], temperature, max_tokens)[0]

    def answers(
        self, conversations: Sequence[Sequence[Message]], temperature: float = 0, max_tokens: int = _MOST_TOKENS
    ) -> list[Reply]:
        """Answer the last message of each conversation, all together; each waits for the longest of them."""
        prompts = [self._prompt(messages) for messages in conversations]
        inputs = self._tokenizer(prompts, return_tensors="pt", padding=True, add_special_tokens=False)
        sampling: dict[str, Any] = (
            {"do_sample": True, "temperature": temperature} if temperature else {"do_sample": False}
        )
        with torch.inference_mode():
            output = self._model.generate(**inputs, max_new_tokens=max_tokens, **sampling)
        return [self._reply(ids) for ids in output[:, inputs["input_ids"].shape[1] :].tolist()]

    def says(self, pairs: Sequence[tuple[Sequence[Message], str]]) -> list[bool]:
        """Say of each conversation and text whether that is the answer: each of its tokens, and the end, the likeliest.

        All tokens are computed at once, which is quicker than to write one after the other. A text that the model
        writes in other tokens than the tokenizer makes of it counts as not said.
        """
        starts = [self._ids(self._prompt(messages)) for messages, _ in pairs]
        ends = [[*self._ids(text), self._tokenizer.eos_token_id] for _, text in pairs]
        rows = [torch.tensor(start + end) for start, end in zip(starts, ends, strict=True)]
        said = [False] * len(rows)
        in_order = sorted(range(len(rows)), key=lambda number: len(rows[number]))
        for start in range(0, len(in_order), _BATCH):
            numbers = in_order[start : start + _BATCH]
            # What stands right of a token has no part in it, so the ends need no mask.
            batch = pad_sequence([rows[number] for number in numbers], batch_first=True)
            with torch.inference_mode():
                likeliest = self._model(input_ids=batch, use_cache=False).logits.argmax(-1)
            for number, row in zip(numbers, likeliest.tolist(), strict=True):
                first = len(starts[number]) - 1
                said[number] = row[first : first + len(ends[number])] == ends[number]
        return said

    def _prompt(self, messages: Sequence[Message]) -> str:
        prompt: str = self._tokenizer.apply_chat_template(list(messages), add_generation_prompt=True, tokenize=False)
        return prompt

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def _reply(self, ids: list[int]) -> Reply:
        end = self._tokenizer.eos_token_id
        finished = end in ids
        ids = ids[: ids.index(end)] if finished else ids
        return Reply(self._tokenizer.decode(ids, skip_special_tokens=True), len(ids), finished)


def is_well_formed(reply: Reply, language: Language) -> bool:
    """Say whether an answer ends, goes round in no circle, and keeps to its language."""
    if not reply.finished or not reply.text.strip() or _LOOP.search(reply.text):
        return False
    words = Counter(re.findall(r"[\w']+", reply.text.lower()))
    own, other = (sum(words[word] for word in _OWN_WORDS[each]) for each in _both(language))
    return other == 0 or own > other


def evaluate(
    folder: Path, temperature: float = 0, asked: Sequence[Question] | None = None, adapter: Path | None = None
) -> Report:
    """Ask every held-out question once, or those given."""
    torch.manual_seed(0)
    asked = sorted(questions() if asked is None else asked, key=_length)
    replies = _replies(Speaker(folder, adapter), asked, temperature)
    totals: Counter[tuple[str, Language]] = Counter()
    passed: Counter[tuple[str, Language]] = Counter()
    failures: list[Failure] = []
    for question, reply in zip(asked, replies, strict=True):
        language = question.language
        is_right = reply.finished and reply.text in question.passing
        outcomes = {question.row: is_right, WELL_FORMED: is_right or is_well_formed(reply, language)}
        if question.row != "unknown":
            outcomes[REFUSED] = any(reply.text in refusals(each) for each in LANGUAGES)
        for row, outcome in outcomes.items():
            totals[row, language] += 1
            passed[row, language] += outcome
        if not is_right:
            failures.append(Failure(question.row, language, question.messages[-1]["content"], reply.text))
    goals = GOALS | {WELL_FORMED: WELL_FORMED_GOAL, REFUSED: REFUSED_GOAL}
    rates = (
        PassRate(row, language, passed[row, language], totals[row, language], goal)
        for row, goal in goals.items()
        for language in LANGUAGES
        if totals[row, language]
    )
    return Report(tuple(rates), tuple(failures))


def _replies(speaker: Speaker, asked: Sequence[Question], temperature: float) -> list[Reply]:
    """Answer each question; at temperature 0 only what is not found to be a text that passes has to be written."""
    replies = {} if temperature else _passing(speaker, asked)
    others = [number for number in range(len(asked)) if number not in replies]
    written = _written(speaker, [asked[number] for number in others], temperature)
    replies |= dict(zip(others, written, strict=True))
    return [replies[number] for number in range(len(asked))]


def _passing(speaker: Speaker, asked: Sequence[Question]) -> dict[int, Reply]:
    """Find the questions, by number, whose answer passes."""
    pairs = [(number, text) for number, question in enumerate(asked) for text in sorted(question.passing)]
    said = speaker.says([(asked[number].messages, text) for number, text in pairs])
    found = (pair for pair, is_said in zip(pairs, said, strict=True) if is_said)
    return {number: Reply(text, speaker.length(text), finished=True) for number, text in found}


def _written(speaker: Speaker, asked: Sequence[Question], temperature: float) -> list[Reply]:
    """Answer each question; who is not done when the longest wanted answer of its neighbours would be, once more."""
    replies: list[Reply] = []
    for start in range(0, len(asked), _BATCH):
        some = asked[start : start + _BATCH]
        longest = max(map(speaker.length, {text for question in some for text in question.passing})) + 1
        replies += speaker.answers([question.messages for question in some], temperature, min(longest, _MOST_TOKENS))
    unfinished = [number for number, reply in enumerate(replies) if not reply.finished]
    if unfinished:
        again = speaker.answers([asked[number].messages for number in unfinished], temperature)
        for number, reply in zip(unfinished, again, strict=True):
            replies[number] = reply
    return replies


def _length(question: Question) -> tuple[int, int]:
    """Return about how long its answer and it will be."""
    return max(map(len, question.passing)), sum(len(message["content"]) for message in question.messages)


def _both(language: Language) -> tuple[Language, Language]:
    return ("en", "es") if language == "en" else ("es", "en")
