"""Pictures between the page's entries and the conversation: only uploads are read, and what is gone is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from components.pictures import picture_entry, picture_path, read_picture
from components.transcript import (
    answer_entry,
    conversation,
    entry_text,
    split_last_question,
    user_entry,
    without_lost_pictures,
)
from core.errors import InvalidRequest
from core.images import MAX_BYTES
from providers.types import Image, Message

PNG = b"\x89PNG\r\n\x1a\n...."


@pytest.fixture
def uploads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of uploads with a picture in it, and another picture beside it."""
    folder = tmp_path / "uploads"
    (folder / "ab12").mkdir(parents=True)
    (folder / "ab12" / "cat.png").write_bytes(PNG)
    (tmp_path / "secret.png").write_bytes(PNG)
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(folder))
    return folder


@pytest.fixture
def cat(uploads: Path) -> str:
    return str(uploads / "ab12" / "cat.png")


def test_pictures_go_with_the_message_after_them(cat: str) -> None:
    entries = [picture_entry(cat), picture_entry(cat), user_entry("Two cats?"), answer_entry("Yes"), user_entry("And?")]

    assert conversation(entries) == (
        Message("user", "Two cats?", (Image("image/png", PNG),) * 2),
        Message("assistant", "Yes"),
        Message("user", "And?"),
    )


@pytest.mark.parametrize(
    "name", ["{uploads}/../secret.png", "/etc/passwd", "secret.png", "http://127.0.0.1/a.png", "a\0"]
)
def test_only_uploads_are_read(uploads: Path, name: str) -> None:
    path = name.format(uploads=uploads)
    with pytest.raises(InvalidRequest, match="no longer on the server"):
        read_picture(path)

    (entry,) = without_lost_pictures([picture_entry(path)], "en")
    assert picture_path(entry) == ""
    assert "was not kept" in entry_text(entry)


def test_of_a_file_only_its_path_is_kept(cat: str) -> None:
    foreign = picture_entry(cat)
    foreign["content"][0]["file"] |= {"url": "http://10.0.0.1/secret", "meta": {"_type": "gradio.FileData"}}

    assert without_lost_pictures([foreign], "en") == [picture_entry(cat)]


def test_what_is_none_or_too_big_is_refused(cat: str) -> None:
    Path(cat).write_bytes(b"<svg/>")
    with pytest.raises(InvalidRequest, match="no picture"):
        read_picture(cat)
    Path(cat).write_bytes(PNG + bytes(MAX_BYTES))
    with pytest.raises(InvalidRequest, match="at most 5 MB"):
        read_picture(cat)


def test_undo_takes_the_pictures_with_their_message(cat: str) -> None:
    first = [user_entry("Hi"), answer_entry("Hello")]

    assert split_last_question([*first, picture_entry(cat), user_entry("A cat?"), answer_entry("Yes")]) == (
        first,
        {"text": "A cat?", "files": [cat]},
    )
    assert split_last_question([]) == ([], {"text": "", "files": []})
