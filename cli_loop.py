"""The loop in a terminal: feedback, datasets, fine-tuning and its runs."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from core.errors import RequestRefused
from core.feedback import FeedbackFilter, Opinion
from core.feedback_files import RowError, parse_feedback, to_lines
from core.parameters import PARAMETERS
from core.settings import Settings
from core.users import LOCAL
from training.datasets import Dataset
from training.recipes import SPECS, Recipe, parse_recipe
from training.run_status import RunStatus
from training.train import follow_to_end, workshop_of
from training.workshop import Workshop

feedback_app = typer.Typer(help="What was said of the answers.", no_args_is_help=True)
dataset_app = typer.Typer(help="Datasets to fine-tune on.", no_args_is_help=True)
runs_app = typer.Typer(help="Runs of fine-tuning.", no_args_is_help=True)

Kind = Annotated[str, typer.Option(help="up, down or corrected; empty for all.")]
Words = Annotated[str, typer.Option(help="Words that occur in its texts.")]
Model = Annotated[str, typer.Option("--model", "-m", help="A transformers model.")]


def add_to(app: typer.Typer) -> None:
    """Give `app` the commands of the loop."""
    app.add_typer(feedback_app, name="feedback")
    app.add_typer(dataset_app, name="dataset")
    app.add_typer(runs_app, name="runs")
    app.command("train")(train_model)


@feedback_app.command("list")
def list_feedback(kind: Kind = "", words: Words = "") -> None:
    """List what was said of the answers, newest first."""

    async def work(workshop: Workshop) -> None:
        for row in await workshop.feedback.list(LOCAL, FeedbackFilter(kind, words=words)):
            said = " | ".join(part for part in (row.rating or "", row.correction or "", row.comment) if part)
            print(f"{row.turn.id}  {_line(row.turn.question)} -> {_line(row.turn.answer)}  [{_line(said)}]")

    _run_workshop(work)


@feedback_app.command("give")
def give_feedback(
    turn_id: Annotated[str, typer.Argument(help="The turn's id, as `ask` prints it.")],
    rating: Annotated[str | None, typer.Option(help="up, down, or empty to take it back.")] = None,
    comment: Annotated[str | None, typer.Option(help="At most 5,000 characters.")] = None,
    correction: Annotated[str | None, typer.Option(help="The answer that you wanted.")] = None,
) -> None:
    """Rate, comment or correct an answer."""

    async def work(workshop: Workshop) -> None:
        await workshop.feedback.submit(LOCAL, turn_id, Opinion(rating, comment, correction))

    _run_workshop(work)


@feedback_app.command("export")
def export_feedback(kind: Kind = "", words: Words = "") -> None:
    """Write all feedback as JSON Lines to the standard output."""

    async def work(workshop: Workshop) -> None:
        for line in to_lines(await workshop.feedback.list(LOCAL, FeedbackFilter(kind, words=words), limit=1_000_000)):
            print(line, end="")

    _run_workshop(work)


@feedback_app.command("import")
def import_feedback(file: Annotated[Path, typer.Argument(exists=True, dir_okay=False)]) -> None:
    """Read what `export` wrote."""

    async def work(workshop: Workshop) -> None:
        found = parse_feedback(file.read_bytes())
        await workshop.feedback.add(LOCAL, found.feedback)
        _print_errors(found.errors)
        print(f"{len(found.feedback)} rows imported.")

    _run_workshop(work)


@dataset_app.command("build")
def build_dataset(
    name: Annotated[str, typer.Option(help="A name for it.")] = "",
    thumbs_up: Annotated[bool, typer.Option(help="Also answers that were rated up.")] = False,
) -> None:
    """Make a dataset of the corrections."""
    _run_workshop(lambda workshop: _print_made(workshop.datasets.build(LOCAL, name, with_thumbs_up=thumbs_up)))


@dataset_app.command("import")
def import_dataset(file: Annotated[Path, typer.Argument(exists=True, dir_okay=False)], name: str = "") -> None:
    """Make a dataset of a file: JSON Lines of {"prompt", "completion"} or {"messages"}, or plain lines."""
    _run_workshop(
        lambda workshop: _print_made(workshop.datasets.import_file(LOCAL, name or file.name, file.read_bytes()))
    )


@dataset_app.command("list")
def list_datasets() -> None:
    """List the datasets, newest first."""

    async def work(workshop: Workshop) -> None:
        for each in await workshop.datasets.list(LOCAL):
            print(f"{each.id}  {each.name}  {each.train_rows} to learn, {each.held_out_rows} held out")

    _run_workshop(work)


@dataset_app.command("preview")
def preview_dataset(dataset_id: str, model: Model = "") -> None:
    """Show the first rows as a model sees them; what it learns is in 【】."""

    async def work(workshop: Workshop) -> None:
        preview = await workshop.preview(LOCAL, dataset_id, model, Recipe.max_length, 5)
        for row in preview.rows:
            print(f"--- {row.source}, {row.tokens} tokens{', held out' if row.held_out else ''}")
            print("".join(f"【{piece.text}】" if piece.learnt else piece.text for piece in row.pieces))

    _run_workshop(work)


def train_model(
    dataset_id: Annotated[str, typer.Argument(help="A dataset's id, as `dataset list` prints it.")],
    model: Model = "",
    name: Annotated[str, typer.Option(help="A name for the tuned model.")] = "",
    setting: Annotated[
        list[str] | None, typer.Option("--set", help=f"A setting, as in epochs=3; of {', '.join(SPECS)}.")
    ] = None,
) -> None:
    """Fine-tune a model on a dataset. Ctrl-C leaves the run going; `runs stop` ends it."""

    async def work(workshop: Workshop) -> None:
        recipe = parse_recipe(values_of(setting))
        run = await workshop.runs.start(LOCAL, dataset_id, model, recipe, name=name)
        print(f"run {run.id}", flush=True)
        _print_end(await follow_to_end(workshop, run.id, _print_progress))

    _run_workshop(work)


@runs_app.command("list")
def list_runs() -> None:
    """List the runs, newest first."""

    async def work(workshop: Workshop) -> None:
        for run in await workshop.runs.list(LOCAL):
            print(f"{run.id}  {run.state}  {run.base_model}")

    _run_workshop(work)


@runs_app.command("show")
def show_run(run_id: str) -> None:
    """Follow a run until it has ended."""

    async def work(workshop: Workshop) -> None:
        _print_end(await follow_to_end(workshop, run_id, _print_progress))

    _run_workshop(work)


@runs_app.command("stop")
def stop_run(run_id: str) -> None:
    """End a run after the step it is in; what it has learnt can be used."""

    async def work(workshop: Workshop) -> None:
        await workshop.runs.stop(LOCAL, run_id)
        _print_end(await follow_to_end(workshop, run_id, _print_progress))

    _run_workshop(work)


@runs_app.command("resume")
def resume_run(run_id: str) -> None:
    """Go on with a run from its last whole checkpoint."""

    async def work(workshop: Workshop) -> None:
        await workshop.runs.resume(LOCAL, run_id)
        _print_end(await follow_to_end(workshop, run_id, _print_progress))

    _run_workshop(work)


async def _print_made(made: Awaitable[Dataset]) -> None:
    dataset = await made
    _print_errors(dataset.report.errors)
    for warning in dataset.report.warnings:
        print(f"({warning})", file=sys.stderr)
    print(f"{dataset.id}  {dataset.train_rows} rows to learn, {dataset.held_out_rows} held out")


def _print_errors(errors: Sequence[RowError]) -> None:
    for error in errors:
        print(f"row {error.row}: {error.reason}", file=sys.stderr)


def _print_progress(status: RunStatus) -> None:
    loss = f", loss {status.loss:.3f}" if status.loss is not None else ""
    eta = f", about {status.eta_seconds:.0f} s left" if status.eta_seconds else ""
    print(f"{status.run.state}: step {status.step} of {status.steps}{loss}{eta}", file=sys.stderr)


def _print_end(status: RunStatus) -> None:
    if status.run.error:
        raise RequestRefused(status.run.error, status.run.hint)
    print(f"{status.run.state}: {status.model or 'nothing was learnt'}")


def _line(words: str) -> str:
    line = " ".join(words.split())
    return line if len(line) <= 60 else f"{line[:59]}…"


def values_of(parameter: list[str] | None) -> dict[str, Any]:
    """Read `name=value` options; several `stop` add up."""
    kinds = {spec.name: spec.kind for spec in PARAMETERS}
    values: dict[str, Any] = {}
    for option in parameter or []:
        name, _, text = option.partition("=")
        if kinds.get(name) == "texts":
            values.setdefault(name, []).append(text)
        else:
            values[name] = _number(text)
    return values


def _number(text: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _run_workshop(work: Callable[[Workshop], Coroutine[Any, Any, Any]]) -> None:
    async def with_services() -> None:
        async with workshop_of(Settings.from_env(os.environ)) as workshop:
            await work(workshop)

    asyncio.run(with_services())
