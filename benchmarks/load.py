"""The load generator, which uses raw keep-alive connections and checks all responses.

It runs in a process of its own: ``python -m benchmarks.load JOB`` runs a :class:`Job` in JSON and
prints a :class:`Result` in JSON. A job that holds its streams open prints ``open`` once all of them
have begun, and closes them when its standard input is closed. A response that differs from the
engine's output is an error.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import re
import sys
import time
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from . import engine_wire

__all__ = ["Dialect", "Job", "Result", "main"]

Dialect: TypeAlias = Literal["openai", "ollama", "responses", "session"]


@dataclass(frozen=True)
class Job:
    """A number of requests, ``at_a_time`` of them concurrently.

    ``path`` may contain ``{number}``, the number of the request, which is counted from ``first``
    on. ``fields`` are further fields of each request.
    """

    port: int
    path: str
    key: str
    dialect: Dialect
    mode: str
    tokens: int
    stream: bool
    requests: int
    at_a_time: int
    fields: dict[str, Any] = field(default_factory=dict)
    first: int = 0

    @property
    def model(self) -> str:
        return engine_wire.model_name(self.mode, self.tokens)


@dataclass
class Result:
    """Times in seconds; ``elapsed`` is from the first request to the end of the last response."""

    elapsed: float
    durations: list[float]
    first_tokens: list[float]


class WrongAnswer(Exception):
    """A response differs from the engine's output."""


@dataclass
class Exchange:
    """A request and its response, as raw bytes."""

    started: float
    received: bytearray = field(default_factory=bytearray)
    first_token: float | None = None
    ended: float | None = None


_CONTENT = re.compile(rb'"(?:content|delta)": ?"[^"]')


