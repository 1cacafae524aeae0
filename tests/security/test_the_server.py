"""What the server shows to strangers, and where it refuses to listen."""

from __future__ import annotations

import re
import socket
import subprocess
from pathlib import Path

import httpx
import pytest

from core.settings import ROOT
from tests.api.raw_calls import INSIDES
from tests.api.test_gradio_api import ENDPOINTS
from tests.conftest import free_port, serving_in_child, wait_for_page

QUEUED = tuple(name.removeprefix("/") for name in ENDPOINTS)
QUEUED_EVENTS = re.compile(
    "(ask|choose|list_rows|follow|rate|comment|save|delete|export|import_file|open|build|view|start|look|stop|resume)"
    "(_.+)?"
)


def test_the_page_keeps_foreign_content_out(http: httpx.Client) -> None:
    for path in ("/", "/config", "/gradio_api/info", "/no-such-page"):
        headers = http.get(path).headers
        policy = dict(rule.strip().split(" ", 1) for rule in headers["content-security-policy"].split(";"))
        assert policy["img-src"] == "'self' data: blob:"
        assert policy["media-src"] == "'self' data: blob:"
        assert policy["connect-src"] == "'self'"
        assert policy["object-src"] == policy["frame-src"] == "'none'"
        assert policy["base-uri"] == policy["form-action"] == "'self'"
        assert policy["frame-ancestors"] == "'self' https://huggingface.co"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "same-origin"


def test_the_page_itself_asks_no_other_host(http: httpx.Client) -> None:
    page = http.get("/").text
    loaded = re.findall(r"<(?:script|img|iframe|link)\b[^>]*?(?:src|href)=\"(https?://[^\"]+)\"", page)

    assert [url for url in loaded if not url.startswith(str(http.base_url))] == []


@pytest.mark.parametrize("host", ["127.0.0.1:7860", "simple.example"])
@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://localhost:1234"])
def test_no_other_origin_may_read_answers(http: httpx.Client, host: str, origin: str) -> None:
    headers = {"origin": origin, "host": host}
    for answer in (
        http.get("/config", headers=headers),
        http.post("/gradio_api/call/v2/list_models", json={}, headers=headers),
        http.options("/gradio_api/call/v2/chat", headers=headers | {"access-control-request-method": "POST"}),
    ):
        assert "access-control-allow-origin" not in answer.headers
        assert "access-control-allow-credentials" not in answer.headers


@pytest.mark.parametrize("name", QUEUED)
def test_the_queue_cannot_be_bypassed(http: httpx.Client, name: str) -> None:
    dependency = next(row for row in http.get("/config").json()["dependencies"] if row["api_name"] == name)
    for path in (f"/gradio_api/run/{name}", f"/gradio_api/api/{name}", "/gradio_api/run/predict"):
        assert http.post(path, json={"data": ["Hello"]}).status_code == 404
        assert http.post(path, json={"data": ["Hello"], "fn_index": dependency["id"]}).status_code == 404


def test_private_events_that_do_something_cannot_bypass_the_queue(http: httpx.Client) -> None:
    for row in http.get("/config").json()["dependencies"]:
        if QUEUED_EVENTS.fullmatch(row["api_name"]):
            assert http.post("/gradio_api/run/predict", json={"data": [], "fn_index": row["id"]}).status_code == 404


@pytest.mark.parametrize(
    "path",
    [
        "/file=/etc/passwd",
        "/gradio_api/file=/etc/passwd",
        "/gradio_api/file=..%2f..%2f..%2fetc/passwd",
        f"/gradio_api/file={ROOT}/app.py",
        f"/gradio_api/file={ROOT}/models/starter/model.safetensors",
        "/gradio_api/file=.env",
        "/gradio_api/file=http://127.0.0.1:1/",
        "/gradio_api/proxy=http://127.0.0.1:1/",
        "/monitoring",
        "/monitoring/summary",
        "/gradio_api/runs",
        "/static/..%2f..%2fapp.py",
        "/gradio_api/mcp/",
        "/gradio_api/mcp/schema",
    ],
)
def test_files_and_insides_are_not_served(http: httpx.Client, path: str) -> None:
    answer = http.get(path)

    assert answer.status_code in (400, 403, 404)
    assert "root:" not in answer.text
    assert "Traceback" not in answer.text


def test_the_data_folder_is_not_served(http: httpx.Client, models_dir: Path) -> None:
    for file in (models_dir / "tiny" / "config.json", models_dir.parent / "simpleia.db"):
        assert http.get(f"/gradio_api/file={file}").status_code in (403, 404)


def test_the_documentation_lists_no_internals(http: httpx.Client) -> None:
    assert http.get("/openapi.json").json()["paths"] == {}


def test_an_upload_over_ten_megabytes_is_refused(http: httpx.Client) -> None:
    too_much = b"x" * (10 * 1024 * 1024 + 1)

    assert http.post("/gradio_api/upload", files={"files": ("big.bin", too_much)}).status_code == 413
    assert http.post("/gradio_api/upload", files={"files": ("small.txt", b"x")}).status_code == 200


def test_an_uploaded_page_does_not_run_here(http: httpx.Client) -> None:
    page = b"<script>fetch('/config')</script>"
    (path,) = http.post("/gradio_api/upload", files={"files": ("page.html", page)}).json()
    answer = http.get(f"/gradio_api/file={path}")

    assert "html" not in answer.headers["content-type"] or "attachment" in answer.headers["content-disposition"]


def test_an_answer_of_the_server_names_no_folder_of_it(http: httpx.Client) -> None:
    for path in ("/", "/config", "/gradio_api/info", "/gradio_api/openapi.json"):
        assert str(ROOT) not in http.get(path).text
    assert not INSIDES.search(http.get("/no/such/page").text)


def test_auth_off_refuses_to_listen_for_others() -> None:
    with serving_in_child(free_port(), GRADIO_SERVER_NAME="0.0.0.0", AUTH="off") as process:
        output = process.communicate(timeout=60)[0]

    assert process.returncode == 1
    assert output.strip().splitlines()[-1] == (
        "AUTH=off lets everybody do everything, so it cannot listen on 0.0.0.0. "
        "Set AUTH=guest, or GRADIO_SERVER_NAME=127.0.0.1."
    )
    assert "Traceback" not in output


def test_a_port_that_is_taken_is_told_in_a_sentence() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        serving_in_child(taken.getsockname()[1]) as process,
    ):
        output = process.communicate(timeout=60)[0]

    assert process.returncode != 0
    assert "Traceback" not in output
    assert "address already in use" in output


def test_on_a_space_it_serves_everybody_as_guests() -> None:
    port = free_port()
    with serving_in_child(port, SPACE_ID="someone/simpleia") as process:
        page = wait_for_page(f"http://127.0.0.1:{port}", process)
        assert page.status_code == 200
        assert "simpleIA" in page.text
        listening = subprocess.run(["cat", f"/proc/{process.pid}/net/tcp"], capture_output=True, text=True).stdout
        assert f"00000000:{port:04X}" in listening, "it listens on loopback only"
        started = httpx.post(f"http://127.0.0.1:{port}/gradio_api/call/v2/set_model", json={"model": "/etc"}).json()
        answer = httpx.get(f"http://127.0.0.1:{port}/gradio_api/call/set_model/{started['event_id']}", timeout=60)
        assert "Visitors may use only the models that are listed here." in answer.text
