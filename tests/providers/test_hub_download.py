"""Models of a Hub on loopback: looked at without their weights, fetched, cut off, resumed, cancelled, refused."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import shutil
from collections import namedtuple
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from core.errors import NotAllowed
from core.hub_search import search_hub
from core.models import Models
from core.settings import Settings
from providers.errors import Cancelled, ModelNotFound, ProviderError, Rejected, Unreachable
from providers.hub_download import parts_of
from providers.types import LoadOptions
from tests.tiny_models import make_chat_model
from tests.wire.hub import CHUNK, Hub, serving_hub

NAME = "someone/tiny"


@pytest.fixture(scope="module")
def remote(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hub")
    made = make_chat_model(folder / NAME)
    (made / "modeling_evil.py").write_text("raise SystemExit")
    (made / "pytorch_model.bin").write_bytes(b"pickle")
    return folder


@pytest.fixture
def hub(remote: Path) -> Iterator[Hub]:
    with serving_hub(remote) as served:
        yield served


@pytest.fixture
async def models(settings: Settings) -> AsyncIterator[Models]:
    models = Models(settings)
    yield models
    await models.aclose()


async def fetched(models: Models, name: str = NAME) -> list[int]:
    async with aclosing(models.download(name)) as states:
        return [state.progress.done async for state in states]


async def test_a_model_of_the_hub_is_estimated_without_its_weights(models: Models, hub: Hub, remote: Path) -> None:
    estimate = await models.estimate(NAME, LoadOptions(device="cpu", precision="fp32"))

    assert estimate.weights_bytes == pytest.approx((remote / NAME / "model.safetensors").stat().st_size, rel=0.05)
    assert estimate.fit == "fits"
    assert all("bytes=0-" in asked for asked in hub.ranges)
    assert not (models.settings.data_dir / "models" / NAME).exists()


async def test_a_model_is_fetched_without_pickles_and_code_and_then_answers(models: Models, hub: Hub) -> None:
    done = await fetched(models)
    folder = models.settings.data_dir / "models" / NAME

    assert done == sorted(done)
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {file.name for file in folder.iterdir()}
    assert not {"modeling_evil.py", "pytorch_model.bin"} & {file.name for file in folder.iterdir()}
    assert (await models.load(NAME)).source == "folder"
    assert not parts_of(models.settings.data_dir / "models", NAME).exists()


async def test_a_load_fetches_what_is_not_here(models: Models, hub: Hub) -> None:
    assert (await models.load(NAME)).loaded
    assert models.downloads.of("transformers/" + NAME)


async def test_what_is_here_is_not_fetched_again(models: Models, hub: Hub) -> None:
    await fetched(models)
    hub.ranges.clear()
    with pytest.raises(Rejected, match="is on this machine already"):
        await fetched(models)

    assert not hub.ranges
    assert (await models.load(NAME)).loaded


async def test_files_that_are_the_same_are_fetched_once(models: Models, hub: Hub, remote: Path) -> None:
    twin = remote / NAME / "special_tokens_map.json"
    shutil.copy(remote / NAME / "tokenizer_config.json", twin)
    try:
        await fetched(models)
    finally:
        twin.unlink()
    folder = models.settings.data_dir / "models" / NAME

    assert (folder / twin.name).read_bytes() == (folder / "tokenizer_config.json").read_bytes()


async def test_a_download_that_was_cut_goes_on_from_where_it_was(
    models: Models, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda _: None)  # Its pause before it tries again.
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", CHUNK)
    hub.cut_after = 0
    with pytest.raises(Unreachable, match="cannot be reached"):
        await fetched(models)
    assert {model.name for model in await models.list()} == {"starter"}
    hub.cut_after = 4 * CHUNK  # Each connection brings four pieces, and each goes on from where the last one was cut.
    await fetched(models)

    starts = [int(asked.split("=")[1].rstrip("-")) for asked in hub.ranges if asked.startswith("model.safetensors")]
    assert starts == sorted(starts)
    assert starts[0] == 4 * CHUNK
    assert (await models.load(NAME)).loaded


async def test_what_was_cancelled_is_kept_and_not_fetched_again(
    models: Models, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", CHUNK)
    hub.pause = 0.05
    size = (hub.folder / NAME / "model.safetensors").stat().st_size

    async def cancelled_halfway() -> None:
        async with aclosing(models.download(NAME)) as states:
            async for state in states:
                if state.progress.total and state.progress.done > state.progress.total / 3:
                    models.cancel(NAME)

    with pytest.raises(Cancelled):
        await cancelled_halfway()
    parts = parts_of(models.settings.data_dir / "models", NAME)
    await asyncio.sleep(0.3)
    kept = max(part.stat().st_size for part in parts.iterdir() if part.is_file())
    assert 0 < kept < size

    hub.pause = 0
    await fetched(models)
    assert hub.ranges[-1] == f"model.safetensors bytes={kept}-" or int(hub.ranges[-1].split("=")[1].rstrip("-")) >= kept
    assert (await models.load(NAME)).loaded


async def test_leaving_does_not_end_a_download(models: Models, hub: Hub) -> None:
    hub.pause = 0.02
    async with aclosing(models.download(NAME)) as states:
        await anext(states)
    while (download := models.downloads.of("transformers/" + NAME)) and download.state == "running":
        await asyncio.sleep(0.05)

    assert download is not None
    assert download.state == "done"


async def test_two_who_download_get_one_download(models: Models, hub: Hub) -> None:
    await asyncio.gather(fetched(models), fetched(models))

    assert sum("resolve" in asked and "model.safetensors" in asked for asked in hub.asked) == 1


async def test_a_changed_file_is_not_taken(models: Models, hub: Hub) -> None:
    part = parts_of(models.settings.data_dir / "models", NAME)
    part.mkdir(parents=True)
    weights = (hub.folder / NAME / "model.safetensors").read_bytes()
    (part / hashlib.sha256(weights).hexdigest()).write_bytes(b"\0" * len(weights))
    with pytest.raises(Unreachable, match="cut off"):
        await fetched(models)
    await fetched(models)

    assert (await models.load(NAME)).loaded


async def test_a_full_disk_is_told_before_and_meanwhile(
    models: Models, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**9, 10**9 - 1000, 1000))
    with pytest.raises(ProviderError, match="needs .* on the disk") as full:
        await fetched(models)

    assert "Delete a model" in str(full.value)
    assert models.downloads.of("transformers/" + NAME).state == "failed"  # type: ignore[union-attr]


async def test_a_disk_that_fills_up_meanwhile_keeps_what_came(
    models: Models, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub.file_download as client

    real = client.http_get

    def until_full(url: str, temp_file: Any, **options: Any) -> None:
        def write(data: bytes) -> int:
            if temp_file.tell() >= 2 * CHUNK:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return int(temp_file.write(data))

        disk = Mock(wraps=temp_file)
        disk.write = write
        real(url, disk, **options)

    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", CHUNK)
    monkeypatch.setattr(client, "http_get", until_full)
    with pytest.raises(ProviderError, match="disk") as full:
        await fetched(models)
    assert full.value.hint is not None
    assert not (models.settings.data_dir / "models" / NAME).exists()
    monkeypatch.setattr(client, "http_get", real)
    await fetched(models)

    assert [asked for asked in hub.ranges if asked.startswith("model.safetensors")][-1].endswith(f"={2 * CHUNK}-")
    assert (await models.load(NAME)).loaded


async def test_what_the_hub_does_not_have_and_a_hub_that_is_gone(models: Models, hub: Hub) -> None:
    with pytest.raises(ModelNotFound, match="does not give one out"):
        await models.estimate("someone/nothing")
    with pytest.raises(ModelNotFound, match="does not give one out"):
        await fetched(models, "someone/nothing")


async def test_a_search_finds_models(hub: Hub) -> None:
    found = search_hub("tin", None)

    assert [entry.model_id for entry in found] == [f"transformers/{NAME}"]
    assert found[0].parameters == pytest.approx(0.135)


async def test_visitors_download_nothing(settings: Settings, hub: Hub) -> None:
    models = Models(replace(settings, auth="guest"))
    with pytest.raises(NotAllowed):
        await fetched(models)
    with pytest.raises(NotAllowed):
        await models.search("tiny")
    assert hub.asked == []
    await models.aclose()
