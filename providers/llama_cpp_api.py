"""OpenAI's protocol to our own llama.cpp process, read without the official client.

On a processor every microsecond between two tokens is taken from the engine itself, and the client's typed objects cost
ten times what reading the JSON does. Source: llama.cpp's server (tools/server/README.md of its repository).
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any

from providers.base import Provider
from providers.http_client import HttpClient
from providers.openai import REASONS, OpenAIProvider, reason_in
from providers.types import (
    ChatRequest,
    Finished,
    ProviderSettings,
    ReasoningDelta,
    StreamEvent,
    TextDelta,
    TokenLogprob,
    Usage,
)

DATA = "data: "
DONE = "[DONE]"


class LlamaCppApi(OpenAIProvider):
    """Asks a llama.cpp process of ours, on a new connection each time: its server closes kept ones without notice."""

    def __init__(self, settings: ProviderSettings, others: Callable[[str], Provider]) -> None:
        super().__init__(settings, others)
        self._http = HttpClient(settings.timeouts, self.info.base_url, kept_connections=0)

    async def _events(self, request: ChatRequest) -> AsyncGenerator[StreamEvent, None]:
        usage, reason = Usage(0, 0), None
        body = self._body(request)
        # Only when it writes does llama.cpp notice that nobody listens any more; so it reports while it reads a prompt.
        body |= {"return_progress": True, **body.pop("extra_body", {})}
        headers = {"Authorization": f"Bearer {self._key}"}
        url = f"{self.info.base_url}/chat/completions"
        async with self._http.get().stream("POST", url, json=body, headers=headers) as response:
            if response.status_code != 200:
                raise self._refused(response.status_code, reason_in(response.text))
            async for line in response.aiter_lines():
                if not line.startswith(DATA) or line.endswith(DONE):
                    continue
                chunk = json.loads(line[len(DATA) :])
                if "error" in chunk:
                    raise self._refused(int(chunk["error"].get("code") or 500), str(chunk["error"].get("message")))
                for choice in chunk.get("choices") or ():
                    delta = choice["delta"]
                    if thought := delta.get("reasoning_content"):
                        yield ReasoningDelta(thought)
                    if text := delta.get("content"):
                        yield TextDelta(text, _logprobs(choice) if choice.get("logprobs") else ())
                    reason = choice.get("finish_reason") or reason
                if counted := chunk.get("usage"):
                    usage = Usage(counted["prompt_tokens"], counted["completion_tokens"])
        if reason:
            yield Finished(REASONS.get(reason, "stop"), usage)

    async def embed(self, texts: Sequence[str], model: str) -> list[list[float]]:
        try:
            answer = await self._post("v1/embeddings", {"model": model, "input": list(texts)})
        except Exception as error:
            raise self._translated(error) from self._cause(error)
        return [row["embedding"] for row in sorted(answer["data"], key=lambda row: row["index"])]


def _logprobs(choice: dict[str, Any]) -> tuple[TokenLogprob, ...]:
    return tuple(
        TokenLogprob(
            token["token"],
            token["logprob"],
            tuple((top["token"], top["logprob"]) for top in token.get("top_logprobs") or ()),
        )
        for token in choice["logprobs"].get("content") or ()
    )
