"""Lets Gradio's event streams end in peace, so that an event that begins just then is not thrown away.

Gradio 6.31 (`routes.py`, `sse_stream`) forgets a session's events when the browser leaves its stream. The browser also
leaves after the stream's last message, while the server's end of it still runs; what the person did in that moment,
a message sent or a tab opened, would then never be answered.
"""

from __future__ import annotations

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send

LAST_MESSAGE = b'"msg":"close_stream"'


class StreamEnd:
    """Keeps a browser's leaving from a stream that has already said its last message."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].endswith("/queue/data"):
            await self._app(scope, receive, send)
            return
        ended = False

        async def receive_until_ended() -> Message:
            message = await receive()
            if ended and message["type"] == "http.disconnect":
                await asyncio.Event().wait()  # Cancelled by the response when it is whole.
            return message

        async def send_and_look(message: Message) -> None:
            nonlocal ended
            ended = ended or LAST_MESSAGE in message.get("body", b"")
            await send(message)

        await self._app(scope, receive_until_ended, send_and_look)
