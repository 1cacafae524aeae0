"""A browser that leaves a stream: before the last message it ends the work, after it nothing is thrown away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from starlette.responses import StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from components.stream_end import StreamEnd


@pytest.mark.parametrize(
    ("path", "last", "end"),
    [
        ("/gradio_api/queue/data", 'data: {"msg":"close_stream"}\n\n', "whole"),
        ("/gradio_api/queue/data", 'data: {"msg":"heartbeat"}\n\n', "cut off"),
        ("/v1/chat/completions", 'data: {"msg":"close_stream"}\n\n', "cut off"),
    ],
)
def test_leaving_cuts_off_only_a_stream_that_has_more_to_say(path: str, last: str, end: str) -> None:
    assert asyncio.run(end_of_stream(path, last)) == end


async def end_of_stream(path: str, last: str) -> str:
    """Send one message, leave at once, and say how the server's side of the stream ended."""
    sent = asyncio.Event()
    ends: list[str] = []

    async def stream() -> AsyncIterator[str]:
        try:
            yield last
            await asyncio.sleep(0.05)
            ends.append("whole")
        except asyncio.CancelledError:
            ends.append("cut off")
            raise

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await StreamingResponse(stream(), media_type="text/event-stream")(scope, receive, send)

    async def receive() -> Message:
        await sent.wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        if message.get("body"):
            sent.set()

    scope: Scope = {"type": "http", "path": path, "method": "GET", "asgi": {"version": "3.0", "spec_version": "2.3"}}
    async with asyncio.timeout(5):
        await StreamEnd(app)(scope, receive, send)
    return ends[0]
