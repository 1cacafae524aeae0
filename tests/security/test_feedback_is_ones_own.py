"""Visitors rate and correct what their own session was answered, and nothing else; only a local user trains."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from gradio.utils import get_upload_folder
from gradio_client import Client

from core.settings import ROOT
from tests.api.raw_calls import INSIDES, call, refusal, result
from tests.security.page_events import FILE, dependencies, event_of, filled_in, raise_event

ROWS = '{"prompt": "Which is the secret word?", "completion": "Abracadabra."}'
MAY_NOT = "Visitors may rate and correct answers, but not train models here."


@dataclass(frozen=True)
class Visit:
    """A visitor's client, and an answer that only this visitor knows of."""

    client: Client
    turn_id: str
    secret: str

    @property
    def session(self) -> str:
        return str(self.client.session_hash)

    def feedback(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = self.client.predict(api_name="/list_feedback")
        return rows


@pytest.fixture
def visit(guest_url: str, connect: Callable[..., Client]) -> Callable[[], Visit]:
    """Let visitors come who ask something and rate the answer, with a comment that holds a secret of their own."""

    def come() -> Visit:
        client, secret = connect(guest_url), f"secret-{uuid.uuid4().hex}"
        done = client.predict(message=f"I know {secret}", model="tiny", max_tokens=5, api_name="/chat")
        client.predict(done["turn_id"], "up", f"Keep {secret}", api_name="/submit_feedback")
        return Visit(client, done["turn_id"], secret)

    return come


@pytest.fixture
def dataset(client: Client) -> dict[str, Any]:
    """A dataset of the local user, who shares the database with the visitors."""
    row: dict[str, Any] = client.predict(content=ROWS, name="private data", api_name="/import_dataset")
    return row


def answer_entry(turn_id: str) -> dict[str, Any]:
    """Return an answer as the page's chat has it."""
    text = [{"type": "text", "text": "An answer."}]
    return {"role": "assistant", "content": text, "metadata": {"id": f"turn-{turn_id}"}}


def test_visitors_rate_and_correct_their_own_answers(visit: Callable[[], Visit]) -> None:
    ann = visit()
    kept = ann.client.predict(ann.turn_id, "down", "No.", "A better answer.", ["short"], api_name="/submit_feedback")

    assert (kept["rating"], kept["comment"], kept["correction"]) == ("down", "No.", "A better answer.")
    assert ann.feedback() == [kept]


def test_an_answer_of_another_session_is_as_unknown_as_none(guest: httpx.Client, visit: Callable[[], Visit]) -> None:
    ann, bob = visit(), visit()
    before = ann.feedback()
    for turn_id in (ann.turn_id, uuid.uuid4().hex):
        with pytest.raises(Exception, match=f"There is no answer {turn_id} of yours.") as refused:
            bob.client.predict(turn_id, "down", "Mine now.", "Changed.", api_name="/submit_feedback")
        assert str(refused.value) == refusal(guest, "submit_feedback", {"turn_id": turn_id, "rating": "down"})

    assert ann.feedback() == before


def test_feedback_of_another_session_is_nowhere_to_be_seen(
    guest: httpx.Client, client: Client, visit: Callable[[], Visit]
) -> None:
    ann, bob = visit(), visit()

    assert [row["turn_id"] for row in bob.feedback()] == [bob.turn_id]
    for stranger in (bob.client, client):
        assert stranger.predict(words=ann.secret, api_name="/list_feedback") == []
        assert ann.secret not in Path(stranger.predict(api_name="/export_feedback")).read_text(encoding="utf-8")
    assert result(guest, "list_feedback") == [], "calls without a session share one"
    assert ann.secret in Path(ann.client.predict(api_name="/export_feedback")).read_text(encoding="utf-8")


def test_the_page_shows_feedback_to_nobody_else(guest: httpx.Client, visit: Callable[[], Visit]) -> None:
    ann, bob = visit(), visit()
    listing = event_of(guest, "list_rows", "feedback-refresh")
    opening = event_of(guest, "open", "feedback-table")
    export = event_of(guest, "export", "feedback-export")
    for event, values in ((listing, ["", ""]), (opening, [[]]), (export, ["", ""])):
        assert ann.secret in raise_event(guest, event, values, ann.session), event["api_name"]
        assert ann.secret not in raise_event(guest, event, values, bob.session), event["api_name"]
    assert ann.secret not in raise_event(guest, listing, ["", ann.secret], bob.session)


def test_the_page_brings_back_the_thumbs_of_ones_own_answers_only(
    guest: httpx.Client, visit: Callable[[], Visit]
) -> None:
    ann, bob = visit(), visit()
    named = [row for row in dependencies(guest) if row["api_name"].startswith("restore")]
    restore = next(row for row in named if len(row["inputs"]) == 2)
    kept = {"id": "c", "entries": [answer_entry(ann.turn_id)]}

    assert '"Like"' in raise_event(guest, restore, [kept, None], ann.session)
    assert '"Like"' not in raise_event(guest, restore, [kept, None], bob.session)


def test_the_page_changes_feedback_of_nobody_else(guest: httpx.Client, visit: Callable[[], Visit]) -> None:
    ann, bob = visit(), visit()
    before, feedback_id = ann.feedback(), ann.feedback()[0]["feedback_id"]
    unknown, no_feedback = f"There is no answer {ann.turn_id} of yours.", "There is no feedback"
    for name, element, values, told in (
        ("rate", "chat", [[answer_entry(ann.turn_id)]], unknown),
        ("comment", "comment", [ann.turn_id, "Mine now."], "There is no answer"),
        ("save", "feedback-save", [feedback_id, "down", "Changed.", "Mine now."], no_feedback),
        ("delete", "feedback-delete-confirm", [feedback_id], no_feedback),
    ):
        assert told in raise_event(guest, event_of(guest, name, element), values, bob.session), name
        assert ann.feedback() == before, name

    assert unknown not in raise_event(
        guest, event_of(guest, "rate", "chat"), [[answer_entry(ann.turn_id)]], ann.session
    )


def test_a_file_of_feedback_takes_nothing_from_another_session(guest: httpx.Client, visit: Callable[[], Visit]) -> None:
    ann, bob = visit(), visit()
    before = ann.feedback()
    row = {
        "turn_id": ann.turn_id,
        "messages": [{"role": "user", "content": "Hello"}],
        "answer": "Hi",
        "rating": "down",
        "comment": "Mine now.",
    }
    (path,) = guest.post("/gradio_api/upload", files={"files": ("feedback.jsonl", json.dumps(row).encode())}).json()
    raise_event(guest, event_of(guest, "import_file", "feedback-import"), [{"path": path, "meta": FILE}], bob.session)

    assert ann.feedback() == before
    assert {row["comment"] for row in bob.feedback()} == {"Mine now.", f"Keep {bob.secret}"}
    assert ann.turn_id not in {row["turn_id"] for row in bob.feedback()}


@pytest.mark.parametrize(
    "endpoint",
    [
        "build_dataset",
        "import_dataset",
        "preview_dataset",
        "list_datasets",
        "start_training",
        "training_status",
        "stop_training",
        "resume_training",
        "list_runs",
    ],
)
def test_visitors_may_not_train(guest: httpx.Client, dataset: dict[str, Any], endpoint: str) -> None:
    fields: dict[str, dict[str, Any]] = {
        "import_dataset": {"content": ROWS},
        "preview_dataset": {"dataset_id": dataset["dataset_id"], "model": "tiny"},
        "start_training": {"dataset_id": dataset["dataset_id"], "base_model": "tiny", "recipe": {"epochs": 1}},
        "training_status": {"run_id": "x"},
        "stop_training": {"run_id": "x"},
        "resume_training": {"run_id": "x"},
    }

    assert refusal(guest, endpoint, fields.get(endpoint, {})).startswith(MAY_NOT)


def test_visitors_may_not_train_on_their_own_corrections(visit: Callable[[], Visit]) -> None:
    ann = visit()
    ann.client.predict(ann.turn_id, correction="A better answer.", api_name="/submit_feedback")

    with pytest.raises(Exception, match=MAY_NOT):
        ann.client.predict(api_name="/build_dataset")


def test_the_page_trains_nothing_for_visitors(guest: httpx.Client, client: Client, dataset: dict[str, Any]) -> None:
    datasets, runs = client.predict(api_name="/list_datasets"), client.predict(api_name="/list_runs")
    (path,) = guest.post("/gradio_api/upload", files={"files": ("rows.jsonl", ROWS.encode())}).json()
    for name, element, values in (
        ("open", "tab-finetune", [None, None, None]),
        ("build", "build-dataset", [True]),
        ("import_file", "import-dataset", [{"path": path, "meta": FILE}]),
        ("stop", "stop-run", [None]),
        ("resume", "resume-run", [None]),
    ):
        assert MAY_NOT in raise_event(guest, event_of(guest, name, element), values), name
    for name, element in (("view", "dataset"), ("start", "start-run"), ("look", "run"), ("stop", "stop-run")):
        event = event_of(guest, name, element)
        for chosen in (dataset["dataset_id"], None):
            answer = raise_event(guest, event, [chosen, *filled_in(guest, event, "transformers/tiny")[1:]])
            assert not any(words in answer for words in ("Abracadabra", "private data", '"running"')), name
            assert not INSIDES.search(answer), name

    assert client.predict(api_name="/list_datasets") == datasets
    assert client.predict(api_name="/list_runs") == runs


@pytest.mark.parametrize("meta", [None, FILE, {}, {"_type": "other"}, 5], ids=str)
def test_no_file_of_the_server_becomes_a_dataset(http: httpx.Client, models_dir: Path, meta: Any) -> None:
    uploads = Path(get_upload_folder())
    before = result(http, "list_datasets")
    for path in (
        "/etc/passwd",
        str(ROOT / "app.py"),
        "app.py",
        str(models_dir.parent / "simpleia.db"),
        f"{uploads}/../../../../etc/passwd",
        str(uploads),
        "/etc",
        "/nowhere",
        "x" * 5000,
        "/tmp\0",
        "",
    ):
        file = {"path": path, "orig_name": "rows.jsonl"} | ({} if meta is None else {"meta": meta})
        event = call(http, "import_dataset", {"file": file})[-1]
        assert event.name == "error", path
        if meta != FILE and meta != 5:
            assert event.data["error"].startswith("file must be an uploaded file."), path

    assert result(http, "list_datasets") == before
    assert list(uploads.rglob("passwd")) == []


def test_a_name_of_a_file_is_no_file(http: httpx.Client) -> None:
    for file in ("/etc/passwd", ["/etc/passwd"], [{"path": "/etc/passwd"}], {"url": "/etc/passwd"}, {}, 5, True):
        assert refusal(http, "import_dataset", {"file": file}).startswith("file must be an uploaded file."), file
