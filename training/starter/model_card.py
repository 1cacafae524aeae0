"""The model card, written from what the training measured."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from training.starter.evaluate import REFUSED, PassRate, Report
from training.starter.phrases import LANGUAGES, TEXTS
from training.starter.tokenizer import CONTEXT, VOCABULARY
from training.starter.train import Progress, TrainingResult

_POINTS = 12
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
or a graphics card. In English and Spanish it greets, says who it is, explains simpleIA, names the
capitals of the world, adds and subtracts up to two digits, changes the case of letters, writes
lists, keeps a fact from earlier turns, takes a name and a language from the system prompt, and says
that it does not know everything else. It is a demonstration and a test model, not an assistant:
load a bigger model for real work.

| | |
| --- | --- |
| Shape | Llama, {layers} layers, hidden size {hidden}, {heads} heads, {kv_heads} key-value heads |
| Parameters | {parameters:,} |
| Vocabulary | {vocabulary} tokens, byte-level BPE, single digits, capitals letter by letter |
| Context | {context} tokens |
| Weights | bfloat16, {megabytes:.1f} MB; GGUF Q8_0, {gguf_megabytes:.1f} MB |
| License | Apache-2.0 |

## Training

Trained from nothing on text that `training/starter` in this repository generates from templates
and word lists; there is no other data. What it says about simpleIA are the texts of `core/guide`,
which are also the page's help. Most conversations have one turn, some up to eight, with and
without a system prompt; questions have typos, no accents or no capitals. The first words of a fixed
answer weigh most in the loss, and most often the rest is left out, because it follows from them.
Short conversations are packed into rows in which none sees another; every 36th batch is one
conversation as long as the context. Arithmetic in bfloat16, weights kept in float32; Muon for the
layers' matrices, AdamW for the rest; the rate stays steady, then falls to nothing.

The last long training; "What was tried" tells what came before it and after:

| | |
| --- | --- |
| Tokens seen | {tokens:,} in {steps:,} steps |
| Time | {minutes:.0f} minutes, {machine} |
| Loss on conversations of another seed (weighted) | {validation_loss:.3f} |

{curve}

Make one like it with `python -m training.starter`, which goes on where it was ended; measure it with
`python -m training.starter evaluate`.

## What was tried

{tried}

## What it can do

Questions whose wording is kept out of training, written by who had not seen the templates, and not
read while these were written; names, numbers and words that fill them are drawn by a seed. An answer
passes if it is, word for word, the wanted one (of a sum, in either order; to a text without a plain
word, such as "12 * 345" or "asdf", in either language). The most likely token is taken at each
step. "{refused}" counts what it should know, so less is better.

{rates}

## Limits

- It knows nothing beyond the text above: no other facts, no translation, no programming.
- It is taught to say "I don't know that" outside its subjects, but it can mistake a question for
  one about simpleIA, or the other way round, when the words are alike.
- Of a system prompt it follows a name and a language, nothing else.
- Its stories are combinations of fixed sentences.
"""


def rates_table(rates: Sequence[PassRate]) -> str:
    """Render the pass rates as a Markdown table, one row for each skill."""
    lines = ["| Skill | English | Spanish | Goal |", "| --- | --- | --- | --- |"]
    for row in dict.fromkeys(rate.row for rate in rates):
        goal = next(rate.goal for rate in rates if rate.row == row)
        cells = [_cell(rates, language, row) for language in LANGUAGES]
        lines.append(f"| {row} | {' | '.join(cells)} | {'≤' if row == REFUSED else '≥'} {goal:.0%} |")
    return "\n".join(lines)


def curve_table(curve: Sequence[Progress]) -> str:
    """Render the loss curve as a Markdown table of a dozen points."""
    lines = ["| Step | Tokens | Loss |", "| --- | --- | --- |"]
    chosen = sorted({round(number * (len(curve) - 1) / (_POINTS - 1)) for number in range(_POINTS)}) if curve else []
    lines += [f"| {curve[n].step:,} | {curve[n].tokens:,} | {curve[n].loss:.3f} |" for n in chosen]
    return "\n".join(lines)


def write_card(folder: Path, gguf: Path, result: TrainingResult, report: Report) -> None:
    """Write `README.md` beside the weights."""
    last = result.curve[-1]
    card = _CARD.format(
        layers=result.shape["num_hidden_layers"],
        hidden=result.shape["hidden_size"],
        heads=result.shape["num_attention_heads"],
        kv_heads=result.shape["num_key_value_heads"],
        parameters=result.parameters,
        vocabulary=VOCABULARY,
        context=CONTEXT,
        megabytes=(folder / "model.safetensors").stat().st_size / 1e6,
        gguf_megabytes=gguf.stat().st_size / 1e6,
        tokens=last.tokens,
        steps=last.step,
        minutes=last.seconds / 60,
        machine=result.machine,
        validation_loss=result.validation_loss,
        curve=curve_table(result.curve),
        refused=REFUSED,
        tried=(TEXTS / "tried.md").read_text("utf-8").strip(),
        rates=rates_table(report.rates),
    )
    (folder / "README.md").write_text(card, encoding="utf-8")


def _cell(rates: Sequence[PassRate], language: str, row: str) -> str:
    found = [rate for rate in rates if rate.row == row and rate.language == language]
    passed, total = sum(rate.passed for rate in found), sum(rate.total for rate in found)
    return f"{passed} of {total} ({passed / total:.1%})" if total else "–"
