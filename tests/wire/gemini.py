"""Google's Gemini API, v1beta.

Source, read on 2026-11-24: https://ai.google.dev/api/generate-content, https://ai.google.dev/api/tokens,
https://ai.google.dev/api/embeddings, https://ai.google.dev/api/models, and for the errors
https://ai.google.dev/gemini-api/docs/troubleshooting and google.rpc.RetryInfo
(https://cloud.google.com/apis/design/errors).
"""

from __future__ import annotations

from typing import Any

from tests.wire import talker
from tests.wire.protocol import Reply, Streamed, WireProtocol, WireRequest, json_reply, sse

STATUS = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    503: "UNAVAILABLE",
}
REASONS = {"length": "MAX_TOKENS", "stop": "STOP"}
PATH = f"/v1beta/models/{talker.MODEL}"


class GeminiWire(WireProtocol):
    """`models`, `streamGenerateContent`, `countTokens` and `batchEmbedContents`."""

    name = "gemini"

    def is_chat(self, request: WireRequest) -> bool:
        return request.path.endswith(":streamGenerateContent")

    def reply(self, request: WireRequest) -> Reply | Streamed:
        match request.path:
            case "/v1beta/models":
                return json_reply({"models": [_listed()]})
            case path if path == f"{PATH}:streamGenerateContent":
                return self._generate(request.body)
            case path if path == f"{PATH}:countTokens":
                return json_reply({"totalTokens": talker.count(_texts(request.body))})
            case path if path == f"{PATH}:batchEmbedContents":
                texts = [_text(each["content"]) for each in request.body["requests"]]
                return json_reply({"embeddings": [{"values": talker.embedding(text)} for text in texts]})
        return self.model_missing(request.path.rpartition("/")[2].partition(":")[0])

    def failure(self, status: int, message: str) -> Reply:
        return json_reply(_error(status, message), status)

    def failure_inside(self, status: int, message: str) -> bytes:
        return sse(_error(status, message))

    def empty(self, request: WireRequest) -> Streamed:
        return Streamed("text/event-stream", [sse({"candidates": [], "modelVersion": talker.MODEL})], [], [])

    def model_missing(self, model: str) -> Reply:
        said = f"models/{model} is not found for API version v1beta, or is not supported for generateContent."
        return self.failure(404, said)

    def _generate(self, body: Any) -> Reply | Streamed:
        config = body.get("generationConfig") or {}
        try:
            answer = talker.answer(
                talker.Asked(
                    texts=_texts(body),
                    max_tokens=config.get("maxOutputTokens"),
                    temperature=config.get("temperature"),
                    seed=config.get("seed"),
                    stop=tuple(config.get("stopSequences") or ()),
                )
            )
        except talker.PromptTooLong as error:
            message = (
                f"The input token count ({error.tokens}) exceeds the maximum number of tokens allowed "
                f"({talker.CONTEXT})."
            )
            return self.failure(400, message)
        pieces = [_chunk(piece, answer, place + 1) for place, piece in enumerate(answer.pieces)]
        last = _chunk("", answer, answer.completion_tokens, REASONS[answer.reason])
        return Streamed("text/event-stream", [], pieces, [last])


def _listed() -> dict[str, Any]:
    return {
        "name": f"models/{talker.MODEL}",
        "version": "001",
        "displayName": "Talker",
        "inputTokenLimit": talker.CONTEXT,
        "outputTokenLimit": talker.CONTEXT,
        "supportedGenerationMethods": ["generateContent", "countTokens", "embedContent"],
    }


def _chunk(text: str, answer: talker.Answer, written: int, reason: str | None = None) -> bytes:
    candidate: dict[str, Any] = {"content": {"parts": [{"text": text}], "role": "model"}, "index": 0}
    usage = {
        "promptTokenCount": answer.prompt_tokens,
        "candidatesTokenCount": written,
        "totalTokenCount": answer.prompt_tokens + written,
    }
    return sse(
        {
            "candidates": [candidate | ({"finishReason": reason} if reason else {})],
            "usageMetadata": usage,
            "modelVersion": talker.MODEL,
            "responseId": "r1",
        }
    )


def _error(status: int, message: str) -> dict[str, Any]:
    return {"error": {"code": status, "message": message, "status": STATUS.get(status, "UNKNOWN"), "details": []}}


def _texts(body: Any) -> tuple[str, ...]:
    told = [body["systemInstruction"]] if body.get("systemInstruction") else []
    return tuple(_text(content) for content in [*told, *body["contents"]])


def _text(content: Any) -> str:
    return " ".join(part.get("text", "") for part in content["parts"])
