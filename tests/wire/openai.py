"""OpenAI's chat completions, models and embeddings, as compatible servers speak them.

Source, read on 2026-11-24: https://platform.openai.com/docs/api-reference/chat-streaming for the chunks,
https://platform.openai.com/docs/guides/error-codes for the errors, and
https://huggingface.co/docs/text-generation-inference/reference/api_reference for `error_type`. `max_model_len` in the
list of models is vLLM's: https://docs.vllm.ai/en/latest/serving/openai_compatible_server.html.
"""

from __future__ import annotations

from typing import Any

from tests.wire import talker
from tests.wire.protocol import Reply, Streamed, WireProtocol, WireRequest, json_reply, sse

DONE = b"data: [DONE]\n\n"
TYPES = {401: "authentication_error", 404: "invalid_request_error", 429: "rate_limit_error", 500: "server_error"}
CODES = {401: "invalid_api_key", 404: "model_not_found", 429: "rate_limit_exceeded"}
HEAD = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1795521600, "model": talker.MODEL}


class OpenAIWire(WireProtocol):
    """`/v1/models`, `/v1/chat/completions` and `/v1/embeddings`."""

    name = "openai"
    base_path = "/v1"

    def is_chat(self, request: WireRequest) -> bool:
        return request.path == "/v1/chat/completions"

    def reply(self, request: WireRequest) -> Reply | Streamed:
        match request.path:
            case "/v1/models":
                model = {"id": talker.MODEL, "object": "model", "created": 1, "owned_by": "tests"}
                return json_reply({"object": "list", "data": [model | {"max_model_len": talker.CONTEXT}]})
            case "/v1/chat/completions" if request.body["model"] != talker.MODEL:
                return self.model_missing(request.body["model"])
            case "/v1/chat/completions":
                return self._chat(request)
            case "/v1/embeddings":
                rows = [
                    {"object": "embedding", "index": index, "embedding": talker.embedding(text)}
                    for index, text in enumerate(request.body["input"])
                ]
                return json_reply({"object": "list", "data": rows, "model": talker.MODEL, "usage": {}})
        return self.failure(404, f"Invalid URL (POST {request.path})")

    def failure(self, status: int, message: str) -> Reply:
        return json_reply(_error(status, message), status)

    def failure_inside(self, status: int, message: str) -> bytes:
        return sse(_error(status, message))

    def empty(self, request: WireRequest) -> Streamed:
        return Streamed("text/event-stream", [sse(HEAD | {"choices": []})], [], [DONE])

    def _chat(self, request: WireRequest) -> Reply | Streamed:
        body = request.body
        try:
            answer = talker.answer(
                talker.Asked(
                    texts=tuple(_text(message["content"]) for message in body["messages"]),
                    max_tokens=body.get("max_completion_tokens") or body.get("max_tokens"),
                    temperature=body.get("temperature"),
                    seed=body.get("seed"),
                    stop=tuple(body.get("stop") or ()),
                )
            )
        except talker.PromptTooLong as error:
            message = (
                f"This model's maximum context length is {talker.CONTEXT} tokens. However, your messages resulted in "
                f"{error.tokens} tokens. Please reduce the length of the messages."
            )
            return self.failure(400, message)
        usage = {
            "prompt_tokens": answer.prompt_tokens,
            "completion_tokens": answer.completion_tokens,
            "total_tokens": answer.prompt_tokens + answer.completion_tokens,
        }
        return Streamed(
            content_type="text/event-stream",
            opening=[_chunk({"role": "assistant", "content": ""})],
            pieces=[_chunk({"content": piece}) for piece in answer.pieces],
            closing=[_chunk({}, answer.reason), sse(HEAD | {"choices": [], "usage": usage}), DONE],
        )


class HuggingFaceWire(OpenAIWire):
    """OpenAI's protocol as text-generation-inference speaks it: an error inside a stream is a text with a type."""

    name = "huggingface"

    def failure_inside(self, status: int, message: str) -> bytes:
        return sse({"error": message, "error_type": "overloaded" if status == 429 else "generation"})


def _chunk(delta: dict[str, Any], reason: str | None = None) -> bytes:
    return sse(HEAD | {"choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}]})


def _error(status: int, message: str) -> dict[str, Any]:
    kind = TYPES.get(status, "invalid_request_error")
    return {"error": {"message": message, "type": kind, "param": None, "code": CODES.get(status)}}


def _text(content: Any) -> str:
    return content if isinstance(content, str) else " ".join(part.get("text", "") for part in content)
