"""Pictures in the conversation: references to Gradio's own store of uploads, which no name can lead out of.

Each is an entry before the message that it goes with, because Gradio's editor replaces the whole content of an entry.
The browser keeps the reference: a day, or until the server ends, and then the page says that the picture is gone.
"""

from __future__ import annotations

import mimetypes
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from components.files import uploaded_path
from core.errors import InvalidRequest
from core.images import MAX_BYTES, image_of, too_big
from providers.sentences import say
from providers.types import Image

Entry = dict[str, Any]


def picture_entry(path: str) -> Entry:
    """Return the entry of an uploaded picture. Nothing of what the browser says of it beside its path is kept."""
    name = Path(path).name
    file = {"path": path, "orig_name": name, "mime_type": mimetypes.guess_type(name)[0] or "image/png"}
    return {"role": "user", "content": [{"type": "file", "file": file, "alt_text": name}]}


def picture_path(entry: Entry) -> str:
    """Return the path of the picture that an entry is; empty for all other entries."""
    content = entry.get("content")
    blocks = content if isinstance(content, list) else []
    files = [block.get("file") for block in blocks if isinstance(block, dict) and block.get("type") == "file"]
    return str(files[0].get("path") or "") if files and isinstance(files[0], dict) else ""


def is_kept(path: str) -> bool:
    """Say whether an uploaded picture is still there."""
    return uploaded_path(path) is not None


def read_picture(path: str) -> Image:
    """Read an uploaded picture. Raises InvalidRequest for what is none, is too big, or is no longer there."""
    file = uploaded_path(path)
    if file is None:
        raise InvalidRequest(
            say("The picture {name} is no longer on the server.", name=Path(path).name), say("Send it again.")
        )
    if file.stat().st_size > MAX_BYTES:
        raise too_big()
    return image_of(file.read_bytes())


def picture_entries(paths: Sequence[str]) -> list[Entry]:
    """Return an entry for each uploaded file of the message box."""
    return [picture_entry(path) for path in paths]
