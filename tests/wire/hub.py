"""A small Hugging Face Hub on loopback: models in folders, listed, looked at and downloaded, slowly or cut off.

It plays `GET /api/models/<id>?blobs=true`, `GET /api/models` and `/<id>/resolve/<revision>/<file>` with ranges, as the
Hub's API documents them (https://huggingface.co/docs/hub/api, 2026-11).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

REVISION = "0123456789abcdef0123456789abcdef01234567"
RESOLVED = re.compile(rf"/(.+)/resolve/(?:main|{REVISION})/(.+)")
CHUNK = 16_384


@dataclass
class Hub:
    """What it has, what was asked of it, and how it misbehaves: `cut_after` bytes of weights, `pause` between parts."""

    folder: Path
    url: str = ""
    cut_after: int | None = None
    pause: float = 0.0
    asked: list[str] = field(default_factory=list)
    ranges: list[str] = field(default_factory=list)

    def files(self, name: str) -> list[Path]:
        return sorted(file for file in (self.folder / name).iterdir() if file.is_file())


@contextlib.contextmanager
def serving_hub(folder: Path) -> Iterator[Hub]:
    """Serve the models of a folder, and let `huggingface_hub` take it for the Hub."""
    hub = Hub(folder)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            """Say nothing."""

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            hub.asked.append(self.path)
            parts = urlsplit(self.path)
            if parts.path == "/api/models":
                self._json(_found(hub, parse_qs(parts.query).get("search", [""])[0]))
            elif parts.path.startswith("/api/models/") and (hub.folder / parts.path[12:]).is_dir():
                self._json(_info(hub, parts.path[12:]))
            elif (found := RESOLVED.fullmatch(parts.path)) and (file := hub.folder / found[1] / found[2]).is_file():
                self._file(file)
            else:
                self._send(404, b"{}", {"x-error-code": "EntryNotFound" if "resolve" in self.path else "RepoNotFound"})

        def _json(self, value: object) -> None:
            self._send(200, json.dumps(value).encode(), {"content-type": "application/json"})

        def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in {"content-length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def _file(self, file: Path) -> None:
            data = file.read_bytes()
            start, end = 0, len(data)
            wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("range") or "")
            if wanted:
                hub.ranges.append(f"{file.name} {wanted[0]}")
                start, end = int(wanted[1]), min(len(data), int(wanted[2]) + 1) if wanted[2] else len(data)
            self.send_response(206 if wanted else 200)
            self.send_header("content-length", str(end - start))
            self.send_header("content-range", f"bytes {start}-{end - 1}/{len(data)}")
            self.send_header("etag", f'"{hashlib.sha256(data).hexdigest()}"')
            self.send_header("x-repo-commit", REVISION)
            self.end_headers()
            if self.command == "GET":
                self._slowly(data[start:end], file.suffix == ".safetensors" and end == len(data))

        def _slowly(self, data: bytes, is_weights: bool) -> None:
            for place in range(0, len(data), CHUNK):
                if is_weights and hub.cut_after is not None and place >= hub.cut_after:
                    self.close_connection = True
                    self.connection.close()
                    return
                self.wfile.write(data[place : place + CHUNK])
                if is_weights and hub.pause:
                    time.sleep(hub.pause)

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            """A client that leaves is no error."""

    server = Server(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), name="hub")
    thread.start()
    with pytest.MonkeyPatch.context() as patch:  # What HF_ENDPOINT sets when huggingface_hub is imported.
        patch.setattr("huggingface_hub.constants.ENDPOINT", hub.url)
        patch.setattr(
            "huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE",
            hub.url + "/{repo_id}/resolve/{revision}/{filename}",
        )
        yield hub
    server.shutdown()
    thread.join(10)
    server.server_close()


def _info(hub: Hub, name: str) -> dict[str, object]:
    files = []
    for file in hub.files(name):
        data = file.read_bytes()
        row: dict[str, object] = {"rfilename": file.name, "size": len(data), "blobId": hashlib.sha1(data).hexdigest()}
        if file.suffix == ".safetensors":
            row["lfs"] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 130}
        files.append(row)
    return {"id": name, "sha": REVISION, "siblings": files, "private": False, "tags": [], "downloads": 1}


def _found(hub: Hub, words: str) -> list[dict[str, object]]:
    names = [folder.relative_to(hub.folder).as_posix() for folder in sorted(hub.folder.glob("*/*"))]
    return [
        {
            "id": name,
            "downloads": 5,
            "safetensors": {"parameters": {"BF16": 135_000_000}, "total": 135_000_000},
            "gated": False,
            "tags": [],
        }
        for name in names
        if words.lower() in name.lower()
    ]
