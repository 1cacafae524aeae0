"""Which pictures are taken."""

from __future__ import annotations

import pytest

from core.errors import InvalidRequest
from core.images import MAX_BYTES, MAX_IMAGES, check_images, image_of
from providers.types import Image


@pytest.mark.parametrize(
    ("data", "media_type"),
    [
        (b"\x89PNG\r\n\x1a\n....", "image/png"),
        (b"\xff\xd8\xff\xe0....", "image/jpeg"),
        (b"GIF89a....", "image/gif"),
        (b"RIFF\x10\0\0\0WEBPVP8 ", "image/webp"),
    ],
)
def test_the_kind_is_read_from_the_picture_itself(data: bytes, media_type: str) -> None:
    assert image_of(data) == Image(media_type, data)
    assert str(data) not in repr(image_of(data))


@pytest.mark.parametrize("data", [b"", b"<svg onload=alert(1)>", b"RIFF\x10\0\0\0WAVE", b"MZ", b"\x89PN"])
def test_what_is_no_picture_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidRequest):
        image_of(data)


def test_too_many_and_too_big_ones_are_refused() -> None:
    small, big = Image("image/png", b"x"), Image("image/png", b"x" * (MAX_BYTES + 1))
    check_images([small] * MAX_IMAGES)
    for images in ([small] * (MAX_IMAGES + 1), [big]):
        with pytest.raises(InvalidRequest):
            check_images(images)
