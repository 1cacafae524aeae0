"""Models of transformers that see: recognised by their folder, and what they write depends on the picture."""

from __future__ import annotations

import io
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from PIL import Image as Pillow

from providers.errors import MissingPackage, ModelNotFound, Rejected
from providers.local_vision import MOST_PIXELS
from providers.transformers_local import TransformersProvider
from providers.types import (
    ChatRequest,
    Finished,
    Image,
    LoadOptions,
    Message,
    Parameters,
    ProviderSettings,
    TextDelta,
)
from tests.engine_watch import EngineWatch
from tests.tiny_models import LAYERS, make_chat_model, make_seeing_model


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model that sees, one whose processor is missing, and one for text alone."""
    folder = tmp_path_factory.mktemp("models")
    make_seeing_model(folder / "seeing")
    make_chat_model(folder / "blind")
    for name in ("formless", "broken"):
        make_seeing_model(folder / name)
    (folder / "formless" / "chat_template.jinja").unlink()
    (folder / "broken" / "processor_config.json").write_text("{")
    return folder


@pytest.fixture
async def provider(models: Path) -> AsyncIterator[TransformersProvider]:
    provider = TransformersProvider(ProviderSettings(models, models, models, load_options=LoadOptions(device="cpu")))
    yield provider
    await provider.aclose()


def picture(colour: str, size: tuple[int, int] = (40, 30), kind: str = "PNG") -> Image:
    file = io.BytesIO()
    Pillow.new("RGB", size, colour).save(file, kind)
    return Image(f"image/{kind.lower()}", file.getvalue())


def asked(*messages: Message, model: str = "seeing") -> ChatRequest:
    return ChatRequest(model, messages, Parameters(max_tokens=12, temperature=0))


async def answer(provider: TransformersProvider, *messages: Message) -> tuple[str, Finished]:
    events = [event async for event in provider.stream(asked(*messages))]
    assert isinstance(events[-1], Finished)
    return "".join(event.text for event in events if isinstance(event, TextDelta)), events[-1]


async def test_a_folder_says_whether_its_model_sees(provider: TransformersProvider) -> None:
    listed = {model.name: model.capabilities.images for model in await provider.list_models()}

    assert listed["seeing"]
    assert not listed["blind"]
    assert provider.capabilities("seeing").images
    assert not provider.capabilities("blind").images


async def test_what_it_writes_depends_on_the_picture(provider: TransformersProvider) -> None:
    red, blue, none = [
        await answer(provider, Message("user", "What is it?", images))
        for images in ((picture("red"),), (picture("blue"),), ())
    ]
    again = await answer(provider, Message("user", "What is it?", (picture("red", kind="JPEG"),)))

    assert len({red[0], blue[0], none[0]}) == 3
    assert again[1].usage == red[1].usage
    assert red[1].usage.prompt_tokens == none[1].usage.prompt_tokens + 4


async def test_earlier_pictures_are_seen_too(provider: TransformersProvider) -> None:
    def conversation(first: str, second: str) -> list[Message]:
        return [
            Message("system", "Be brief."),
            Message("user", "One", (picture(first),)),
            Message("assistant", "I see."),
            Message("user", "Two", (picture(second), picture(second, (10, 90)))),
        ]

    texts = {(await answer(provider, *conversation(*pair)))[0] for pair in (("red", "blue"), ("lime", "blue"))}

    assert len(texts) == 2


async def test_tokens_are_counted_with_the_pictures(provider: TransformersProvider) -> None:
    message = Message("user", "What is it?", (picture("red"),))
    usage = (await answer(provider, message))[1].usage

    assert await provider.count_tokens([message], "seeing") == usage.prompt_tokens


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (picture("red").data[:60], "no picture"),
        (b"\x89PNG\r\n\x1a\n....", "no picture"),
        (picture("red", (MOST_PIXELS // 1000, 1001)).data, "million pixels"),
    ],
)
async def test_a_broken_or_huge_picture_is_refused(provider: TransformersProvider, data: bytes, sentence: str) -> None:
    with pytest.raises(Rejected, match=sentence):
        await answer(provider, Message("user", "What is it?", (Image("image/png", data),)))


@pytest.mark.parametrize("name", ["formless", "broken"])
async def test_without_what_it_needs_to_read_a_conversation_it_is_not_loaded(
    provider: TransformersProvider, name: str
) -> None:
    with pytest.raises(ModelNotFound):
        await provider.load(name)


async def test_it_cannot_be_fine_tuned(provider: TransformersProvider) -> None:
    with pytest.raises(Rejected, match="sees"):
        await provider.training_folder("seeing")


async def test_a_package_that_its_processor_needs_is_named(provider: TransformersProvider, models: Path) -> None:
    """SmolVLM's processor reads videos too, with packages that the product does not need."""
    make_seeing_model(models / "smol")
    (models / "smol" / "processor_config.json").unlink()
    settings = {"processor_class": "SmolVLMProcessor", "image_processor_type": "SmolVLMImageProcessor"}
    (models / "smol" / "preprocessor_config.json").write_text(json.dumps(settings))
    with pytest.raises(MissingPackage, match="pip install"):
        await provider.load("smol")


async def test_stop_is_seen_by_what_writes(provider: TransformersProvider, engine: EngineWatch) -> None:
    """Its eyes have the most layers, and do nothing after the prompt."""
    events = provider.stream(ChatRequest("seeing", (Message("user", "Hi"),), Parameters(max_tokens=1900)))
    while not isinstance(await anext(events), TextDelta):
        pass
    await events.aclose()

    assert engine.layers_until_quiet() <= LAYERS
