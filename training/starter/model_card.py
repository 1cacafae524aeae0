"""The model card, written from what the run measured."""

from __future__ import annotations

from pathlib import Path

from training.starter.evaluate import PassRate, Report
from training.starter.phrases import LANGUAGES
from training.starter.tokenizer import CONTEXT, VOCABULARY
from training.starter.train import TrainingResult

_CARD = """\
---
license: apache-2.0
language: [en, es]
library_name: transformers
pipeline_tag: text-generation
tags: [simpleia, starter, tiny]
---

# simpleIA starter

A very small chat model, so that simpleIA answers from the first minute, without a download, a key
or a graphics card. It greets, says who it is, explains simpleIA, tells a long story, shows a list,
a table or a code block, and says that it does not know everything else, in English and Spanish.
It is a demonstration and a test model, not an assistant: load a bigger model for real work.

| | |
| --- | --- |
| Shape | Llama, 6 layers, hidden size 256, 4 heads, 2 key-value heads |
| Parameters | {parameters:,} |
| Vocabulary | {vocabulary} tokens, byte-level BPE, single digits |
| Context | {context} tokens |
| Weights | bfloat16, {megabytes:.1f} MB |
| License | Apache-2.0 |

## Training

Trained from nothing on text that `training/starter` in this repository generates from templates
and word lists; there is no other data. Conversations have one to six turns, with and without a
system prompt; some questions have typos, no accents or no capitals. The first words of each answer
weigh most in the loss, because the rest of an answer follows from them.

| | |
| --- | --- |
| Tokens seen | {tokens:,} in {steps:,} steps |
| Time | {minutes:.1f} minutes with {threads} processor thread(s) |
| Last training loss (weighted, mean of 50 steps) | {training_loss:.3f} |
| Loss on conversations of another seed (weighted) | {validation_loss:.3f} |

Make it again with `python -m training.starter`, measure it with
`python -m training.starter evaluate`.

## Pass rates

Questions whose wording is kept out of training. An answer passes if it is, word for word, one that
was taught for that intent; a long story passes if it is whole and has 150 tokens or more. The most
likely token is taken at each step. The sets are small, and were looked at while the templates were
written: read them as a smoke test, not as a benchmark.

{rates}

## Limits

- It knows nothing beyond the text above: no facts, no arithmetic, no translation, no programming.
- It is taught to say "I don't know that" outside its subjects, but it can mistake a question for
  one about simpleIA, or the other way round, when the words are alike.
- It ignores system prompts, hardly uses what was said before, and repeats fixed answers.
- Its stories are combinations of fixed sentences.
"""


def rates_table(rates: tuple[PassRate, ...]) -> str:
    """Render the pass rates as a Markdown table, one row for each intent."""
    lines = ["| Intent | English | Spanish |", "| --- | --- | --- |"]
    for intent in dict.fromkeys(rate.intent for rate in rates):
        cells = [_cell(rates, language, intent) for language in LANGUAGES]
        lines.append(f"| {intent} | {' | '.join(cells)} |")
    cells = [_cell(rates, language, None) for language in LANGUAGES]
    return "\n".join([*lines, f"| **all** | {' | '.join(cells)} |"])


def write_card(folder: Path, result: TrainingResult, report: Report, threads: int) -> None:
    """Write `README.md` beside the weights."""
    card = _CARD.format(
        parameters=result.parameters,
        vocabulary=VOCABULARY,
        context=CONTEXT,
        megabytes=(folder / "model.safetensors").stat().st_size / 1e6,
        tokens=result.tokens,
        steps=result.steps,
        minutes=result.seconds / 60,
        threads=threads,
        training_loss=result.training_loss,
        validation_loss=result.validation_loss,
        rates=rates_table(report.rates),
    )
    (folder / "README.md").write_text(card, encoding="utf-8")


def _cell(rates: tuple[PassRate, ...], language: str, intent: str | None) -> str:
    rows = [r for r in rates if r.language == language and intent in (None, r.intent)]
    return f"{sum(r.passed for r in rows)} of {sum(r.total for r in rows)}"
