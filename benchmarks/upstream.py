"""An engine that takes almost no CPU time: Ollama's API with responses prepared in advance.

The name of the model is its mode and its number of tokens:

``flood:100``
    All lines at once, each in its own chunk and write.
``paced:100``
    A line every 20 ms.
``hold:1``
    The tokens, then nothing until the client disconnects.

Run it as ``python -m benchmarks.upstream PORT``.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import sys
from typing import Any, cast

from .engine_wire import chunked, lines, parse_model, plain_answer

__all__ = ["PACE_SECONDS", "main"]

PACE_SECONDS = 0.02

_DATE = b"Date: Sun, 22 Nov 2026 10:05:49 GMT\r\n"
_STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\n"
    + _DATE
    + b"Transfer-Encoding: chunked\r\n\r\n"
)


def _whole(status: bytes, body: bytes) -> bytes:
    head = b"HTTP/1.1 %b\r\nContent-Type: application/json; charset=utf-8\r\n%bContent-Length: %d"
    return head % (status, _DATE, len(body)) + b"\r\n\r\n" + body


_OTHER_ANSWERS = {
    b"GET /api/version": _whole(b"200 OK", b'{"version":"0.32.2"}'),
    b"GET /api/tags": _whole(b"200 OK", b'{"models":[]}'),
}
_NOT_FOUND = _whole(b"404 Not Found", b'{"error":"not found"}')


class Upstream(asyncio.Protocol):
    """A keep-alive connection, whose client sends a request after the previous response."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._received = bytearray()
        self._answer: _Answer | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's are not subclasses of it.
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, error: Exception | None) -> None:
        if self._answer is not None:
            self._answer.stop()

    def pause_writing(self) -> None:
        if self._answer is not None:
            self._answer.pause()

    def resume_writing(self) -> None:
        if self._answer is not None:
            self._answer.resume()

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, separator, rest = bytes(self._received).partition(b"\r\n\r\n")
        if not separator:
            return
        length = _content_length(head)
        if len(rest) < length:
            return
        self._received = bytearray(rest[length:])
        self._respond(head, rest[:length])

    def _respond(self, head: bytes, body: bytes) -> None:
        method, path, _ = head.split(b" ", 2)
        route = method + b" " + path
        if route != b"POST /api/chat":
            self._transport.write(_OTHER_ANSWERS.get(route, _NOT_FOUND))
            return
        request: dict[str, Any] = json.loads(body)
        model: str = request["model"]
        if not request.get("stream", True):
            self._transport.write(_whole(b"200 OK", plain_answer(model)))
            return
        self._answer = _Answer(self._loop, self._transport, model)


class _Answer:
    """A stream. It has no task but schedules one callback for each line."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, transport: asyncio.Transport, model: str
    ) -> None:
        self._loop = loop
        self._transport = transport
        mode, count = parse_model(model)
        self._pieces = _pieces(model)
        self._lines = len(self._pieces) - 1
        if mode == "hold":
            self._pieces = self._pieces[:count]
        self._pace = PACE_SECONDS if mode == "paced" else 0.0
        self._started = loop.time()
        self._next = 0
        self._paused = False
        self._handle: asyncio.Handle = loop.call_soon(self._write)

    def stop(self) -> None:
        self._handle.cancel()

    def pause(self) -> None:
        self._paused = True

    def resume(self) -> None:
        self._paused = False
        self._handle.cancel()
        self._handle = self._loop.call_soon(self._write)

    def _write(self) -> None:
        if self._next == len(self._pieces):
            return
        self._transport.write(self._pieces[self._next])
        self._next += 1
        if self._paused or self._next == len(self._pieces):
            return
        # Only lines have a pace, not the end of the body.
        if self._pace and self._next < self._lines:
            # Relative to the start, so that delays do not add up.
            due = self._started + self._next * self._pace
            self._handle = self._loop.call_at(due, self._write)
        else:
            self._handle = self._loop.call_soon(self._write)


_cache: dict[str, tuple[bytes, ...]] = {}


def _pieces(model: str) -> tuple[bytes, ...]:
    """Return the pieces to write. As in Go's server, the head is in one piece with the first
    chunk."""
    if model not in _cache:
        first, *rest = (chunked(line) for line in lines(model))
        _cache[model] = (_STREAM_HEAD + first, *rest, b"0\r\n\r\n")
    return _cache[model]


def _content_length(head: bytes) -> int:
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
        if name.lower() == b"transfer-encoding":
            raise ValueError("A request in chunks is not understood here.")
    return 0


async def _serve(port: int) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Upstream, "127.0.0.1", port, backlog=2048)
    async with server:
        await server.serve_forever()


def main() -> None:
    """Serve until terminated."""
    try:
        factory = importlib.import_module("uvloop").new_event_loop
    except ImportError:
        factory = asyncio.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(_serve(int(sys.argv[1])))


if __name__ == "__main__":
    main()
