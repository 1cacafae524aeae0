"""Pictures that people send: which kinds, how many, how big, and for which models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from core.errors import InvalidRequest
from providers.errors import Rejected
from providers.sentences import say
from providers.types import Image, Message, ModelInfo

MAX_IMAGES = 8
MAX_BYTES = 5_000_000
MAX_BYTES_TOGETHER = 14_000_000  # As base64 below the 20 MB that Gemini takes in a request; the others take more.
KINDS = {
    b"\x89PNG\r\n\x1a\n": "image/png",
    b"\xff\xd8\xff": "image/jpeg",
    b"GIF8": "image/gif",
}


def image_of(data: bytes) -> Image:
    """Return a picture, its kind read from its first bytes. Raises InvalidRequest for what is none."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return Image("image/webp", data)
    for first, media_type in KINDS.items():
        if data.startswith(first):
            return Image(media_type, data)
    raise InvalidRequest(say("This is no picture that models can read."), say("Send a PNG, JPEG, WebP or GIF."))


def check_images(images: Sequence[Image]) -> None:
    """Raise InvalidRequest for too many pictures or too big ones."""
    if len(images) > MAX_IMAGES:
        raise InvalidRequest(say("A message takes at most {count} pictures.", count=MAX_IMAGES))
    if any(len(image.data) > MAX_BYTES for image in images):
        raise too_big()
    if sum(len(image.data) for image in images) > MAX_BYTES_TOGETHER:
        raise InvalidRequest(
            say("The pictures of a message may have at most {size} MB together.", size=MAX_BYTES_TOGETHER // 1_000_000),
            say("Send fewer, or smaller ones."),
        )


def too_big() -> InvalidRequest:
    """Return the error for a picture that is too big."""
    return InvalidRequest(
        say("A picture may have at most {size} MB.", size=MAX_BYTES // 1_000_000), say("Make it smaller.")
    )


def check_sees(images: Sequence[Image], model: ModelInfo) -> None:
    """Raise Rejected for pictures that a model cannot see."""
    if images and not model.capabilities.images:
        raise Rejected(
            say("{model} cannot see pictures.", model=model.name),
            provider=model.provider,
            hint=say("Leave the picture out, or choose a model that sees."),
        )


def leave_out_pictures(messages: Sequence[Message], model: ModelInfo) -> tuple[list[Message], int]:
    """Return the messages with the newest pictures that a model takes, and how many older ones were left out.

    The last message keeps its own: they were checked before.
    """
    count, size = (MAX_IMAGES, MAX_BYTES_TOGETHER) if model.capabilities.images else (0, 0)
    kept: list[Message] = []
    left_out = 0
    for message in reversed(messages):
        images: list[Image] = []
        for image in reversed(message.images):
            count, size = count - 1, size - len(image.data)
            if kept and (count < 0 or size < 0):
                left_out += 1
            else:
                images.insert(0, image)
        kept.insert(0, replace(message, images=tuple(images)))
    return kept, left_out
