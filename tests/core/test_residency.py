"""What stays in memory, what leaves for what, and that there is always a model that answers."""

from __future__ import annotations

import asyncio
import json
import shutil
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from core.chat import Chat, Question, complete
from core.database import Database
from core.errors import InvalidRequest, NotAllowed
from core.library import Library
from core.load_options import parse_options
from core.models import Models
from core.settings import Settings
from providers.errors import Cancelled, ModelNotFound, OutOfMemory, ProviderError, Rejected
from providers.machine import Memory
from providers.sentences import say
from providers.types import LoadOptions, Parameters, TextDelta
from tests.tiny_models import change_config

SHORT = Parameters(max_tokens=5, temperature=0)
ROOM = 10**12


@pytest.fixture
async def models(app_settings: Settings) -> AsyncIterator[Models]:
    models = Models(replace(app_settings, default_model="tiny"))
    yield models
    await models.aclose()


@pytest.fixture
def room(models: Models, monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """The memory of a machine that a test sets: what is free with nothing loaded."""
    free = {"bytes": ROOM}

    def memory_of(device: str) -> Memory:
        held = sum(each.held_bytes for each in models.residency.residents())
        return Memory(ROOM, max(0, free["bytes"] - held))

    monkeypatch.setattr("providers.loading.memory_of", memory_of)
    return free


def loaded(models: Models) -> set[str]:
    return {each.model.name for each in models.residency.residents()}


async def needed(models: Models, name: str) -> int:
    return (await models.estimate(name)).total_bytes


async def test_what_does_not_fit_is_refused_with_the_figures_and_the_old_one_answers(
    models: Models, room: dict[str, int]
) -> None:
    await models.load("tiny")
    room["bytes"] = 1_000_000
    with pytest.raises(OutOfMemory, match=r"other needs about [\d.]+ GB on cpu, and [\d.]+ GB are free") as refused:
        await models.load("other")

    assert refused.value.hint is not None
    assert loaded(models) == {"tiny"}
    assert (await models.load("tiny")).loaded


async def test_force_loads_it_all_the_same(models: Models, room: dict[str, int]) -> None:
    room["bytes"] = 1_000_000
    await models.load("other", force=True)

    assert loaded(models) == {"other"}


async def test_what_was_used_longest_ago_leaves_first(models: Models, room: dict[str, int]) -> None:
    for name in ("tiny", "other", "plain"):
        await models.load(name)
    await models.load("tiny")
    held = {each.model.name: each.held_bytes for each in models.residency.residents()}
    # With `other` gone, which was used longest ago, the new one just fits.
    room["bytes"] = await needed(models, "dialogue") + held["tiny"] + held["plain"] + held["other"] // 2
    await models.load("dialogue")

    assert loaded(models) == {"tiny", "plain", "dialogue"}


async def test_a_model_that_answers_never_leaves(models: Models, room: dict[str, int], tmp_path: Path) -> None:
    database = Database(tmp_path)
    chat = Chat(models, database)
    async with aclosing(chat.stream(Question("Hello", model="slow", parameters=Parameters(max_tokens=200)))) as events:
        async for event in events:
            if isinstance(event, TextDelta):
                break
        room["bytes"] = 0
        with pytest.raises(OutOfMemory):
            await models.load("other")
        with pytest.raises(Rejected, match="is answering"):
            await models.unload("slow")
        room["bytes"] = ROOM
        with pytest.raises(Rejected, match="is answering"):
            await models.load("slow", options=LoadOptions(device="cpu", precision="bf16"))
        assert loaded(models) == {"slow"}
    await database.aclose()


async def test_a_switch_during_a_chat_lets_the_answer_end(models: Models, tmp_path: Path) -> None:
    database = Database(tmp_path)
    chat = Chat(models, database)
    question = Question("Hello", model="tiny", parameters=Parameters(max_tokens=60, temperature=0))
    alone = await complete(chat.stream(question))
    answer, _ = await asyncio.gather(
        complete(chat.stream(replace(question, turn_id="second"))), models.load("other", options=LoadOptions("cpu"))
    )

    assert answer.text == alone.text
    await database.aclose()


@pytest.mark.parametrize("place", ["load_weights", "_load_tokenizer"])
async def test_what_left_comes_back_when_the_new_one_cannot_be_loaded(
    models: Models, room: dict[str, int], monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    await models.load("tiny")
    room["bytes"] = await needed(models, "other") + 1000

    def broken(folder: object, *_: object) -> Any:
        if "other" in str(folder):
            raise MemoryError
        return real(folder, *_)

    import providers.local_model as module

    real = getattr(module, place)
    monkeypatch.setattr(module, place, broken)
    with pytest.raises((ProviderError, MemoryError)):
        await models.load("other")

    assert loaded(models) == {"tiny"}


async def test_weights_of_another_shape_leave_the_others_answering(
    models: Models, models_dir: Path, tmp_path: Path
) -> None:
    bad = models_dir / "other-shape"
    shutil.copytree(models_dir / "tiny", bad)
    change_config(bad, head_dim=32)
    await refused_while_tiny_answers(models, "other-shape", tmp_path)
    shutil.rmtree(bad)


async def test_a_model_whose_first_token_fails_in_the_load_leaves_the_others_answering(
    models: Models, tmp_path: Path
) -> None:
    await models.load("tiny")
    with every_forward_failing(), pytest.raises(ModelNotFound, match="cannot be loaded: the kernel is broken"):
        await models.load("other")
    assert loaded(models) == {"tiny"}
    await refused_while_tiny_answers(models, "no such model", tmp_path)


async def test_a_model_whose_first_token_fails_in_a_chat_leaves_the_others_answering(
    models: Models, tmp_path: Path
) -> None:
    await models.load("other")
    broken = models.provider("transformers")._resident["other"]._model  # type: ignore[attr-defined]
    hook = broken.get_input_embeddings().register_forward_pre_hook(fail)
    await refused_while_tiny_answers(models, "other", tmp_path)
    hook.remove()

    database = Database(tmp_path)
    assert await complete(Chat(models, database).stream(Question("Hello", model="other", parameters=SHORT)))
    await database.aclose()


def fail(*_: object) -> None:
    raise RuntimeError("the kernel is broken")


@contextmanager
def every_forward_failing() -> Iterator[None]:
    """Let whatever is computed in this process fail."""
    from torch.nn.modules.module import register_module_forward_pre_hook

    hook = register_module_forward_pre_hook(fail)
    try:
        yield
    finally:
        hook.remove()


async def refused_while_tiny_answers(models: Models, bad: str, folder: Path) -> None:
    """Check that one model answers before and after another ended with a sentence."""
    database = Database(folder)
    chat = Chat(models, database)
    good = Question("Hello", model="tiny", parameters=SHORT)
    before = await complete(chat.stream(good))
    with pytest.raises(ProviderError) as failed:
        await complete(chat.stream(Question("Hello", model=bad, parameters=SHORT)))

    assert str(failed.value.message).endswith(".")
    again = await complete(chat.stream(replace(good, turn_id="again")))
    assert again.text == before.text
    await database.aclose()


async def test_two_clicks_load_once(models: Models) -> None:
    first, second = await asyncio.gather(models.load("tiny"), models.load("tiny"))

    assert first == second
    assert loaded(models) == {"tiny"}


async def test_others_are_served_while_a_model_is_loaded(models: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    """Within 300 ms, with a load that lasts as long as that of a large model does: its thread is asleep or reads."""
    import providers.transformers_local as module

    real = module._load_model

    def slow(*values: object) -> object:
        time.sleep(3)
        return real(*values)  # type: ignore[arg-type]

    await models.load("tiny")
    monkeypatch.setattr(module, "_load_model", slow)
    load = asyncio.ensure_future(models.load("other"))
    await asyncio.sleep(0.2)
    start = time.monotonic()
    await models.load("tiny")
    models.state("other")
    models.residency.residents()

    assert time.monotonic() - start < 0.3
    assert not load.done()
    await load


async def test_a_model_comes_back_as_it_was_loaded(models: Models) -> None:
    await models.load("tiny", options=LoadOptions(device="cpu", precision="bf16", context_length=256))
    await models.unload("tiny")
    await models.load("tiny")
    state = models.state("tiny").loaded

    assert state is not None
    assert (state.precision, state.context_length) == ("bfloat16", 256)
    assert state.reason is not None
    assert state.measured_bytes is not None
    assert state.estimated_bytes == pytest.approx(state.memory_bytes, rel=0.05)


async def test_after_a_restart_too_until_it_is_loaded_as_usual(models: Models, app_settings: Settings) -> None:
    await models.load("tiny", options=LoadOptions(device="cpu", precision="bf16", context_length=256))
    after = Models(app_settings)
    await after.load("tiny")
    state = after.state("tiny").loaded
    estimate = await after.estimate("tiny")

    assert state is not None
    assert (state.precision, state.context_length) == ("bfloat16", 256)
    assert (estimate.precision, estimate.context_length) == ("bfloat16", 256)
    await after.load("tiny", options=LoadOptions())
    assert Library(app_settings.data_dir, app_settings.catalogue_file).options("transformers/tiny") is None
    await after.aclose()


async def test_how_it_was_loaded_need_not_be_kept_to_answer(models: Models, app_settings: Settings) -> None:
    (app_settings.data_dir / "config.json").write_text("{broken")
    await models.load("tiny", options=LoadOptions(device="cpu", context_length=256))

    assert loaded(models) == {"tiny"}
    assert (app_settings.data_dir / "config.json").read_text() == "{broken"


async def test_a_load_that_fails_in_another_way_leaves_it_as_it_was(
    models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    import providers.transformers_local as module

    real = module._load_model

    def broken(name: str, folder: object, options: LoadOptions, *others: object) -> object:
        if options.precision == "bf16":
            raise OutOfMemory(say("There is not enough memory for {model}.", model=name))
        return real(name, folder, options, *others)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "_load_model", broken)
    await models.load("tiny")
    with pytest.raises(OutOfMemory):
        await models.load("tiny", options=LoadOptions(device="cpu", precision="bf16"))

    assert loaded(models) == {"tiny"}


async def test_a_load_in_line_can_be_cancelled_and_one_that_is_left_keeps_its_turn(
    models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    import providers.transformers_local as module

    real = module._load_model

    def slow(*values: object) -> object:
        time.sleep(1)
        return real(*values)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "_load_model", slow)
    left = asyncio.ensure_future(models.load("other"))
    await asyncio.sleep(0.2)
    left.cancel()
    waiting = asyncio.ensure_future(models.load("tiny"))
    await asyncio.sleep(0.1)
    models.cancel("tiny")
    with pytest.raises(Cancelled):
        await waiting

    assert loaded(models) == {"other"}


async def test_a_model_that_is_held_stays(models: Models) -> None:
    await models.load("tiny")
    provider, name = models.split("transformers/tiny")
    with provider.hold(name), pytest.raises(Rejected, match="is answering"):
        await models.unload("tiny")
    await models.unload("tiny")

    assert loaded(models) == set()


async def test_a_device_left_open_is_that_of_the_settings(app_settings: Settings) -> None:
    models = Models(replace(app_settings, device="cuda:9"))
    with pytest.raises(Rejected, match="cuda:9"):
        await models.estimate("tiny", LoadOptions(precision="bf16"))
    await models.aclose()


async def test_nothing_outside_the_models_folder_and_no_folder_of_models_is_deleted(
    app_settings: Settings, models_dir: Path, tmp_path: Path
) -> None:
    models = Models(app_settings)
    outside = app_settings.data_dir / "outside"
    shutil.copytree(models_dir / "tiny", outside)
    shutil.copytree(models_dir / "tiny", models_dir / "owner" / "one")
    for name in (f"{models_dir}/../outside", str(outside), "owner", str(models_dir), f"{models_dir}/owner/.."):
        with pytest.raises(ProviderError):
            await models.delete(name)

    assert (outside / "config.json").is_file()
    assert (models_dir / "owner" / "one" / "config.json").is_file()
    shutil.rmtree(models_dir / "owner")
    shutil.rmtree(outside)


async def test_a_model_of_ones_own_is_deleted_and_others_are_not(app_settings: Settings, models_dir: Path) -> None:
    models = Models(app_settings)
    shutil.copytree(models_dir / "tiny", models_dir / "mine" / "deleted")
    await models.load("mine/deleted")
    await models.delete("mine/deleted")

    assert not (models_dir / "mine" / "deleted").exists()
    assert loaded(models) == set()
    with pytest.raises(Rejected, match="default model"):
        await models.delete("starter")
    with pytest.raises((Rejected, ModelNotFound)):
        await models.delete(str(models_dir.parent))
    await models.aclose()


async def test_the_default_is_kept_and_the_file_may_be_edited_meanwhile(settings: Settings, models_dir: Path) -> None:
    shutil.copytree(models_dir / "tiny", settings.data_dir / "models" / "tiny")
    models = Models(settings)
    assert models.full_id("") == "transformers/starter"
    assert await models.make_default("tiny") == "transformers/tiny"
    assert models.full_id("") == "transformers/tiny"
    assert Models(settings).full_id("") == "transformers/tiny"

    file = settings.data_dir / "config.json"
    file.write_text(json.dumps({"selected_model": "other", "models": [{"name": "mine", "path": "tiny"}]}))
    assert models.full_id("") == "transformers/other"
    assert [entry.name for entry in models.library.own()] == ["mine"]
    file.write_text("{broken")
    assert models.full_id("") == "transformers/other"
    with pytest.raises(InvalidRequest, match="cannot be read"):
        await models.make_default("tiny")
    await models.aclose()


async def test_visitors_manage_nothing(app_settings: Settings) -> None:
    models = Models(replace(app_settings, auth="guest"))
    for refused in (
        models.load("tiny", options=LoadOptions(device="cpu")),
        models.load("tiny", force=True),
        models.unload("tiny"),
        models.delete("tiny"),
        models.make_default("tiny"),
    ):
        with pytest.raises(NotAllowed):
            await refused
    with pytest.raises(NotAllowed):
        models.cancel("tiny")
    assert loaded(models) == set()
    await models.aclose()


@pytest.mark.parametrize(
    "values",
    [
        {"device": "cuda:x"},
        {"device": "/tmp"},
        {"precision": "fp8"},
        {"quantization": 4},
        {"attention": "mine"},
        {"context_length": 3},
        {"context_length": "many"},
        {"context_length": True},
    ],
)
def test_options_that_cannot_be_are_refused(values: dict[str, object]) -> None:
    with pytest.raises(InvalidRequest):
        parse_options(**values)


def test_options_are_read() -> None:
    assert parse_options("cuda:1", context_length=4096.0) == LoadOptions("cuda:1", 4096)
    assert parse_options(context_length=0) == LoadOptions()
