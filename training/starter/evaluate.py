"""How often the starter model answers a held-out question with an answer that it was taught."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from training.starter.phrases import LANGUAGES, Language, load_held_out, load_intents
from training.starter.unknown import load_unknown

_LONG = 150
_MOST_TOKENS = 480


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer of the model."""

    text: str
    tokens: int
    finished: bool


@dataclass(frozen=True, slots=True)
class Failure:
    """A held-out question that got another answer."""

    language: Language
    intent: str
    question: str
    answer: str


@dataclass(frozen=True, slots=True)
class PassRate:
    """How many held-out questions of one intent passed."""

    language: Language
    intent: str
    passed: int
    total: int


@dataclass(frozen=True, slots=True)
class Report:
    """The pass rates of a model, and what failed."""

    rates: tuple[PassRate, ...]
    failures: tuple[Failure, ...]


class Speaker:
    """A saved model that answers one conversation at a time, in float32."""

    def __init__(self, folder: Path) -> None:
        self._tokenizer = AutoTokenizer.from_pretrained(folder)
        self._model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)

    def answer(self, messages: list[dict[str, str]], temperature: float = 0, max_tokens: int = _MOST_TOKENS) -> Reply:
        """Answer the last message; temperature 0 takes the most likely token."""
        inputs = self._tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        sampling: dict[str, Any] = (
            {"do_sample": True, "temperature": temperature} if temperature else {"do_sample": False}
        )
        output = self._model.generate(**inputs, max_new_tokens=max_tokens, **sampling)
        new = output[0, inputs["input_ids"].shape[1] :]
        return Reply(
            text=self._tokenizer.decode(new, skip_special_tokens=True),
            tokens=len(new),
            finished=bool(new[-1] == self._tokenizer.eos_token_id),
        )


def expected_answers(language: Language, intent: str) -> frozenset[str]:
    """Collect the answers that pass for one intent; a story has none, its length is what counts."""
    if intent == "unknown":
        answers = load_unknown(language).answers.values()
        return frozenset(answer for some in answers for answer in some)
    return frozenset(answer for row in load_intents(language) if row.name == intent for answer in row.answers)


def passes(reply: Reply, language: Language, intent: str) -> bool:
    """Tell whether a reply is one of the intent's answers, word for word, or a whole long story."""
    if intent == "long_story":
        return reply.finished and reply.tokens >= _LONG
    return reply.finished and reply.text in expected_answers(language, intent)


def evaluate(folder: Path, temperature: float = 0) -> Report:
    """Ask every held-out question once."""
    torch.manual_seed(0)
    speaker = Speaker(folder)
    rates: list[PassRate] = []
    failures: list[Failure] = []
    for language in LANGUAGES:
        for intent, questions in load_held_out(language).items():
            passed = 0
            for question in questions:
                reply = speaker.answer([{"role": "user", "content": question}], temperature)
                if passes(reply, language, intent):
                    passed += 1
                else:
                    failures.append(Failure(language, intent, question, reply.text))
            rates.append(PassRate(language, intent, passed, len(questions)))
    return Report(tuple(rates), tuple(failures))
