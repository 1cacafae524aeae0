"""Embeddings from GGUF files: which files give them, told by what they say of themselves, and what they are."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import gguf
import pytest
from gguf.scripts.gguf_new_metadata import MetadataDetails, copy_with_new_metadata

from providers.errors import ContextTooLong, Rejected
from providers.gguf_metadata import GgufMetadata, read_metadata
from providers.llama_cpp import LlamaCppProvider
from providers.types import ChatRequest, LoadOptions, Message, ProviderSettings
from tests.tiny_models import make_mergeable_model
from training.export import export_gguf

CONTEXT = 512


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model for conversations, and the same weights as models for embeddings and for ranking."""
    folder = tmp_path_factory.mktemp("gguf")
    source = make_mergeable_model(tmp_path_factory.mktemp("weights") / "tiny", context_length=CONTEXT)
    export_gguf(source, folder / "chat.gguf", "f32")
    for name in ("mean", "last", "rank"):
        with_pooling(folder / "chat.gguf", folder / f"{name}.gguf", gguf.PoolingType[name.upper()])
    return folder


def with_pooling(source: Path, target: Path, pooling: gguf.PoolingType) -> None:
    """Copy a GGUF file, and let it say how its states become one vector."""
    reader, writer = gguf.GGUFReader(source), gguf.GGUFWriter(target, "llama")
    said: Any = {"llama.pooling_type": MetadataDetails(gguf.GGUFValueType.UINT32, int(pooling))}
    # The copy writes new values last; the converter of llama.cpp has this one before the vocabulary.
    writer.add_pooling_type(pooling)
    copy_with_new_metadata(reader, writer, {}, list(said))


@pytest.fixture
async def provider(folder: Path) -> AsyncIterator[LlamaCppProvider]:
    provider = LlamaCppProvider(ProviderSettings(folder, folder, folder, load_options=LoadOptions(device="cpu")))
    yield provider
    await provider.aclose()


def likeness(one: list[float], other: list[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True)) / (math.hypot(*one) * math.hypot(*other))


async def test_a_file_says_whether_it_gives_embeddings(provider: LlamaCppProvider, folder: Path) -> None:
    listed = {model.name: model.capabilities.embeddings for model in await provider.list_models()}

    assert listed == {"chat": False, "mean": True, "last": True, "rank": False}
    assert provider.capabilities("mean").embeddings
    assert not provider.capabilities("mean").parameters
    assert read_metadata(folder / "mean.gguf") == GgufMetadata("llama", CONTEXT, 1)


@pytest.mark.parametrize(
    ("said", "embeds"),
    [
        (GgufMetadata("nomic-bert", 512), True),
        (GgufMetadata("bert", 512, 0), False),
        (GgufMetadata("qwen3", 512), False),
        (GgufMetadata("qwen3", 512, 3), True),
        (GgufMetadata("gemma-embedding", 512), True),
        (GgufMetadata(), False),
    ],
)
def test_encoders_give_embeddings_and_others_only_when_they_say_so(said: GgufMetadata, embeds: bool) -> None:
    assert said.embeds is embeds


@pytest.mark.parametrize("size", [0, 4, 23, 24, 60])
def test_a_file_that_breaks_off_says_what_it_still_can(folder: Path, tmp_path: Path, size: int) -> None:
    (tmp_path / "part.gguf").write_bytes((folder / "mean.gguf").read_bytes()[:size])

    assert not read_metadata(tmp_path / "part.gguf").embeds
    assert read_metadata(tmp_path / "none.gguf") == GgufMetadata()


async def test_each_text_has_its_vector_in_its_order(provider: LlamaCppProvider) -> None:
    texts = ["the cat sleeps", "el perro corre", "the cat sleeps"]
    one, two, again = await provider.embed(texts, "mean")
    other = await provider.embed(texts[:1], "last")

    assert len(one) == len(two) == 64
    assert likeness(one, again) == pytest.approx(1, abs=1e-4)
    assert likeness(one, two) < 0.999
    assert likeness(one, other[0]) < 0.999, "the file's own way to one vector is used"


async def test_a_long_text_fits_and_a_longer_one_is_told(provider: LlamaCppProvider) -> None:
    assert len((await provider.embed(["cat " * 200], "mean"))[0]) == 64
    with pytest.raises(ContextTooLong, match=r"input \(\d+ tokens\)"):
        await provider.embed(["cat " * 2000], "mean")


async def test_each_kind_refuses_what_it_is_not_made_for(provider: LlamaCppProvider) -> None:
    with pytest.raises(Rejected, match="writes no answers"):
        await anext(provider.stream(ChatRequest("mean", (Message("user", "Hi"),))))
    with pytest.raises(Rejected, match="gives no embeddings"):
        await provider.embed(["Hi"], "chat")
    assert provider.loaded() == [], "nothing was loaded for that"
