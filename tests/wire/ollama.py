"""Ollama's API.

Source, read on 2026-11-24: https://docs.ollama.com/api/chat, https://docs.ollama.com/api/tags,
https://docs.ollama.com/api-reference/show-model-details, https://docs.ollama.com/api/pull,
https://docs.ollama.com/api/embed, https://docs.ollama.com/api/errors. An error inside a stream is a line with nothing
but its text. A prompt that is longer than `num_ctx` is shortened without a word.
"""

from __future__ import annotations

from typing import Any

from tests.wire import talker
from tests.wire.protocol import Reply, Streamed, WireProtocol, WireRequest, compact, json_reply

NAME = f"{talker.MODEL}:latest"
HEAD = {"model": NAME, "created_at": "2026-11-24T12:00:00.000000Z"}
DIGEST = "sha256:2af3b81862c6be03c769683af18efdadb2c33f60ff32ab6f83e42c043d6c7816"
SIZE = 4000


class OllamaWire(WireProtocol):
    """`/api/chat`, `/api/tags`, `/api/show`, `/api/pull`, `/api/embed` and `/api/version`."""

    name = "ollama"

    def is_chat(self, request: WireRequest) -> bool:
        return request.path == "/api/chat"

    def reply(self, request: WireRequest) -> Reply | Streamed:
        body = request.body or {}
        if "model" in body and request.path != "/api/pull" and body["model"] not in (talker.MODEL, NAME):
            return self.model_missing(body["model"])
        match request.path:
            case "/api/version":
                return json_reply({"version": "0.40.12"})
            case "/api/tags":
                return json_reply({"models": [_listed()]})
            case "/api/show":
                return json_reply(_shown())
            case "/api/chat":
                return self._chat(body)
            case "/api/embed":
                return json_reply({"model": NAME, "embeddings": [talker.embedding(text) for text in body["input"]]})
            case "/api/pull":
                return self._pull(body)
        return Reply(b"404 page not found", 404, "text/plain")

    def failure(self, status: int, message: str) -> Reply:
        return json_reply({"error": message}, status)

    def failure_inside(self, status: int, message: str) -> bytes:
        return compact({"error": message}) + b"\n"

    def empty(self, request: WireRequest) -> Streamed:
        return Streamed("application/x-ndjson", [_line(message={"role": "assistant", "content": ""})], [], [])

    def model_missing(self, model: str) -> Reply:
        return self.failure(404, f"model '{model}' not found")

    def _chat(self, body: Any) -> Streamed:
        options = body.get("options") or {}
        asked = talker.Asked(
            texts=tuple(message["content"] for message in body["messages"]),
            max_tokens=options.get("num_predict"),
            temperature=options.get("temperature"),
            seed=options.get("seed"),
            stop=tuple(options.get("stop") or ()),
        )
        try:
            answer = talker.answer(asked)
        except talker.PromptTooLong:
            shortened = tuple(text[-talker.CONTEXT // 2 :] for text in asked.texts[-1:])
            answer = talker.answer(talker.Asked(shortened, asked.max_tokens, asked.temperature, asked.seed, asked.stop))
        end = {
            "done": True,
            "done_reason": answer.reason,
            "total_duration": 4883583458,
            "load_duration": 1334875,
            "prompt_eval_count": answer.prompt_tokens,
            "prompt_eval_duration": 342546000,
            "eval_count": answer.completion_tokens,
            "eval_duration": 4535599000,
        }
        return Streamed(
            content_type="application/x-ndjson",
            opening=[],
            pieces=[_line(message={"role": "assistant", "content": piece}) for piece in answer.pieces],
            closing=[_line(message={"role": "assistant", "content": ""}, **end)],
        )

    def _pull(self, body: Any) -> Streamed:
        if body["model"] not in (talker.MODEL, NAME):
            return Streamed(
                "application/x-ndjson",
                [compact({"status": "pulling manifest"}) + b"\n"],
                [],
                [self.failure_inside(500, "pull model manifest: file does not exist")],
            )
        steps: list[dict[str, Any]] = [
            {"status": "pulling manifest"},
            *(
                {"status": f"pulling {DIGEST[7:19]}", "digest": DIGEST, "total": SIZE, "completed": done}
                for done in (0, SIZE // 2, SIZE)
            ),
            {"status": "verifying sha256 digest"},
            {"status": "writing manifest"},
            {"status": "success"},
        ]
        return Streamed("application/x-ndjson", [compact(step) + b"\n" for step in steps], [], [])


def _line(**content: Any) -> bytes:
    return compact(HEAD | {"done": False} | content) + b"\n"


def _details() -> dict[str, Any]:
    return {
        "parent_model": "",
        "format": "gguf",
        "family": "llama",
        "families": ["llama"],
        "parameter_size": "5.2M",
        "quantization_level": "Q8_0",
    }


def _listed() -> dict[str, Any]:
    return {
        "name": NAME,
        "model": NAME,
        "modified_at": "2026-11-20T10:00:00.000000Z",
        "size": SIZE,
        "digest": DIGEST[7:],
        "details": _details(),
    }


def _shown() -> dict[str, Any]:
    return {
        "license": "",
        "modelfile": f"FROM {NAME}",
        "parameters": "",
        "template": "{{ .Prompt }}",
        "details": _details(),
        "model_info": {"general.architecture": "llama", "llama.context_length": talker.CONTEXT},
        "capabilities": ["completion", "embedding"],
        "modified_at": "2026-11-20T10:00:00.000000Z",
    }
