"""Anthropic's Messages API.

Source, read on 2026-11-24: https://platform.claude.com/docs/en/build-with-claude/streaming for the events,
https://platform.claude.com/docs/en/api/errors for the errors, and https://platform.claude.com/docs/en/api/models-list.
"""

from __future__ import annotations

from typing import Any

from tests.wire import talker
from tests.wire.protocol import Reply, Streamed, WireProtocol, WireRequest, json_reply, sse

TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    404: "not_found_error",
    429: "rate_limit_error",
    500: "api_error",
    529: "overloaded_error",
}
REASONS = {"length": "max_tokens", "stop": "end_turn"}


class AnthropicWire(WireProtocol):
    """`/v1/models`, `/v1/messages` and `/v1/messages/count_tokens`."""

    name = "anthropic"

    def is_chat(self, request: WireRequest) -> bool:
        return request.path == "/v1/messages"

    def reply(self, request: WireRequest) -> Reply | Streamed:
        match request.path:
            case "/v1/models":
                return json_reply({"data": [_listed()], "has_more": False, "first_id": None, "last_id": None})
            case "/v1/messages" if request.body["model"] != talker.MODEL:
                return self.model_missing(request.body["model"])
            case "/v1/messages":
                return self._messages(request.body)
            case "/v1/messages/count_tokens":
                return json_reply({"input_tokens": talker.count(_texts(request.body))})
        return self.failure(404, "Not found")

    def failure(self, status: int, message: str) -> Reply:
        return json_reply(_error(status, message), status)

    def failure_inside(self, status: int, message: str) -> bytes:
        return sse(_error(status, message), "error")

    def empty(self, request: WireRequest) -> Streamed:
        return Streamed("text/event-stream", [_start(1)], [], [_event("message_stop")])

    def model_missing(self, model: str) -> Reply:
        return self.failure(404, f"model: {model}")

    def _messages(self, body: Any) -> Reply | Streamed:
        try:
            answer = talker.answer(
                talker.Asked(
                    texts=_texts(body),
                    max_tokens=body["max_tokens"],
                    temperature=body.get("temperature"),
                    stop=tuple(body.get("stop_sequences") or ()),
                )
            )
        except talker.PromptTooLong as error:
            return self.failure(400, f"prompt is too long: {error.tokens} tokens > {talker.CONTEXT} maximum")
        thinking = {"type": "thinking", "thinking": "", "signature": ""}
        end = {"stop_reason": REASONS[answer.reason], "stop_sequence": None}
        return Streamed(
            content_type="text/event-stream",
            opening=[
                _start(answer.prompt_tokens),
                _event("content_block_start", index=0, content_block=thinking),
                _event("ping"),
                _delta(0, {"type": "thinking_delta", "thinking": "Let me see… ¿qué?"}),
                _delta(0, {"type": "signature_delta", "signature": "EqQBCgIYAhIM"}),
                _event("content_block_stop", index=0),
                _event("content_block_start", index=1, content_block={"type": "text", "text": ""}),
            ],
            pieces=[_delta(1, {"type": "text_delta", "text": piece}) for piece in answer.pieces],
            closing=[
                _event("content_block_stop", index=1),
                _event("message_delta", delta=end, usage={"output_tokens": answer.completion_tokens}),
                _event("message_stop"),
            ],
        )


def _listed() -> dict[str, Any]:
    return {
        "type": "model",
        "id": talker.MODEL,
        "display_name": "Talker",
        "created_at": "2026-01-01T00:00:00Z",
        "max_input_tokens": talker.CONTEXT,
        "max_tokens": talker.CONTEXT,
        "capabilities": None,
    }


def _start(read: int) -> bytes:
    message: dict[str, Any] = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": talker.MODEL,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {"input_tokens": read, "output_tokens": 1},
    }
    return _event("message_start", message=message)


def _event(kind: str, **content: Any) -> bytes:
    return sse({"type": kind} | content, kind)


def _delta(index: int, delta: dict[str, str]) -> bytes:
    return _event("content_block_delta", index=index, delta=delta)


def _error(status: int, message: str) -> dict[str, Any]:
    return {
        "type": "error",
        "error": {"type": TYPES.get(status, "api_error"), "message": message},
        "request_id": "req_1",
    }


def _texts(body: Any) -> tuple[str, ...]:
    said = [message["content"] for message in body["messages"]]
    return tuple(_text(content) for content in ([body["system"]] if body.get("system") else []) + said)


def _text(content: Any) -> str:
    return content if isinstance(content, str) else " ".join(part.get("text", "") for part in content)
