"""Runs in real processes, on tiny models: what they leave, how they stop, wait and go on."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from core.chat import Chat, Question, complete
from core.database import Database
from core.errors import InvalidRequest, NotAllowed, NotFound
from core.models import Models
from core.settings import Settings
from core.users import LOCAL, User
from providers.errors import ModelNotFound, Rejected
from providers.types import Parameters
from tests.tiny_models import make_chat_model
from tests.training.conftest import RECIPE, Bench
from training.recipes import Recipe
from training.train import train

pytestmark = pytest.mark.trains

GREEDY = Parameters(max_tokens=20, temperature=0)


async def answer(settings: Settings, model: str) -> str:
    """Ask a model of this DATA_DIR the first question of the rows, on services of its own."""
    models, database = Models(settings), Database(settings.data_dir)
    try:
        said = await complete(Chat(models, database).stream(Question("question 1", model=model, parameters=GREEDY)))
    finally:
        await models.aclose()
        await database.aclose()
    return said.text


async def test_a_run_leaves_a_model_that_learnt_and_its_curves(bench: Bench) -> None:
    before = await answer(bench.settings, "tiny")
    run_id = await bench.start()
    status = await bench.end(run_id)

    assert status.run.state == "finished", status.run.error
    assert status.step == status.steps == len(status.curve) == 55
    assert status.curve[-1][1] < status.curve[0][1] / 2
    assert status.held_out[0][0] == 0
    assert status.held_out[-1][0] == 55
    assert status.tokens_per_second
    assert status.model == f"tuned/{run_id}"
    assert status.facts["rows"] == 11
    assert await answer(bench.settings, status.model) not in ("", before)
    assert await answer(bench.settings, "tiny") == before
    left = [path for path in bench.runs.run_folder(run_id).path.rglob("*") if path.suffix in {".json", ".md"}]
    adapter = [path for path in left if "adapter-" in str(path.parent)]
    assert not [path for path in adapter if str(bench.settings.data_dir) in path.read_text("utf-8")]


async def test_stop_keeps_what_was_learnt_and_resume_goes_on(bench: Bench) -> None:
    run_id = await bench.start(recipe=replace(RECIPE, epochs=200))
    await bench.until(run_id, lambda status: status.step >= 5)
    await bench.runs.stop(LOCAL, run_id)
    asked_at = (await bench.runs.status(LOCAL, run_id)).step
    stopped = await bench.end(run_id)
    assert stopped.run.state == "stopped"
    assert stopped.step <= asked_at + 40  # Steps of this model take milliseconds; one poll reads many.
    assert await answer(bench.settings, f"tuned/{run_id}")

    await bench.runs.resume(LOCAL, run_id)
    await bench.until(run_id, lambda status: status.step > stopped.step)
    facts = (await bench.runs.status(LOCAL, run_id)).facts
    assert facts["resumed_from"] == stopped.step
    await bench.runs.stop(LOCAL, run_id)
    assert (await bench.end(run_id)).run.state == "stopped"


async def test_after_kill_a_run_goes_on_as_if_nothing_had_happened(bench: Bench) -> None:
    whole = await bench.end(await bench.start(recipe=replace(RECIPE, epochs=20)))
    run_id = await bench.start(recipe=replace(RECIPE, epochs=20))
    folder = bench.runs.run_folder(run_id)
    await bench.until(run_id, lambda status: any(folder.checkpoints.glob("checkpoint-*/trainer_state.json")))
    os.kill(bench.runs._processes[run_id].pid, signal.SIGKILL)
    killed = await bench.end(run_id)
    assert killed.run.state == "interrupted"
    assert "Press Resume" in str(killed.run.hint)
    newest = max(folder.checkpoints.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    broken = newest.with_name("checkpoint-999")  # As if it had been killed in a save.
    newest.rename(broken)
    (broken / "trainer_state.json").unlink()

    await bench.runs.resume(LOCAL, run_id)
    resumed = await bench.end(run_id)
    assert resumed.run.state == "finished", resumed.run.error
    assert resumed.curve == whole.curve
    assert not broken.exists()


async def test_a_second_run_waits_and_can_be_taken_back(bench: Bench) -> None:
    first = await bench.start(recipe=replace(RECIPE, epochs=400))
    second = await bench.start()
    await bench.until(first, lambda status: status.step > 0)
    assert (await bench.runs.get(LOCAL, second)).state == "queued"
    await bench.runs.stop(LOCAL, second)
    assert (await bench.runs.get(LOCAL, second)).state == "stopped"
    third = await bench.start(recipe=replace(RECIPE, epochs=1))
    await bench.runs.stop(LOCAL, first)
    assert (await bench.end(third)).run.state == "finished"


async def test_what_cannot_be_started_says_why(bench: Bench) -> None:
    dataset = await bench.workshop.datasets.import_file(LOCAL, "rows", b"one line\nanother line")
    start = bench.runs.start
    with pytest.raises(NotFound, match="There is no dataset nothing of yours"):
        await start(LOCAL, "nothing", "tiny", RECIPE)
    with pytest.raises(ModelNotFound):
        await start(LOCAL, dataset.id, "./nothing", RECIPE)
    with pytest.raises(InvalidRequest, match="method must be one of sft"):
        await start(LOCAL, dataset.id, "tiny", RECIPE, method="magic")
    with pytest.raises(NotAllowed, match="Visitors"):
        await start(User("guest-1", may_train=False), dataset.id, "tiny", RECIPE)
    with pytest.raises(NotFound, match="There is no run nothing of yours"):
        await bench.runs.stop(LOCAL, "nothing")
    assert await bench.runs.list(LOCAL) == []


async def test_a_tuned_model_is_no_base(bench: Bench) -> None:
    run_id = await bench.start(recipe=replace(RECIPE, epochs=0.1))
    await bench.end(run_id)
    with pytest.raises(Rejected, match="is a tuned model. Fine-tune its base, tiny"):
        await bench.start(base=f"tuned/{run_id}")
    with pytest.raises(InvalidRequest, match="cannot be resumed: it is finished"):
        await bench.runs.resume(LOCAL, run_id)
    with pytest.raises(InvalidRequest, match="is not running: it is finished"):
        await bench.runs.stop(LOCAL, run_id)


def test_lines_in_a_tuned_model_out(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, device="cpu")
    make_chat_model(tmp_path / "models" / "tiny")
    told: list[int] = []

    lines = [f"a line of text, number {number}" for number in range(6)]
    recipe = Recipe(epochs=2, batch_size=8, replay=0, learning_rate=1e-2)
    model = train("tiny", lines, recipe, settings, tell=lambda status: told.append(status.step))

    assert model.startswith("tuned/tiny-")
    assert told[-1] == 2
    with pytest.raises(InvalidRequest, match="The dataset would be empty"):
        train("tiny", [], recipe, settings)
