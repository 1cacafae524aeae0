"""`transformers serve` on loopback: an OpenAI-compatible server that is not ours."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from core.settings import ROOT
from tests.conftest import free_port

START_SECONDS = 90


def cached_model(cache: Path, model: str) -> Path:
    """Make the folder for a model's files in a Hugging Face cache, as a download would leave it."""
    repository = cache / f"models--{model.replace('/', '--')}"
    revision = "0" * 40
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(revision)
    snapshot = repository / "snapshots" / revision
    snapshot.mkdir(parents=True)
    return snapshot


@contextmanager
def transformers_serve(model: str, cache: Path, *options: str) -> Iterator[str]:
    """Run it with one model, a Hugging Face cache, and no network; yield its base URL."""
    port = free_port()
    process = subprocess.Popen(
        [
            Path(sys.executable).with_name("transformers"),
            "serve",
            model,
            "--port",
            str(port),
            "--device",
            "cpu",
            *options,
        ],
        cwd=ROOT,
        env=os.environ | {"HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(cache)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + START_SECONDS
        while not _is_healthy(url):
            assert process.poll() is None, "transformers serve ended"
            assert time.monotonic() < deadline, "transformers serve did not start"
            time.sleep(0.2)
        yield f"{url}/v1"
    finally:
        process.kill()
        process.wait()


def _is_healthy(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", timeout=2).status_code == 200
    except httpx.HTTPError:
        return False
