"""Model ids, what is known of a model, and who may use which."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from core.errors import NotAllowed
from core.models import Models
from core.settings import Settings
from providers.errors import ModelNotFound, ProviderError


@pytest.fixture
async def models(app_settings: Settings) -> AsyncIterator[Models]:
    models = Models(replace(app_settings, default_model="tiny"))
    yield models
    await models.aclose()


@pytest.fixture
async def guest_models(app_settings: Settings) -> AsyncIterator[Models]:
    models = Models(replace(app_settings, default_model="tiny", auth="guest"))
    yield models
    await models.aclose()


@pytest.mark.parametrize(
    ("given", "full"),
    [
        ("", "transformers/tiny"),
        ("  ", "transformers/tiny"),
        ("gpt2", "transformers/gpt2"),
        (" transformers/gpt2 ", "transformers/gpt2"),
        ("openai-community/gpt2", "transformers/openai-community/gpt2"),
        ("transformers/openai-community/gpt2", "transformers/openai-community/gpt2"),
        ("/folder/of/mine", "transformers//folder/of/mine"),
        ("transformers//folder/of/mine", "transformers//folder/of/mine"),
        ("transformers/", "transformers/transformers/"),
    ],
)
def test_an_id_is_provider_and_name_and_a_bare_name_is_local(models: Models, given: str, full: str) -> None:
    assert models.full_id(given) == full
    assert models.full_id(full) == full


async def test_what_is_in_the_folders_is_listed_and_what_is_no_model_is_not(models: Models) -> None:
    listed = {model.name: model for model in await models.list()}

    assert {"tiny", "other", "slow", "plain", "dialogue"} <= set(listed)
    assert not {"empty", "pickled"} & set(listed)
    assert listed["tiny"].source == "folder"
    assert listed["tiny"].context_length == 2048
    assert listed["tiny"].size_bytes == (models.settings.data_dir / "models/tiny/model.safetensors").stat().st_size


async def test_the_bundled_model_is_listed(models: Models) -> None:
    listed = {f"{model.provider}/{model.name}": model for model in await models.list()}

    assert listed["transformers/starter"].source == "bundled"
    assert listed["llama_cpp/starter"].source == "bundled"
    assert (listed["transformers/starter"].context_length or 0) >= 4096


async def test_the_state_tells_the_way_into_memory(models: Models) -> None:
    assert models.state("tiny").loaded is None
    load = asyncio.ensure_future(models.load("tiny"))
    while models.state("tiny").loading_since is None:
        await asyncio.sleep(0)
    info = await load
    loaded = models.state("tiny").loaded

    assert info.loaded
    assert loaded is not None
    assert loaded.memory_bytes > 0
    assert models.state("tiny").loading_since is None
    assert models.state("transformers/tiny") == models.state("tiny")


async def test_a_failed_load_is_remembered_until_the_next(models: Models, models_dir: Path) -> None:
    with pytest.raises(ProviderError):
        await models.load("corrupt")
    assert isinstance(models.state("corrupt").error, ModelNotFound)
    with pytest.raises(ProviderError):
        await models.load("empty")
    assert models.state("tiny").error is None


async def test_a_local_user_may_name_any_folder(models: Models, models_dir: Path) -> None:
    info = await models.load(str(models_dir / "other"))

    assert info.loaded
    assert info.source == "folder"


@pytest.mark.parametrize("name", ["tiny", "other", "starter", "transformers/plain", ""])
async def test_a_guest_may_use_what_is_listed(guest_models: Models, name: str) -> None:
    assert (await guest_models.find(name)).provider == "transformers"


@pytest.mark.parametrize(
    "name", ["gpt2", "HuggingFaceTB/SmolLM2-135M-Instruct", "../tiny", "./models/starter", "empty", "tiny/", "~", "/"]
)
async def test_a_guest_may_use_nothing_else(guest_models: Models, name: str) -> None:
    with pytest.raises(NotAllowed, match="Visitors may use only the models that are listed here"):
        await guest_models.load(name)


async def test_a_guest_may_not_name_a_folder(guest_models: Models, models_dir: Path) -> None:
    for name in (str(models_dir / "tiny"), f"transformers/{models_dir / 'tiny'}", f"/{models_dir / 'tiny'}"):
        with pytest.raises(NotAllowed):
            await guest_models.find(name)


async def test_a_guest_may_use_the_default_model_wherever_it_is(app_settings: Settings, models_dir: Path) -> None:
    models = Models(replace(app_settings, default_model=str(models_dir / "tiny"), auth="guest"))

    assert (await models.load("")).loaded
    assert (await models.load(str(models_dir / "tiny"))).loaded
    await models.aclose()


@pytest.fixture
def cached_model(models_dir: Path) -> Iterator[str]:
    """A model in the Hugging Face cache of the tests."""
    repository = Path(os.environ["HF_HOME"]) / "hub" / "models--someone--cached"
    shutil.copytree(models_dir / "tiny", repository / "snapshots" / "0123abc")
    (repository / "blobs").mkdir()
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0123abc")
    yield "someone/cached"
    shutil.rmtree(repository)


async def test_a_model_in_the_hugging_face_cache_is_listed_and_loaded(models: Models, cached_model: str) -> None:
    assert {model.name: model.source for model in await models.list()}[cached_model] == "cache"
    assert (await models.load(cached_model)).loaded


async def test_what_is_listed_for_a_guest_may_be_used(guest_models: Models, cached_model: str) -> None:
    for model in await guest_models.list():
        assert await guest_models.find(f"{model.provider}/{model.name}")


async def test_what_the_engines_do_is_told_to_the_owner_alone(models: Models, guest_models: Models) -> None:
    for each in (models, guest_models):
        await each.load("tiny")
    figures = models.engines()["transformers/tiny"]

    assert figures.batched
    assert (figures.running, figures.waiting) == (0, 0)
    assert figures.cache_limit_bytes > 0
    assert guest_models.engines() == {}
