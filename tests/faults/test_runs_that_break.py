"""What breaks in the loop: the server, the training's process, the disk, and models that cannot learn."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import resource
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from core.settings import Settings
from core.users import LOCAL
from tests.api.raw_calls import result
from tests.conftest import free_port, serving_in_child, wait_for_page
from tests.tiny_models import make_chat_model
from tests.training.conftest import RECIPE, ROWS, Bench, bench, watched
from training.run_folder import RunFolder

pytestmark = pytest.mark.trains

__all__ = ["bench"]

LONG = {"epochs": 400, "replay": 0, "batch_size": 2, "learning_rate": 0.01}


@contextlib.contextmanager
def no_file_grows_over(size: int) -> Iterator[None]:
    """Let every write beyond this size fail, in this process and those that it starts."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def make_mamba(folder: Path) -> None:
    """Save a model whose layers no LoRA of ours fits."""
    from transformers import MambaConfig, MambaForCausalLM

    make_chat_model(folder)
    for weights in folder.glob("*.safetensors"):
        weights.unlink()
    config = MambaConfig(vocab_size=259, hidden_size=64, num_hidden_layers=2, state_size=8)
    MambaForCausalLM(config).save_pretrained(folder)


async def test_a_model_that_cannot_take_an_adapter_says_so(bench: Bench) -> None:
    make_mamba(bench.settings.data_dir / "models" / "mamba")
    status = await bench.end(await bench.start(base="mamba"))

    assert status.run.state == "failed"
    assert str(status.run.error).startswith("This model's architecture cannot take a LoRA adapter")
    assert str(status.run.hint) == "Choose another base model."


async def test_rows_that_are_all_too_long_say_so(bench: Bench) -> None:
    lines = [f"{number} " + "word " * 100 for number in range(3)]
    status = await bench.end(await bench.start(recipe=replace(RECIPE, max_length=64), lines=lines))

    assert status.run.state == "failed"
    assert str(status.run.error) == "Every row is longer than 64 tokens, so nothing is left to train on."


async def test_a_dataset_that_was_changed_is_not_trained_on(bench: Bench) -> None:
    run_id = await bench.start(recipe=replace(RECIPE, epochs=400))
    waiting = await bench.start()
    dataset = (await bench.runs.get(LOCAL, waiting)).dataset_id
    file = bench.workshop.datasets.file(dataset)
    file.write_text(file.read_text("utf-8").replace("answer 3", "answer 4"), "utf-8")
    await bench.runs.stop(LOCAL, run_id)
    status = await bench.end(waiting)

    assert status.run.state == "failed"
    assert "was changed after it was made" in str(status.run.error)


async def test_a_full_disk_says_so_and_the_run_goes_on_when_there_is_room(bench: Bench) -> None:
    run_id = await bench.start(recipe=replace(RECIPE, epochs=400))
    folder = bench.runs.run_folder(run_id)
    await bench.until(run_id, lambda status: status.step > 0)
    await bench.runs.stop(LOCAL, run_id)
    stopped = await bench.end(run_id)
    with no_file_grows_over(3_000_000):
        with (folder.path / "events.jsonl").open("ab") as told:
            told.write(b"x" * (3_000_000 - told.tell()))
        await bench.runs.resume(LOCAL, run_id)
        full = await bench.end(run_id)
    assert full.run.state == "interrupted"
    assert str(full.run.error) == "The disk is full."
    assert str(full.run.hint).startswith("Make room and press Resume")

    await bench.runs.resume(LOCAL, run_id)
    await bench.until(run_id, lambda status: status.step > stopped.step)
    await bench.runs.stop(LOCAL, run_id)
    assert (await bench.end(run_id)).run.state == "stopped"


async def test_the_server_is_killed_and_the_next_one_finds_the_run(tmp_path: Path) -> None:
    make_chat_model(tmp_path / "models" / "tiny")
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with serving_in_child(port, DATA_DIR=str(tmp_path), DEFAULT_MODEL="tiny") as server:
        wait_for_page(url, server)
        with httpx.Client(base_url=url, timeout=60) as http:
            answer = result(http, "chat", message="question 1", max_tokens=5)
            kept = result(http, "submit_feedback", turn_id=answer["turn_id"], correction="kept")
            content = "\n".join(map(json.dumps, ROWS))
            dataset = result(http, "import_dataset", content=content)
            run = result(http, "start_training", dataset_id=dataset["dataset_id"], recipe=LONG)
        folder = RunFolder(tmp_path / "runs" / run["run_id"])
        for _ in range(600):
            if any(event.data["kind"] == "progress" for event in folder.events()):
                break
            await asyncio.sleep(0.1)
        os.kill(server.pid, signal.SIGKILL)
        server.wait()
    seen = sum(1 for _ in folder.events())
    await asyncio.sleep(1)
    assert folder.is_alive()
    assert sum(1 for _ in folder.events()) > seen

    async with watched(Settings(data_dir=tmp_path, device="cpu")) as found:
        after = await found.until(run["run_id"], lambda status: status.step > 0)
        assert after.run.state == "running"
        await found.until(run["run_id"], lambda status: status.step > after.step)
        await found.runs.stop(LOCAL, run["run_id"])
        assert (await found.end(run["run_id"])).run.state == "stopped"
        assert [row.id for row in await found.workshop.feedback.list(LOCAL)] == [kept["feedback_id"]]


async def test_a_run_whose_process_never_began_is_cut_off_and_can_be_resumed(bench: Bench) -> None:
    run_id = await bench.start()
    await bench.until(run_id, lambda status: run_id in bench.runs._processes)
    os.kill(bench.runs._processes[run_id].pid, signal.SIGKILL)
    status = await bench.end(run_id)

    assert status.run.state == "interrupted"
    assert str(status.run.error) == "The training process ended unexpectedly."
    await bench.runs.resume(LOCAL, run_id)
    assert (await bench.end(run_id)).run.state == "finished"
