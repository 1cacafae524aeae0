"""What a vendor's protocol is to the scripted server: what it answers, and how it says that something went wrong."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class WireRequest:
    """A request as it came in; the headers' names are in lower case."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: Any


@dataclass(frozen=True)
class Reply:
    """An answer in one piece."""

    body: bytes
    status: int = 200
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Streamed:
    """An answer in frames: `pieces` hold text of the model, the others what the protocol says around it."""

    content_type: str
    opening: Sequence[bytes]
    pieces: Sequence[bytes]
    closing: Sequence[bytes]


class WireProtocol(ABC):
    """A vendor's protocol, with the talker behind it."""

    name: str
    base_path = ""

    @abstractmethod
    def is_chat(self, request: WireRequest) -> bool:
        """Say whether a request asks for an answer of the model."""

    @abstractmethod
    def reply(self, request: WireRequest) -> Reply | Streamed:
        """Answer a request as the vendor does."""

    @abstractmethod
    def failure(self, status: int, message: str) -> Reply:
        """Say that something went wrong, before an answer."""

    @abstractmethod
    def failure_inside(self, status: int, message: str) -> bytes:
        """Say that something went wrong, inside an answer that has begun."""

    @abstractmethod
    def empty(self, request: WireRequest) -> Streamed:
        """Answer with nothing in it and without an end."""

    def model_missing(self, model: str) -> Reply:
        """Say that there is no such model."""
        return self.failure(404, f"The model `{model}` does not exist")


def compact(value: Any) -> bytes:
    """Return JSON as the vendors write it: UTF-8, with its characters as they are."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def json_reply(value: Any, status: int = 200) -> Reply:
    """Return an answer of JSON."""
    return Reply(compact(value), status)


def sse(value: Any, event: str | None = None) -> bytes:
    """Return a server-sent event (WHATWG HTML, section 9.2)."""
    name = f"event: {event}\n".encode() if event else b""
    return name + b"data: " + compact(value) + b"\n\n"
