"""The machine and its models in a terminal."""

from __future__ import annotations

import asyncio
import importlib.metadata
import os
import platform
import sys
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Annotated

import typer

from core.load_options import parse_options
from core.models import Models
from core.resources import Resources, measure
from core.settings import ROOT, Settings, SettingsError
from providers.errors import ProviderError

models_app = typer.Typer(help="The models of this machine.", no_args_is_help=True)
Model = Annotated[str, typer.Argument(help="A model id, a folder, or a Hugging Face id.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N, mps or spread.")]
Precision = Annotated[str, typer.Option(help="auto, fp32, bf16 or fp16.")]
Quantization = Annotated[str, typer.Option(help="auto, none, int8 or nf4.")]
ContextLength = Annotated[int, typer.Option(help="The most tokens of a conversation; 0 for what fits.")]
LITTLE_DISK = 5_000_000_000
LITTLE_RAM = 2_000_000_000


def add_to(app: typer.Typer) -> None:
    """Give `app` the commands."""
    app.add_typer(models_app, name="models")
    app.command("doctor")(doctor)


@models_app.command("list")
def list_models() -> None:
    """List the models that can be asked, with their size on the disk."""

    async def work(models: Models) -> None:
        for row in await models.list():
            print(f"{row.provider}/{row.name}\t{row.source}\t{_size(row.size_bytes)}\t{row.context_length or '-'}")

    _run(work)


@models_app.command("catalogue")
def catalogue() -> None:
    """List the models that are suggested, and your own."""

    async def work(models: Models) -> None:
        for entry in models.known_entries():
            weights = f"{entry.parameters:g} B" if entry.parameters else "-"
            print(f"{entry.model_id}\t{weights}\t{entry.license or '-'}\t{entry.languages}\t{entry.note}")

    _run(work)


@models_app.command("estimate")
def estimate(
    model: Model,
    device: Device = "auto",
    precision: Precision = "auto",
    quantization: Quantization = "auto",
    context_length: ContextLength = 0,
) -> None:
    """Say what a model would take in memory, without loading or downloading it."""
    options = parse_options(device, precision, quantization, context_length or None)

    async def work(models: Models) -> None:
        found = await models.estimate(model, options)
        print(
            f"{found.fit.replace('_', ' ')}: {_size(found.total_bytes)} of {_size(found.available_bytes)} free on "
            f"{found.device} ({found.precision}, {found.quantization}, {found.context_length} tokens)"
        )
        print(f"weights {_size(found.weights_bytes)}, conversation {_size(found.kv_cache_bytes)}, ", end="")
        print(f"computing {_size(found.overhead_bytes)}")
        print(found.reason)
        if found.fit == "does_not_fit" and found.suggestion:
            print(found.suggestion)

    _run(work)


@models_app.command("download")
def download(model: Model) -> None:
    """Download a model of the Hub or of Ollama; one that was cut off goes on from where it was."""

    async def work(models: Models) -> None:
        async with aclosing(models.download(model)) as states:
            async for state in states:
                done, total = _size(state.progress.done), _size(state.progress.total)
                print(f"\r{done} of {total}, {_size(state.bytes_per_second)}/s   ", end="", file=sys.stderr)
        print(file=sys.stderr)

    _run(work)


@models_app.command("delete")
def delete(model: Model, yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False) -> None:
    """Delete a model from the disk."""
    if yes or typer.confirm(f"Delete {model} from the disk?"):
        _run(lambda models: models.delete(model))


@models_app.command("default")
def default(model: Model) -> None:
    """Let a model answer where none is named."""

    async def work(models: Models) -> None:
        print(await models.make_default(model))

    _run(work)


def doctor() -> None:
    """Look at the machine, the versions and the settings, and say what is missing and what to do."""
    print(f"Python {platform.python_version()} on {platform.system()} {platform.machine()}")
    problems = _wrong_versions()
    try:
        settings = Settings.from_env(os.environ)
    except SettingsError as error:
        sys.exit(f"The settings cannot be read. {error}")
    import torch

    resources = measure(settings.data_dir)
    print(f"{resources.processor.name}, {resources.processor.cores} cores, {' '.join(resources.processor.features)}")
    print(f"memory: {_size(resources.ram.available_bytes)} free of {_size(resources.ram.total_bytes)}")
    print(f"disk of {settings.data_dir}: {_size(resources.disk.available_bytes)} free")
    for gpu in resources.gpus:
        free, total = _size(gpu.memory.available_bytes), _size(gpu.memory.total_bytes)
        print(f"{gpu.device}: {gpu.name}, {free} free of {total}")
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    problems += _lacking(resources, torch.__version__)

    async def work(models: Models) -> None:
        print(f"default model: {models.full_id('')}")
        try:
            await models.find("")
        except ProviderError as error:
            problems.append(f"The default model cannot be used. {error}")
        print(f"{len(await models.list())} models can be asked")

    _run(work)
    for problem in problems:
        print(f"! {problem}")
    print("Something is missing, see above." if problems else "All is well.")
    sys.exit(1 if problems else 0)


def _wrong_versions() -> list[str]:
    """Compare what is installed with requirements.txt."""
    problems = []
    for line in (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines():
        name, _, wanted = line.strip().partition("==")
        if not wanted or name.startswith("#"):
            continue
        try:
            found = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found = ""
        if found.split("+")[0] != wanted:
            problems.append(f"{name} {wanted} is needed, {found or 'none'} is there: pip install {name}=={wanted}")
    return problems


def _lacking(resources: Resources, torch_version: str) -> list[str]:
    problems = []
    if resources.disk.available_bytes < LITTLE_DISK:
        problems.append("The disk is nearly full: delete models that you do not need (models delete).")
    if resources.ram.available_bytes < LITTLE_RAM:
        problems.append("Little memory is free: close other programs, or choose a smaller model.")
    if resources.gpus and "+cpu" in torch_version:
        problems.append("There is a GPU, but torch is built without it: install it as pytorch.org says.")
    return problems


def _run(work: Callable[[Models], Awaitable[None]]) -> None:
    async def whole() -> None:
        models = Models(Settings.from_env(os.environ))
        try:
            await work(models)
        finally:
            await models.aclose()

    asyncio.run(whole())


def _size(size_bytes: float | None) -> str:
    return (
        "-"
        if size_bytes is None
        else f"{size_bytes / 1e9:.1f} GB"
        if size_bytes >= 1e9
        else f"{size_bytes / 1e6:.1f} MB"
    )
