"""A server on loopback that speaks one protocol, and that breaks in the way that the next calls are scripted to."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.wire.protocol import Reply, Streamed, WireProtocol, WireRequest

PAUSE_SECONDS = 0.002
FOREVER = 3600.0


@dataclass(frozen=True)
class Status:
    """Refuse with a status and the vendor's own form of an error."""

    status: int
    message: str = "scripted"
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Inside:
    """Tell an error in the vendor's own way after some pieces of the answer."""

    status: int
    message: str = "scripted"
    after: int = 3


@dataclass(frozen=True)
class Silence:
    """Say nothing any more after some pieces; before the first byte where it is none."""

    after: int = 0


@dataclass(frozen=True)
class Cut:
    """Close the connection after some pieces, or within a character of several bytes."""

    after: int = 3
    within_a_character: bool = False


@dataclass(frozen=True)
class Ends:
    """End the response in good order after some pieces, but without the end that the protocol has."""

    after: int = 3


@dataclass(frozen=True)
class Body:
    """Answer with these bytes and status 200."""

    body: bytes
    content_type: str


@dataclass(frozen=True)
class HangUp:
    """Close the connection without a byte; with `reset`, as a machine does on which nobody reads any more."""

    reset: bool = False


@dataclass(frozen=True)
class Empty:
    """Answer with frames that hold nothing."""


Fault = Status | Inside | Silence | Cut | Ends | Body | Empty | HangUp


class WireServer:
    """What was asked of it, what it does next, and how many answers it is writing now.

    `faults` happen to the next requests for an answer, `other_faults` to the next others, such as the list of models.
    """

    def __init__(self, protocol: WireProtocol, port: int = 0) -> None:
        self.protocol = protocol
        self.requests: list[WireRequest] = []
        self.faults: deque[Fault] = deque()
        self.other_faults: deque[Fault] = deque()
        self.open_streams = 0
        self.keeps_connections = True
        # Named as TCP, or asyncio leaves Nagle's delay on.
        self._listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind(("127.0.0.1", port))
        self._listener.listen()  # The first to connect waits for the server then, instead of being refused.
        self.port: int = self._listener.getsockname()[1]
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name=f"wire-{protocol.name}")
        self._stopped = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        """The base address, as it is configured."""
        return f"http://127.0.0.1:{self.port}{self.protocol.base_path}"

    @property
    def chats(self) -> list[WireRequest]:
        """The requests that asked for an answer."""
        return [request for request in self.requests if self.protocol.is_chat(request)]

    def start(self) -> None:
        """Serve from now on."""
        self._thread.start()

    def stop(self) -> None:
        """End every connection and free the port; a second time does nothing."""
        if not self._thread.is_alive():
            return
        self._loop.call_soon_threadsafe(self._stopped.set)
        self._thread.join(10)
        assert not self._thread.is_alive(), "the wire server did not stop"

    def _run(self) -> None:
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._connected, sock=self._listener)
        await self._stopped.wait()
        server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = self._loop.create_task(self._talk(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while request := await _request(reader):
                self.requests.append(request)
                if not await self._answer(request, reader, writer) or not self.keeps_connections:
                    return
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.transport.abort()

    async def _answer(self, request: WireRequest, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer one request; say whether the connection goes on."""
        waiting = self.faults if self.protocol.is_chat(request) else self.other_faults
        fault = waiting.popleft() if waiting else None
        if isinstance(fault, Status):
            failure = self.protocol.failure(fault.status, fault.message)
            return await self._reply(writer, Reply(failure.body, fault.status, failure.content_type, fault.headers))
        if isinstance(fault, HangUp):
            if fault.reset:
                at_once = struct.pack("ii", 1, 0)
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, at_once)
            return False
        if isinstance(fault, Body):
            return await self._reply(writer, Reply(fault.body, 200, fault.content_type))
        reply = self.protocol.empty(request) if isinstance(fault, Empty) else self.protocol.reply(request)
        if isinstance(reply, Reply):
            return await self._reply(writer, reply)
        self.open_streams += 1
        try:
            return await self._stream(reply, fault, reader, writer)
        finally:
            self.open_streams -= 1

    async def _stream(
        self, reply: Streamed, fault: Fault | None, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        if fault == Silence():
            await _until_closed(reader)
            return False
        self._head(writer, 200, {"content-type": reply.content_type, "transfer-encoding": "chunked"})
        count = fault.after if isinstance(fault, Inside | Silence | Cut | Ends) else len(reply.pieces)
        for frame in (*reply.opening, *reply.pieces[:count]):
            _part(writer, frame)
            await writer.drain()
            await asyncio.sleep(PAUSE_SECONDS)
        match fault:
            case Inside():
                _part(writer, self.protocol.failure_inside(fault.status, fault.message))
            case Silence():
                await _until_closed(reader)
                return False
            case Ends():
                pass
            case Cut():
                if fault.within_a_character:
                    _part(writer, _half_of_a_character(reply.pieces[count:]))
                await writer.drain()
                await asyncio.sleep(PAUSE_SECONDS)
                return False
            case _:
                for frame in reply.closing:
                    _part(writer, frame)
        writer.write(b"0\r\n\r\n")
        await writer.drain()
        return True

    async def _reply(self, writer: asyncio.StreamWriter, reply: Reply) -> bool:
        headers = {"content-type": reply.content_type, "content-length": str(len(reply.body)), **reply.headers}
        self._head(writer, reply.status, headers)
        writer.write(reply.body)
        await writer.drain()
        return True

    def _head(self, writer: asyncio.StreamWriter, status: int, headers: Mapping[str, str]) -> None:
        kept = {} if self.keeps_connections else {"connection": "close"}
        lines = [f"HTTP/1.1 {status} Scripted", *(f"{name}: {value}" for name, value in {**headers, **kept}.items())]
        writer.write("\r\n".join([*lines, "", ""]).encode())


@contextmanager
def wire_server(protocol: WireProtocol, port: int = 0) -> Iterator[WireServer]:
    """Serve until the block ends."""
    server = WireServer(protocol, port)
    server.start()
    try:
        yield server
    finally:
        server.stop()


def _half_of_a_character(pieces: Sequence[bytes]) -> bytes:
    """Return the first piece with a character of several bytes, up to the first of these."""
    piece = next(piece for piece in pieces if not piece.isascii())
    return piece[: next(place for place, byte in enumerate(piece) if byte >= 0x80) + 1]


async def _request(reader: asyncio.StreamReader) -> WireRequest | None:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    line, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (each.partition(":") for each in lines) if name}
    data = await reader.readexactly(int(headers.get("content-length", 0)))
    method, target, _ = line.split(" ")
    body = None
    with contextlib.suppress(ValueError):
        body = json.loads(data)
    return WireRequest(method, target.split("?")[0], headers, body)


async def _until_closed(reader: asyncio.StreamReader) -> None:
    with contextlib.suppress(ConnectionError):
        async with asyncio.timeout(FOREVER):
            await reader.read()


def _part(writer: asyncio.StreamWriter, data: bytes) -> None:
    writer.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
