"""Files between the API's callers and the server, through the folder that Gradio keeps for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr
from gradio.processing_utils import save_bytes_to_cache
from gradio.utils import get_upload_folder

from core.errors import InvalidRequest
from core.feedback_files import MAX_BYTES
from providers.sentences import say


def read_upload(file: Any) -> bytes:
    """Return the bytes of a file that was uploaded. Raises InvalidRequest for anything else, and for too many bytes.

    Gradio checks only files that call themselves files, so the path is checked here.
    """
    named = file.get("path") if isinstance(file, dict) else file
    path = uploaded_path(named) if isinstance(named, str) else None
    if path is None:
        raise InvalidRequest(say("file must be an uploaded file."), say("With gradio_client, pass handle_file(path)."))
    if (size := path.stat().st_size) > MAX_BYTES:
        raise InvalidRequest(
            say("The file has {size} bytes, and at most {limit} are taken.", size=size, limit=MAX_BYTES),
            say("Split it."),
        )
    return path.read_bytes()


def uploaded_path(name: str) -> Path | None:
    """Return the path of a file that was uploaded and is still there; `None` for any other name."""
    path = Path(name)
    try:
        path = path.resolve()
        uploaded = path.is_relative_to(Path(get_upload_folder()).resolve()) and path.is_file()
    except (OSError, ValueError):  # A name that no file can have.
        return None
    return path if uploaded else None


def offer(content: bytes, name: str) -> dict[str, Any]:
    """Return a file for the caller to download."""
    path = save_bytes_to_cache(content, name, cache_dir=get_upload_folder())
    file: dict[str, Any] = gr.FileData(path=path, orig_name=name, size=len(content)).model_dump()
    return file
