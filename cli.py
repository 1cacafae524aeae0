"""simpleIA in a terminal: the same chat, feedback and fine-tuning as in the page, on the same data."""

from __future__ import annotations

import asyncio
import io
import os
import signal
import sys
import threading
import uuid
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer

import cli_loop
import cli_models
from cli_loop import values_of
from core.chat import Answer, Chat, Question
from core.database import Database
from core.errors import InvalidRequest, RequestRefused
from core.models import Models
from core.openmp import spin_briefly
from core.parameters import PARAMETERS, parse_parameters
from core.settings import Settings, SettingsError
from providers.errors import ProviderError
from providers.sentences import say
from providers.types import Message, Notice, TextDelta

app = typer.Typer(help=__doc__, no_args_is_help=True, add_completion=False)
cli_loop.add_to(app)
cli_models.add_to(app)

Model = Annotated[str, typer.Option("--model", "-m", help="A model id, a folder, or a Hugging Face id.")]
System = Annotated[str, typer.Option("--system", "-s", help="The system prompt.")]
Settable = Annotated[
    list[str] | None,
    typer.Option(
        "--set", help=f"A parameter, as in temperature=0.2; of {', '.join(spec.name for spec in PARAMETERS)}."
    ),
]


@app.command()
def ask(
    message: Annotated[list[str] | None, typer.Argument(help="The message; what is piped in is added to it.")] = None,
    model: Model = "",
    system: System = "",
    parameter: Settable = None,
) -> None:
    """Answer one message, streamed to the terminal."""
    piped = "" if sys.stdin is None or sys.stdin.isatty() else _read(sys.stdin.read)
    text = "\n\n".join(part for part in (" ".join(message or []), piped.strip()) if part)
    question = Question(text, model=model, system=system, parameters=parse_parameters(values_of(parameter)))
    with _services() as (runner, service):
        _run(runner, _answer(service, question))


@app.command()
def chat(model: Model = "", system: System = "", parameter: Settable = None) -> None:
    """Talk until an empty line or Ctrl-D."""
    parameters = parse_parameters(values_of(parameter))
    conversation_id = uuid.uuid4().hex
    history: tuple[Message, ...] = ()
    with _services() as (runner, service):
        while message := _read_line():
            question = Question(message, history, model, system, conversation_id, parameters)
            answer = _run(runner, _answer(service, question))
            history = (*history, Message("user", message), Message("assistant", answer))


async def _answer(service: Chat, question: Question) -> str:
    """Print the answer as it comes, notices and figures to standard error; return it."""
    async for event in service.stream(question):
        if isinstance(event, TextDelta):
            print(event.text, end="", flush=True)
        elif isinstance(event, Notice):
            print(f"({event.sentence})", file=sys.stderr)
        elif isinstance(event, Answer):
            print()
            print(
                f"[{event.model}: {event.usage.completion_tokens} tokens, "
                f"{event.timings.tokens_per_second:.1f} tokens/s, turn {event.turn_id}]",
                file=sys.stderr,
            )
            return event.text
    return ""


def _run(runner: asyncio.Runner, answer: Coroutine[Any, Any, str]) -> str:
    """Run it until it ends or Ctrl-C is pressed; asyncio.Runner forgets one that is pressed as it ends."""
    loop = runner.get_loop()
    task = loop.create_task(answer)
    pressed = threading.Event()

    def on_interrupt(*_: object) -> None:
        if pressed.is_set():
            raise KeyboardInterrupt
        pressed.set()
        loop.call_soon_threadsafe(task.cancel)

    before = signal.signal(signal.SIGINT, on_interrupt)
    try:
        return loop.run_until_complete(task)
    finally:
        signal.signal(signal.SIGINT, before)
        if pressed.is_set():
            raise KeyboardInterrupt


def _read_line() -> str:
    try:
        return _read(lambda: input("> ")).strip()
    except EOFError:
        return ""


def _read(read: Callable[[], str]) -> str:
    try:
        return read()
    except UnicodeDecodeError as error:
        raise InvalidRequest(
            say("The input is not UTF-8 text (byte {position}).", position=error.start), say("Save it as UTF-8.")
        ) from error


@contextmanager
def _services() -> Iterator[tuple[asyncio.Runner, Chat]]:
    """Open the services and a loop for them, which stands still while a line is read: so Ctrl-C ends the reading."""
    with asyncio.Runner() as runner:
        models = Models(settings := Settings.from_env(os.environ))
        database = Database(settings.data_dir)
        try:
            yield runner, Chat(models, database)
        finally:
            runner.run(models.aclose())
            runner.run(database.aclose())


def _speak_utf8() -> None:
    """Read and write UTF-8 whatever the system's encoding: models write any character, and exports are read back."""
    for stream, errors in ((sys.stdin, "strict"), (sys.stdout, "replace"), (sys.stderr, "backslashreplace")):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors=errors)


def main() -> None:
    """Run the command; an error is a sentence and an exit status of 1."""
    spin_briefly()
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    _speak_utf8()
    try:
        app()
    except (ProviderError, RequestRefused, SettingsError) as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
