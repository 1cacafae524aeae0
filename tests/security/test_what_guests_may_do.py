"""A visitor calls everything there is, documented or not, and nothing loads what is not listed."""

from __future__ import annotations

import gc
import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from gradio.utils import get_upload_folder

from tests.api.raw_calls import INSIDES, call, refusal, result
from tests.security.page_events import FILE, dependencies, filled_in, raise_event


def models_in_memory() -> set[str]:
    from providers.local_model import LocalModel

    gc.collect()
    return {thing.info.name for thing in gc.get_objects() if type(thing) is LocalModel and hasattr(thing, "info")}


def test_no_event_loads_what_is_not_listed(guest: httpx.Client, models_dir: Path, tmp_path: Path) -> None:
    folder = tmp_path / "private"
    folder.symlink_to(models_dir / "tiny")
    for name in (str(folder), "nobody/nothing"):
        for dependency in dependencies(guest):
            answer = raise_event(guest, dependency, filled_in(guest, dependency, name))
            assert not INSIDES.search(answer.replace(str(folder), "")), (dependency["api_name"], answer)

    assert str(folder) not in models_in_memory()
    assert not {f"transformers/{folder}", "transformers/nobody/nothing"} & {
        row["id"] for row in result(guest, "list_models")
    }


@pytest.mark.parametrize("endpoint", ["chat", "predict", "set_model", "count_tokens"])
@pytest.mark.parametrize("name", ["gpt2", "../tiny", "~/tiny", "/etc", "./models/starter", "empty"])
def test_public_endpoints_refuse_what_is_not_listed(guest: httpx.Client, endpoint: str, name: str) -> None:
    bodies: dict[str, dict[str, Any]] = {
        "chat": {"message": "Hello"},
        "predict": {"prompt": "Hello", "max_length": 100},
        "set_model": {},
        "count_tokens": {"text": "Hello"},
    }

    assert refusal(guest, endpoint, bodies[endpoint] | {"model": name}).startswith(
        "Visitors may use only the models that are listed here."
    )


def test_a_guest_chats_with_what_is_listed(guest: httpx.Client) -> None:
    for model in ("", "tiny"):
        assert result(guest, "chat", message="Hello", model=model, max_tokens=20)["usage"]["completion_tokens"] > 0


def test_events_with_the_wrong_number_of_values_tell_nothing(guest: httpx.Client) -> None:
    for dependency in dependencies(guest):
        assert not INSIDES.search(raise_event(guest, dependency, [])), dependency["api_name"]


def test_an_event_that_does_not_exist_is_refused(guest: httpx.Client) -> None:
    for number in (-1, 10_000, None, "chat"):
        body: dict[str, Any] = {"fn_index": number, "session_hash": "x", "data": []}
        answer = guest.post("/gradio_api/queue/join", json=body, headers={"connection": "close"})
        assert not INSIDES.search(answer.text)


def test_history_of_a_guest_cannot_bring_a_file(guest: httpx.Client) -> None:
    ask = next(row for row in dependencies(guest) if row["api_name"] == "ask_again")
    entries = [{"role": "user", "content": [{"type": "file", "file": {"path": "/etc/passwd", "meta": FILE}}]}]
    answer = raise_event(guest, ask, [entries, *filled_in(guest, ask, "")[1:]])

    assert "root:" not in answer
    assert not INSIDES.search(json.dumps(call(guest, "list_providers", {})[-1].data))


def test_no_event_copies_a_file_to_where_files_are_served(guest: httpx.Client, tmp_path: Path) -> None:
    secret = tmp_path / "secret-of-the-server.txt"
    secret.write_text("not for visitors")
    file = {"path": str(secret), "meta": FILE}
    for dependency in dependencies(guest):
        answer = raise_event(guest, dependency, [file] * max(1, len(dependency["inputs"])))
        assert "not for visitors" not in answer
        assert "gradio_api/file=" not in answer, dependency["api_name"]

    assert list(Path(get_upload_folder()).rglob(secret.name)) == []
