"""Make the starter model again, measure it, or try other shapes: `python -m training.starter [evaluate|shapes]`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from training.export import export_gguf
from training.starter.evaluate import evaluate
from training.starter.held_out import HELD_OUT, QuestionSet
from training.starter.model_card import rates_table, write_card
from training.starter.questions import questions
from training.starter.shapes import compare, trials_table
from training.starter.train import PEAK_RATE, TrainingPlan, train

FOLDER = Path("models/starter")
WORK = Path("data/starter")
GGUF = "starter-q8_0.gguf"
app = typer.Typer(add_completion=False, help=__doc__)


@app.callback(invoke_without_command=True)
def build(
    context: typer.Context,
    output: Annotated[Path, typer.Option(help="Folder for the model.")] = FOLDER,
    work: Annotated[
        Path, typer.Option(help="Where the state is kept; a training that was ended goes on there.")
    ] = WORK,
    steps: Annotated[int, typer.Option(help="Steps to train.")] = 7500,
    threads: Annotated[int, typer.Option(help="Processor threads.")] = 2,
    seed: Annotated[int, typer.Option(help="Seed of the text and of the weights.")] = 1,
    begin: Annotated[Path | None, typer.Option(help="An earlier starter to begin with, instead of nothing.")] = None,
    kept: Annotated[float, typer.Option(help="Share of the earlier weights in what is saved.")] = 0,
    rate: Annotated[float, typer.Option(help="Highest learning rate.")] = PEAK_RATE,
    scale: Annotated[int, typer.Option(help="Times the rows of each step: 16 fill a GPU.")] = 1,
    processes: Annotated[int, typer.Option(help="Processes that write text; a GPU needs several.")] = 0,
) -> None:
    """Train, save, measure and describe the starter model."""
    if context.invoked_subcommand:
        return
    result = train(
        TrainingPlan(output, work, steps, threads, seed, begin, kept, rate=rate, scale=scale, processes=processes)
    )
    export_gguf(output, output / GGUF, "q8_0")
    report = evaluate(output)
    write_card(output, output / GGUF, result, report)
    typer.echo(rates_table(report.rates))


@app.command("evaluate")
def measure(
    model: Annotated[Path, typer.Option(help="Folder of the model.")] = FOLDER,
    temperature: Annotated[float, typer.Option(help="0 takes the most likely token.")] = 0,
    asked: Annotated[QuestionSet, typer.Option(help="validation is the set to write templates by.")] = HELD_OUT,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, with the failures.")] = False,
) -> None:
    """Ask the held-out questions and print how many were answered as taught."""
    report = evaluate(model, temperature, questions(name=asked))
    text = json.dumps(asdict(report), ensure_ascii=False, indent=2)
    typer.echo(text if as_json else rates_table(report.rates))


@app.command("shapes")
def try_shapes(
    steps: Annotated[int, typer.Option(help="Steps to train each shape.")] = 500,
    threads: Annotated[int, typer.Option(help="Processor threads.")] = 2,
    seed: Annotated[int, typer.Option(help="Seed of the text and of the weights.")] = 1,
    scale: Annotated[int, typer.Option(help="Times the rows of each step: 16 fill a GPU.")] = 1,
    processes: Annotated[int, typer.Option(help="Processes that write text; a GPU needs several.")] = 0,
) -> None:
    """Train several shapes for a while and print which learnt most."""
    typer.echo(trials_table(list(compare(steps, threads, seed, scale, processes))))


if __name__ == "__main__":
    app()
