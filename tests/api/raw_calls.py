"""The generated API over plain HTTP, as curl would call it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import httpx

from core.settings import ROOT

INSIDES = re.compile(rf"Traceback|File \"|\.py\b|/tmp/|{re.escape(str(ROOT))}|site-packages|Errno|Exception|<class ")


class Event(NamedTuple):
    """One server-sent event."""

    name: str
    data: Any


def start(http: httpx.Client, endpoint: str, body: Any, headers: dict[str, str] | None = None) -> httpx.Response:
    """Post a call with named fields; `body` may be raw JSON."""
    return http.post(
        f"/gradio_api/call/v2/{endpoint}",
        content=body if isinstance(body, str) else json.dumps(body),
        headers={"content-type": "application/json"} | (headers or {}),
    )


def events_of(lines: Iterable[str]) -> Iterator[Event]:
    """Read server-sent events."""
    name = ""
    for line in lines:
        if line.startswith("event: "):
            name = line.removeprefix("event: ")
        elif line.startswith("data: "):
            yield Event(name, json.loads(line.removeprefix("data: ")))


def call(http: httpx.Client, endpoint: str, body: Any, headers: dict[str, str] | None = None) -> list[Event]:
    """Call an endpoint and read its events to the end; nothing in them may tell about the server's inside."""
    started = start(http, endpoint, body, headers)
    assert started.status_code == 200, started.text
    answer = http.get(f"/gradio_api/call/{endpoint}/{started.json()['event_id']}", headers=headers or {})
    assert not INSIDES.search(answer.text), answer.text
    return list(events_of(answer.text.splitlines()))


def first_event(http: httpx.Client, endpoint: str, body: Any) -> Event:
    """Call an endpoint and return as soon as its first event is there."""
    call_id = start(http, endpoint, body).json()["event_id"]
    with http.stream("GET", f"/gradio_api/call/{endpoint}/{call_id}") as answer:
        return next(event for event in events_of(answer.iter_lines()) if event.name == "generating")


def result(http: httpx.Client, endpoint: str, headers: dict[str, str] | None = None, /, **fields: Any) -> Any:
    """Return what an endpoint gives last."""
    event = call(http, endpoint, fields, headers)[-1]
    assert event.name == "complete", event
    return event.data[0]


def refusal(http: httpx.Client, endpoint: str, body: Any, headers: dict[str, str] | None = None) -> str:
    """Return the sentence with which an endpoint refuses a call."""
    event = call(http, endpoint, body, headers)[-1]
    assert event.name == "error", event
    return str(event.data["error"])
