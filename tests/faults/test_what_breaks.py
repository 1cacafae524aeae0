"""What breaks in daily life: a killed server, a deleted folder, a broken file, no memory."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import shutil
import signal
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from core.chat import Chat, Question, complete
from core.database import Database
from core.models import Models
from core.settings import Settings
from providers.errors import ModelNotFound, OutOfMemory, ProviderError
from providers.types import Parameters
from tests.api.raw_calls import events_of, result, start
from tests.conftest import free_port, serving_in_child, wait_for_page
from tests.tiny_models import change_config, make_chat_model

SHORT = Parameters(max_tokens=10, temperature=0)


@pytest.fixture
async def chat(settings: Settings) -> AsyncIterator[Chat]:
    make_chat_model(settings.data_dir / "models" / "mine")
    models = Models(replace(settings, default_model="mine"))
    database = Database(settings.data_dir)
    yield Chat(models, database)
    await models.aclose()
    await database.aclose()


async def test_a_model_whose_folder_is_deleted_goes_on_answering(chat: Chat, settings: Settings) -> None:
    before = await complete(chat.stream(Question("Hello", parameters=SHORT)))
    shutil.rmtree(settings.data_dir / "models" / "mine")

    assert (await complete(chat.stream(Question("Hello", parameters=SHORT)))).text == before.text


async def test_a_folder_that_is_deleted_and_named_by_its_path(chat: Chat, settings: Settings) -> None:
    path = str(settings.data_dir / "models" / "mine")
    await complete(chat.stream(Question("Hello", model=path, parameters=SHORT)))
    shutil.rmtree(path)

    with contextlib.suppress(ModelNotFound):
        assert await complete(chat.stream(Question("Hello", model=path, parameters=SHORT)))


async def test_a_model_that_is_gone_says_so_and_comes_back_with_its_folder(chat: Chat, settings: Settings) -> None:
    folder = settings.data_dir / "models" / "mine"
    folder.rename(folder.with_name("elsewhere"))
    with pytest.raises(ProviderError) as gone:
        await complete(chat.stream(Question("Hello", model=str(folder), parameters=SHORT)))
    folder.with_name("elsewhere").rename(folder)

    assert str(gone.value).startswith("There is no folder mine.")
    assert (await complete(chat.stream(Question("Hello", parameters=SHORT)))).usage.completion_tokens == 10


async def test_a_model_that_cannot_be_loaded_leaves_the_old_one_answering(chat: Chat, settings: Settings) -> None:
    before = await complete(chat.stream(Question("Hello", parameters=SHORT)))
    broken = make_chat_model(settings.data_dir / "models" / "broken")
    (broken / "model.safetensors").write_bytes((broken / "model.safetensors").read_bytes()[:5000])
    for _ in range(3):
        with pytest.raises(ModelNotFound, match="The model in broken cannot be loaded"):
            await chat.models.load("broken")

    assert chat.models.state("mine").loaded is not None
    assert (await complete(chat.stream(Question("Hello", parameters=SHORT)))).text == before.text


async def test_a_failed_load_keeps_nothing_in_memory(chat: Chat, settings: Settings) -> None:
    folder = make_chat_model(settings.data_dir / "models" / "broken")
    (folder / "model.safetensors").write_bytes(b"")
    before = half_loaded_models()
    with pytest.raises(ModelNotFound):
        await chat.models.load("broken")
    await asyncio.sleep(0.1)  # The loop lets go of a finished task in its next turns.

    assert chat.models.state("broken").error is not None
    assert half_loaded_models() <= before


def half_loaded_models() -> int:
    gc.collect()
    return sum(type(thing).__name__ == "LocalModel" and not hasattr(thing, "info") for thing in gc.get_objects())


async def test_a_model_is_loaded_again_after_its_file_was_mended(chat: Chat, settings: Settings) -> None:
    folder = settings.data_dir / "models" / "mine"
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(b"")
    with pytest.raises(ModelNotFound):
        await chat.models.load("mine")
    (folder / "model.safetensors").write_bytes(whole)

    assert (await chat.models.load("mine")).loaded
    assert chat.models.state("mine").error is None


async def test_weights_and_config_that_do_not_belong_together_are_refused(chat: Chat, settings: Settings) -> None:
    folder = make_chat_model(settings.data_dir / "models" / "mixed")
    change_config(folder, hidden_size=128, num_hidden_layers=3)
    with pytest.raises(ModelNotFound, match="cannot be loaded"):
        await chat.models.load("mixed")


async def test_weights_that_are_missing_are_not_made_up(chat: Chat, settings: Settings) -> None:
    folder = make_chat_model(settings.data_dir / "models" / "missing")
    change_config(folder, num_hidden_layers=3)
    with pytest.raises(ModelNotFound, match="cannot be loaded"):
        await chat.models.load("missing")


async def test_no_memory_for_the_weights_is_told_as_such(chat: Chat, settings: Settings) -> None:
    """A config that asks for a petabyte makes the allocator itself refuse."""
    folder = make_chat_model(settings.data_dir / "models" / "huge")
    change_config(folder, vocab_size=2**44)
    with pytest.raises((OutOfMemory, ModelNotFound)) as error:
        await chat.models.load("huge")

    assert str(error.value).endswith(".")


async def test_no_memory_for_an_answer_is_told_as_such(chat: Chat) -> None:
    import torch

    await chat.models.load("mine")
    hook = torch.nn.modules.module.register_module_forward_pre_hook(
        lambda *_: torch.empty(2**50, dtype=torch.uint8)  # type: ignore[arg-type]
    )
    try:
        with pytest.raises(OutOfMemory, match="There is not enough memory for mine."):
            await complete(chat.stream(Question("Hello", parameters=SHORT)))
    finally:
        hook.remove()

    assert (await complete(chat.stream(Question("Hello", parameters=SHORT)))).usage.completion_tokens == 10


def test_a_server_that_is_killed_answers_after_a_restart_and_ctrl_c_ends_it_in_a_chat(models_dir: Path) -> None:
    port = free_port()
    for ending in (signal.SIGKILL, signal.SIGINT):
        with (
            serving_in_child(port, DATA_DIR=str(models_dir.parent), DEFAULT_MODEL="tiny") as process,
            httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as http,
        ):
            wait_for_page(str(http.base_url), process)
            assert result(http, "chat", message="Hello", max_tokens=20)["usage"]["completion_tokens"] > 0
            question = {"message": "Hello", "model": "slow", "temperature": 0, "max_tokens": 4000}
            event_id = start(http, "chat", question).json()["event_id"]
            with (
                contextlib.suppress(httpx.TransportError),
                http.stream("GET", f"/gradio_api/call/chat/{event_id}") as stream,
            ):
                for event in events_of(stream.iter_lines()):
                    if event.data and event.data[0]["text"]:
                        os.kill(process.pid, ending)
                        break
            output = process.communicate(timeout=20)[0]
            assert "Traceback" not in output
