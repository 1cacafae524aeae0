"""The page's events over plain HTTP, as a browser would raise them, or somebody who only looks like one."""

from __future__ import annotations

import re
import uuid
from typing import Any

import httpx

FILE = {"_type": "gradio.FileData"}


def dependencies(guest: httpx.Client) -> list[dict[str, Any]]:
    """Return the page's events and the endpoints, one of each name and shape.

    `remember_1` does what `remember` does, but an event of the same name with other inputs is another tab's.
    """
    config = guest.get("/config").json()
    kinds = {each["id"]: each["type"] for each in config["components"]}
    shapes: dict[Any, dict[str, Any]] = {}
    for row in reversed(config["dependencies"]):
        if row["backend_fn"]:
            name, inputs = re.sub(r"_\d+$", "", row["api_name"]), tuple(kinds[number] for number in row["inputs"])
            shapes[name, name != "remember" and (inputs, len(row["outputs"]))] = row
    return list(shapes.values())


def filled_in(guest: httpx.Client, dependency: dict[str, Any], name: str) -> list[Any]:
    """Return values for an event's inputs: `name` wherever a text goes."""
    kinds = {each["id"]: each for each in guest.get("/config").json()["components"]}
    data: list[Any] = []
    for number in dependency["inputs"]:
        kind = kinds[number]["type"]
        if kind == "chatbot":
            data.append([{"role": "user", "content": [{"type": "text", "text": "Hello"}]}])
        elif kind == "browserstate":
            data.append({"id": "c", "entries": []})
        elif kind in ("slider", "number", "checkbox", "radio"):
            data.append(kinds[number]["props"].get("value"))
        elif kind == "multimodaltextbox":
            data.append({"text": name, "files": []})
        elif kind == "uploadbutton":
            data.append({"path": name, "meta": FILE})
        else:
            data.append(name)
    return data or [name]


def event_of(guest: httpx.Client, name: str, element: str) -> dict[str, Any]:
    """Return the event of this name that the element with this id raises."""
    config = guest.get("/config").json()
    elements = {each["id"]: each["props"].get("elem_id") for each in config["components"]}
    return next(
        row
        for row in config["dependencies"]
        if re.sub(r"_\d+$", "", row["api_name"]) == name and element in {elements.get(id) for id, _ in row["targets"]}
    )


def raise_event(guest: httpx.Client, dependency: dict[str, Any], data: list[Any], session: str = "") -> str:
    """Raise an event as the page would; return what the server answers to it, its first updates only."""
    session = session or uuid.uuid4().hex
    body: dict[str, Any] = {
        "fn_index": dependency["id"],
        "session_hash": session,
        "data": data,
        "event_data": {"index": [0, 0], "value": data[0] if data else None, "row_value": data, "selected": True},
    }
    if not dependency["queue"]:
        return guest.post("/gradio_api/run/predict", json=body).text
    joined = guest.post("/gradio_api/queue/join", json=body)
    if joined.status_code != 200:
        return joined.text
    text, updates = "", 0
    with guest.stream("GET", "/gradio_api/queue/data", params={"session_hash": session}) as stream:
        for line in stream.iter_lines():
            text += line
            updates += "process_generating" in line
            if "process_completed" in line or "close_stream" in line or updates > 3:
                break
    return text
