"""Servers in child processes: simpleIA and the smallest Gradio app, and a chat over plain HTTP with the first.

The client is http.client: gradio_client would add its own threads and polling to what is measured.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parent.parent
HOST = "127.0.0.1"
START_SECONDS = 120
POLL_SECONDS = 0.005
DECIDED_HERE = ("AUTH", "SPACE_ID", "LLM_PROVIDER", "LLM_MODEL", "DEFAULT_MODEL", "DEVICE")

BARE_APP = """
import gradio as gr

with gr.Blocks() as demo:
    gr.Chatbot()
    gr.Textbox()

demo.launch()
"""


@dataclass(frozen=True)
class Server:
    """A server that answers; `started` is the `time.perf_counter` before its process began.

    `ready_seconds` passed and `ready_cpu_seconds` of processor time were taken until the page was there.
    """

    process: subprocess.Popen[bytes]
    port: int
    started: float
    ready_seconds: float
    ready_cpu_seconds: float

    @property
    def url(self) -> str:
        """Where a browser finds it."""
        return f"http://{HOST}:{self.port}/"


@contextmanager
def simpleia(model: str | None = None, script: Path = ROOT / "app.py") -> Iterator[Server]:
    """Run `python app.py` with an empty data directory until the block ends; `model` instead of the starter."""
    with tempfile.TemporaryDirectory() as data:
        settings = {"DATA_DIR": data} | ({"DEFAULT_MODEL": model} if model else {})
        with _serve(script, settings) as server:
            yield server


@contextmanager
def bare_gradio() -> Iterator[Server]:
    """Run a Gradio app of one Chatbot and one Textbox until the block ends."""
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "bare.py"
        script.write_text(BARE_APP, encoding="utf-8")
        with _serve(script, {}) as server:
            yield server


@contextmanager
def _serve(script: Path, settings: dict[str, str]) -> Iterator[Server]:
    port = _free_port()
    environment = {name: value for name, value in os.environ.items() if name not in DECIDED_HERE} | {
        "GRADIO_SERVER_NAME": HOST,
        "GRADIO_SERVER_PORT": str(port),
        "GRADIO_ANALYTICS_ENABLED": "False",
        "PYTHONPATH": str(ROOT),
        **settings,
    }
    with tempfile.TemporaryFile() as output:
        started = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, str(script)], cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT
        )
        try:
            while not _answers(port):
                if process.poll() is not None or time.perf_counter() - started > START_SECONDS:
                    output.seek(0)
                    raise RuntimeError(f"{script.name} does not answer:\n{output.read().decode(errors='replace')}")
                time.sleep(POLL_SECONDS)
            ready = time.perf_counter() - started
            used = psutil.Process(process.pid).cpu_times()
            yield Server(process, port, started, ready, used.user + used.system)
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def ask(server: Server, message: str, **values: Any) -> Iterator[tuple[float, dict[str, Any]]]:
    """Yield (`time.perf_counter`, event) for each event of `/chat` as it arrives; raise RuntimeError when it fails."""
    connection = HTTPConnection(HOST, server.port, timeout=600)
    try:
        event_id = _post(connection, "/gradio_api/call/v2/chat", {"message": message, **values})["event_id"]
        connection.request("GET", f"/gradio_api/call/chat/{event_id}")
        kind = ""
        for line in connection.getresponse():
            now = time.perf_counter()
            if line.startswith(b"event: "):
                kind = line[7:].strip().decode()
            elif line.startswith(b"data: ") and kind == "error":
                raise RuntimeError(line.decode())
            elif line.startswith(b"data: ") and kind == "generating":
                yield now, json.loads(line[6:])[0]
    finally:
        connection.close()


def call(server: Server, endpoint: str, **values: Any) -> Any:
    """Return what an endpoint returns that does not stream."""
    connection = HTTPConnection(HOST, server.port, timeout=600)
    try:
        event_id = _post(connection, f"/gradio_api/call/v2/{endpoint}", values)["event_id"]
        connection.request("GET", f"/gradio_api/call/{endpoint}/{event_id}")
        lines = connection.getresponse().read().splitlines()
        return json.loads(lines[lines.index(b"event: complete") + 1][6:])[0]
    finally:
        connection.close()


def _post(connection: HTTPConnection, path: str, body: dict[str, Any]) -> Any:
    connection.request("POST", path, json.dumps(body), {"content-type": "application/json"})
    response = connection.getresponse()
    answer = response.read()
    if response.status != 200:
        raise RuntimeError(f"{path}: {response.status} {answer.decode(errors='replace')[:300]}")
    return json.loads(answer)


def _answers(port: int) -> bool:
    """Say whether `/` can be read to its end."""
    connection = HTTPConnection(HOST, port, timeout=10)
    try:
        connection.request("GET", "/")
        response = connection.getresponse()
        return response.status == 200 and response.read().rstrip().endswith(b"</html>")
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port
