"""Only files that were uploaded are read, whatever a caller names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from components.files import offer, read_upload
from core.errors import InvalidRequest
from core.feedback_files import MAX_BYTES

META = {"_type": "gradio.FileData"}


@pytest.fixture
def uploads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of uploads, with one file in it and a secret beside it."""
    folder = tmp_path / "uploads"
    (folder / "ab12").mkdir(parents=True)
    (folder / "ab12" / "rows.jsonl").write_bytes(b"rows")
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "uploads-of-others").mkdir()
    (tmp_path / "uploads-of-others" / "rows.jsonl").write_text("secret")
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(folder))
    return folder


def ways_to_name(path: object) -> list[Any]:
    return [
        path,
        {"path": path},
        {"path": path, "meta": META},
        {"path": path, "url": "", "orig_name": "a", "meta": META},
    ]


def test_a_file_that_was_uploaded_is_read(uploads: Path) -> None:
    for file in ways_to_name(str(uploads / "ab12" / "rows.jsonl")):
        assert read_upload(file) == b"rows"


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd",
        "{uploads}/../secret",
        "{uploads}/ab12/../../secret",
        "{uploads}-of-others/rows.jsonl",
        "{uploads}",
        "{uploads}/ab12",
        "{uploads}/ab12/none",
        "{uploads}/ab12/rows.jsonl/below",
        "{uploads}/" + "x" * 5_000,
        "{uploads}/a\0b",
        "{uploads}/\ud800",
        "rows.jsonl",
        "~/.ssh/id_rsa",
        "file:///etc/passwd",
        "http://127.0.0.1/rows.jsonl",
        "",
    ],
)
def test_a_path_that_was_not_uploaded_is_refused(uploads: Path, path: str) -> None:
    for file in ways_to_name(path.replace("{uploads}", str(uploads))):
        with pytest.raises(InvalidRequest) as refused:
            read_upload(file)

        assert str(refused.value) == "file must be an uploaded file. With gradio_client, pass handle_file(path)."


def test_a_link_out_of_the_uploads_is_refused(uploads: Path) -> None:
    (uploads / "link").symlink_to(uploads.parent / "secret")
    with pytest.raises(InvalidRequest, match="file must be an uploaded file"):
        read_upload({"path": str(uploads / "link"), "meta": META})


@pytest.mark.parametrize("file", [None, 5, [], {}, {"path": None}, {"path": ["a"]}, {"meta": META}, b"rows"])
def test_what_names_no_file_is_refused(uploads: Path, file: Any) -> None:
    with pytest.raises(InvalidRequest, match="file must be an uploaded file"):
        read_upload(file)


def test_a_file_that_is_too_large_is_refused_by_its_size(uploads: Path) -> None:
    with (uploads / "large").open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    with pytest.raises(InvalidRequest, match="The file has 10000001 bytes, and at most 10000000 are taken. Split it."):
        read_upload(str(uploads / "large"))


@pytest.mark.parametrize("name", ["feedback.jsonl", "../../feedback.jsonl"])
def test_what_is_offered_can_be_downloaded_and_uploaded_again(uploads: Path, name: str) -> None:
    file = offer("¡Té!\n".encode(), name)

    assert Path(file["path"]).is_relative_to(uploads.resolve())
    assert (file["orig_name"], file["size"]) == (name, len("¡Té!\n".encode()))
    assert read_upload(file) == "¡Té!\n".encode()
