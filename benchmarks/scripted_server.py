"""A server of OpenAI's chat completions that writes as fast as it is read: `python -m benchmarks.scripted_server`.

It prints its port, and ends when its input does. The bytes are those of OpenAI's API reference, "Streaming".
"""

from __future__ import annotations

import asyncio
import json
import sys

CHUNKS = 200
PAUSE_SECONDS = 0.01
CHUNKS_AT_ONCE = 4
MODELS = {"object": "list", "data": [{"id": "scripted", "object": "model", "created": 0, "owned_by": "benchmark"}]}
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


def _event(delta: dict[str, str], finish_reason: str | None = None, usage: dict[str, int] | None = None) -> bytes:
    body = {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 0,
        "model": "scripted",
        "choices": [] if usage else [{"index": 0, "delta": delta, "finish_reason": finish_reason}],
        "usage": usage,
    }
    return f"data: {json.dumps(body)}\n\n".encode()


WORD = _event({"content": "word "})
END = (
    _event({}, "stop")
    + _event({}, usage={"prompt_tokens": 9, "completion_tokens": CHUNKS, "total_tokens": 9 + CHUNKS})
    + b"data: [DONE]\n\n"
)


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while request := await reader.readuntil(b"\r\n\r\n"):
            length = next(
                (int(line[15:]) for line in request.lower().split(b"\r\n") if line.startswith(b"content-length:")), 0
            )
            await reader.readexactly(length)
            if request.startswith(b"GET"):
                body = json.dumps(MODELS).encode()
                head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
                writer.write(head.encode() + body)
            else:
                await _stream(writer)
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


async def _stream(writer: asyncio.StreamWriter) -> None:
    writer.write(HEAD)
    for _ in range(CHUNKS // CHUNKS_AT_ONCE):
        for _ in range(CHUNKS_AT_ONCE):
            writer.write(_part(WORD))
        await writer.drain()
        await asyncio.sleep(PAUSE_SECONDS)
    writer.write(_part(END) + b"0\r\n\r\n")


def _part(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


async def _serve() -> None:
    server = await asyncio.start_server(_answer, "127.0.0.1", 0, backlog=1000)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(_serve())
