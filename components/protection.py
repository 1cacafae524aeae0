"""What the application needs beside Gradio: headers that keep foreign content out, and one honest status."""

from __future__ import annotations

import re

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, PlainTextResponse
from starlette.datastructures import MutableHeaders
from starlette.routing import Mount
from starlette.types import ASGIApp, Message, Receive, Scope, Send

FOREIGN_FILE = re.compile(r"(/gradio_api)?/(file|proxy)=[a-z]+:", re.IGNORECASE)
ARGUMENT_WORDS = ("key-word argument", "required argument")
HEADERS = {
    "content-security-policy": (
        "img-src 'self' data: blob:; media-src 'self' data: blob:; connect-src 'self'; font-src 'self' data:; "
        "object-src 'none'; frame-src 'none'; form-action 'self'; base-uri 'self'; "
        "frame-ancestors 'self' https://huggingface.co"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
}


class Protection:
    """Adds the headers to every answer, and refuses to fetch other hosts' files through Gradio's file routes."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if FOREIGN_FILE.match(scope["path"]):
            await PlainTextResponse("Forbidden", status_code=403, headers=HEADERS)(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await self._app(scope, receive, send_with_headers)


def refuse_wrong_fields(app: FastAPI) -> None:
    """Answer 422 with a sentence where Gradio 6.31 answers 500: a named call with an unknown or missing field."""
    gradio_app = next(route.app for route in reversed(app.routes) if isinstance(route, Mount))
    assert isinstance(gradio_app, FastAPI)

    async def refuse(_: Request, error: Exception) -> JSONResponse:
        if not any(words in str(error) for words in ARGUMENT_WORDS):
            raise error
        return JSONResponse({"error": {"type": "invalid_fields", "message": str(error)}}, status_code=422)

    gradio_app.add_exception_handler(TypeError, refuse)