class Connection(asyncio.Protocol):
    """A connection, for one request at a time."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._exchange: Exchange | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._length: int | None = None
        self._until_first = False
        self._surplus = b""
        self.closed = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    async def exchange(self, request: bytes, until_first: bool = False) -> Exchange:
        """Send ``request``, and return at the end of the response, or at its first token."""
        self.check()
        self._waiter = self._loop.create_future()
        self._length = None
        self._until_first = until_first
        self._exchange = exchange = Exchange(time.perf_counter())
        self._transport.write(request)
        await self._waiter
        return exchange

    def close(self) -> None:
        self._transport.abort()
        self.check()

    def check(self) -> None:
        """Check that there is no data after the response."""
        if self._surplus:
            raise WrongAnswer(f"More than the answer: {self._surplus!r}")

    def data_received(self, data: bytes) -> None:
        exchange = self._exchange
        if exchange is None:
            self._surplus += data
            return
        received = exchange.received
        received += data
        if exchange.first_token is None and _CONTENT.search(received):
            exchange.first_token = time.perf_counter()
            if self._until_first:
                self._wake()
                return
        if self._length is None:
            end = received.find(b"\r\n\r\n")
            if end < 0:
                return
            found = re.search(rb"(?i)\r\ncontent-length: *(\d+)", received[:end])
            self._length = end + 4 + int(found[1]) if found else -1
        if (
            len(received) >= self._length
            if self._length >= 0
            else received.endswith(b"\r\n0\r\n\r\n")
        ):
            exchange.ended = time.perf_counter()
            self._exchange = None
            self._wake()

    def connection_lost(self, error: Exception | None) -> None:
        self.closed = True
        if self._waiter is not None and not self._waiter.done():
            received = bytes(self._exchange.received) if self._exchange else b""
            self._waiter.set_exception(WrongAnswer(f"The connection broke off: {received!r}"))

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


async def _connect(job: Job) -> Connection:
    loop = asyncio.get_running_loop()
    _, connection = await loop.create_connection(Connection, "127.0.0.1", job.port)
    return connection


def _request(job: Job, number: int) -> bytes:
    question = {"role": "user", "content": "Say hello, and what you are supposed to be."}
    messages = [{"role": "system", "content": "You are a helpful assistant."}, question]
    name = "input" if job.dialect == "responses" else "messages"
    fields = question if job.dialect == "session" else {name: messages}
    payload = {"model": job.model, **fields, "stream": job.stream, **job.fields}
    body = json.dumps(payload).encode()
    path = job.path.format(number=job.first + number)
    head = (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{job.port}\r\n"
        f"Authorization: Bearer {job.key}\r\nContent-Type: application/json\r\n"
        f"Accept: */*\r\nUser-Agent: benchmark\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def _run(job: Job) -> Result:
    """Send all requests of ``job``, over one connection for each concurrent request."""
    requests = (_request(job, number) for number in range(job.requests))
    exchanges: list[Exchange] = []
    connections = [await _connect(job) for _ in range(job.at_a_time)]

    async def work(connection: Connection) -> None:
        for request in requests:
            if connection.closed:
                connection = await _connect(job)
            exchanges.append(await connection.exchange(request))
        connection.close()

    started = time.perf_counter()
    await asyncio.gather(*map(work, connections))
    elapsed = time.perf_counter() - started
    for exchange in exchanges:
        _check(job, exchange)
    return Result(
        elapsed,
        [(exchange.ended or 0.0) - exchange.started for exchange in exchanges],
        [(exchange.first_token or 0.0) - exchange.started for exchange in exchanges],
    )


async def _hold(job: Job) -> Result:
    """Open all streams, one after the other, and hold them until standard input is closed."""
    started = time.perf_counter()
    connections, exchanges = [], []
    for number in range(job.requests):
        connections.append(connection := await _connect(job))
        exchanges.append(await connection.exchange(_request(job, number), until_first=True))
    for exchange in exchanges:
        if not exchange.received.startswith(b"HTTP/1.1 200 "):
            raise WrongAnswer(f"Not a stream: {bytes(exchange.received)!r}")
    elapsed = time.perf_counter() - started
    print("open", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    if any(connection.closed for connection in connections):
        raise WrongAnswer("Streams that should have been held open have ended.")
    for connection in connections:
        connection.close()
    first = [(exchange.first_token or 0.0) - exchange.started for exchange in exchanges]
    return Result(elapsed, [], first)


# Expected responses


def _check(job: Job, exchange: Exchange) -> None:
    head, _, body = bytes(exchange.received).partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200 "):
        raise WrongAnswer(f"Not a 200: {bytes(exchange.received)!r}")
    if b"\r\ntransfer-encoding: chunked" in head.lower():
        body = _dechunked(body)
    parts = _parts(job, body)
    said = [content for part in parts if (content := _content(job, part))]
    expected = engine_wire.tokens(job.tokens)
    if not job.stream:
        expected = ["".join(expected)]
    if said != expected:
        raise WrongAnswer(f"{len(said)} pieces came of {len(expected)}: {said!r}")


def _dechunked(body: bytes) -> bytes:
    data, position = bytearray(), 0
    while True:
        end = body.index(b"\r\n", position)
        size = int(body[position:end], 16)
        if size == 0:
            return bytes(data)
        data += body[end + 2 : end + 2 + size]
        position = end + 2 + size + 2


def _parts(job: Job, body: bytes) -> list[Any]:
    if not job.stream:
        return [json.loads(body)]
    if job.dialect == "ollama":
        return [json.loads(line) for line in body.splitlines()]
    if job.dialect == "responses":
        parts = [json.loads(event) for event in re.findall(rb"^data: (.*)$", body, re.MULTILINE)]
        if parts[-1]["type"] not in ("response.completed", "response.incomplete"):
            raise WrongAnswer(f"The stream does not end with the response but {body[-80:]!r}")
        return parts
    events = body.removesuffix(b"data: [DONE]\n\n")
    if events == body:
        raise WrongAnswer(f"The stream does not end with [DONE] but with {body[-80:]!r}")
    return [json.loads(event.removeprefix(b"data: ")) for event in events.split(b"\n\n")[:-1]]


def _content(job: Job, part: Any) -> str | None:
    if job.dialect == "ollama":
        content: str | None = part["message"]["content"]
        return content
    if job.dialect == "responses":
        if job.stream:
            return part["delta"] if part["type"] == "response.output_text.delta" else None
        text: str = part["output"][-1]["content"][0]["text"]
        return text
    if not part["choices"]:
        return None
    choice = part["choices"][0]
    content = choice["delta" if job.stream else "message"].get("content")
    return content


def main() -> None:
    """Run the job on the command line."""
    job = Job(**json.loads(sys.argv[1]))
    result = asyncio.run(_hold(job) if job.mode == "hold" else _run(job))
    print(json.dumps(dataclasses.asdict(result)))


if __name__ == "__main__":
    main()
