"""A script that runs before Gradio's own: Gradio 6.31 adds `head=` only after it has chosen language and colours."""

from __future__ import annotations

import gzip

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send


class FirstScript:
    """Puts a script at the beginning of the page's head."""

    def __init__(self, app: ASGIApp, script: str) -> None:
        self._app = app
        self._script = f"<head><script>{script}</script>".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] != "/" or scope["method"] != "GET":
            await self._app(scope, receive, send)
            return
        compress = "gzip" in Headers(scope=scope).get("accept-encoding", "")
        plain = [(name, value) for name, value in scope["headers"] if name != b"accept-encoding"]
        start: Message = {}
        body = bytearray()

        async def send_page(message: Message) -> None:
            if message["type"] == "http.response.start":
                start.update(message)
                return
            body.extend(message.get("body", b""))
            if message.get("more_body"):
                return
            page = bytes(body).replace(b"<head>", self._script, 1)
            headers = MutableHeaders(raw=start["headers"])
            if compress:
                page = gzip.compress(page)
                headers["content-encoding"] = "gzip"
                headers.add_vary_header("accept-encoding")
            headers["content-length"] = str(len(page))
            await send(start)
            await send({"type": "http.response.body", "body": page})

        await self._app({**scope, "headers": plain}, receive, send_page)
