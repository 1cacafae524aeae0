"""Pictures that people send: which kinds, how many and how big."""

from __future__ import annotations

from collections.abc import Sequence

from core.errors import InvalidRequest
from providers.sentences import say
from providers.types import Image

MAX_IMAGES = 8
MAX_BYTES = 5_000_000
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
        raise InvalidRequest(
            say("A picture may have at most {size} MB.", size=MAX_BYTES // 1_000_000), say("Make it smaller.")
        )
