"""Which pictures are taken."""

from __future__ import annotations

import pytest

from core.errors import InvalidRequest
from core.images import MAX_BYTES, MAX_IMAGES, check_images, check_sees, image_of, leave_out_pictures
from providers.errors import Rejected
from providers.types import Capabilities, Image, Message, ModelInfo

PICTURE = Image("image/png", b"x")


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


def test_pictures_that_are_too_big_together_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="together"):
        check_images([Image("image/png", b"x" * (MAX_BYTES - 1))] * 3)


def test_a_model_that_does_not_see_refuses_pictures() -> None:
    check_sees([PICTURE], model(sees=True))
    check_sees([], model(sees=False))
    with pytest.raises(Rejected, match="m cannot see pictures"):
        check_sees([PICTURE], model(sees=False))


def test_the_oldest_pictures_leave_first_and_the_question_keeps_its_own() -> None:
    messages = [Message("user", str(number), (PICTURE, PICTURE)) for number in range(6)]
    kept, left_out = leave_out_pictures(messages, model(sees=True))

    assert left_out == 12 - MAX_IMAGES
    assert [len(message.images) for message in kept] == [0, 0, 2, 2, 2, 2]
    assert [message.content for message in kept] == list("012345")
    kept, left_out = leave_out_pictures(messages, model(sees=False))
    assert [len(message.images) for message in kept] == [0, 0, 0, 0, 0, 2]
    big = Image("image/png", b"x" * MAX_BYTES)
    kept, left_out = leave_out_pictures([Message("user", "a", (big,)), Message("user", "b", (big, big))], model(True))
    assert left_out == 1


def model(sees: bool) -> ModelInfo:
    return ModelInfo("m", "p", True, "folder", Capabilities(frozenset(), images=sees))
