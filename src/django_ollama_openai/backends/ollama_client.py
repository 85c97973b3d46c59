"""Ollama's official Python client, without its losses.

The client's typed ``chat()`` drops the ids of tool calls, nested JSON schemas and the bytes of
log probabilities, and takes a string image for the path of a file to send. Its line reader breaks
at U+0085 within a text. So the body goes out as it was translated and the lines come back as
Ollama sent them, through the client's own ``httpx`` client: its host, headers and credentials.

``Client._client`` is private: ``pyproject.toml`` pins the range of versions, and
``tests/test_ollama_client.py`` fails when the client changes.
"""

from __future__ import annotations

import socket
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Unpack

import httpcore
import httpx
import ollama
import pydantic_core

from .. import cancellation
from ..exceptions import UpstreamError, UpstreamTimeout, UpstreamUnavailable
from ..translation.ollama_errors import Blame, ollama_error
from ..wire.ndjson import Lines

__all__ = ["AsyncOllamaClient", "InterruptibleTransport", "OllamaClient"]

MAX_ERROR_BYTES = 64 * 2**10
MAX_ANSWER_BYTES = 64 * 2**20


class OllamaClient(ollama.Client):
    """The synchronous client. A read that waits for the engine can be cancelled."""

    def fetch(self, method: str, path: str, body: Any = None, **blame: Unpack[Blame]) -> bytes:
        """The body of the response.

        Raises:
            GatewayError: what a failure means to a client; ``blame`` is what it may name.
        """
        with _failures(), self._client.stream(method, path, content=_encoded(body)) as response:
            if response.status_code != 200:
                raise ollama_error(response.status_code, _first(response.iter_bytes()), **blame)
            content = _first(response.iter_bytes(), MAX_ANSWER_BYTES)
        return _whole(content)

    def stream_lines(self, path: str, body: Any, **blame: Unpack[Blame]) -> Iterator[bytes]:
        """The lines of the response, as they arrive; raises as :meth:`fetch` does."""
        lines = Lines()
        with _failures(), self._client.stream("POST", path, content=_encoded(body)) as response:
            if response.status_code != 200:
                raise ollama_error(response.status_code, _first(response.iter_bytes()), **blame)
            for data in response.iter_bytes():
                yield from lines.feed(data)
            yield from lines.finish()


class AsyncOllamaClient(ollama.AsyncClient):
    """The asynchronous client: the same methods."""

    async def fetch(
        self, method: str, path: str, body: Any = None, **blame: Unpack[Blame]
    ) -> bytes:
        with _failures():
            async with self._client.stream(method, path, content=_encoded(body)) as response:
                if response.status_code != 200:
                    raise ollama_error(response.status_code, await _afirst(response), **blame)
                content = await _afirst(response, MAX_ANSWER_BYTES)
        return _whole(content)

    async def stream_lines(
        self, path: str, body: Any, **blame: Unpack[Blame]
    ) -> AsyncGenerator[bytes]:
        lines = Lines()
        with _failures():
            async with self._client.stream("POST", path, content=_encoded(body)) as response:
                if response.status_code != 200:
                    raise ollama_error(response.status_code, await _afirst(response), **blame)
                async for data in response.aiter_bytes():
                    for line in lines.feed(data):
                        yield line
                for line in lines.finish():
                    yield line


def _encoded(body: Any) -> bytes | None:
    return None if body is None else pydantic_core.to_json(body)


def _first(data: Iterable[bytes], limit: int = MAX_ERROR_BYTES) -> bytes:
    """The body, or as much of it as goes a little over ``limit``."""
    body = bytearray()
    for piece in data:
        body += piece
        if len(body) > limit:
            break
    return bytes(body)


async def _afirst(response: httpx.Response, limit: int = MAX_ERROR_BYTES) -> bytes:
    body = bytearray()
    async for piece in response.aiter_bytes():
        body += piece
        if len(body) > limit:
            break
    return bytes(body)


def _whole(body: bytes) -> bytes:
    if len(body) > MAX_ANSWER_BYTES:
        raise UpstreamError("The engine sent an answer that is too long.")
    return body


@contextmanager
def _failures() -> Iterator[None]:
    """What ``httpx`` raises, as a client is told. Neither host nor port is named."""
    try:
        yield
    except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
        raise UpstreamUnavailable("The engine cannot be reached. Try again later.") from error
    except httpx.TimeoutException as error:
        raise UpstreamTimeout("The engine did not answer in time.") from error
    except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError) as error:
        raise UpstreamError("The connection to the engine broke off.") from error


class InterruptibleTransport(httpx.HTTPTransport):
    """A transport whose blocking reads end when the current work is cancelled.

    ``httpcore`` has a hook for the network it runs on; ``httpx`` does not pass it through.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        pool: Any = self._pool
        pool._network_backend = _InterruptibleNetwork(pool._network_backend)


class _InterruptibleNetwork(httpcore.NetworkBackend):
    def __init__(self, network: httpcore.NetworkBackend) -> None:
        self._network = network

    def connect_tcp(self, *args: Any, **options: Any) -> httpcore.NetworkStream:
        return self._connect(self._network.connect_tcp, *args, **options)

    def connect_unix_socket(self, *args: Any, **options: Any) -> httpcore.NetworkStream:
        return self._connect(self._network.connect_unix_socket, *args, **options)

    def _connect(
        self, connect: Callable[..., httpcore.NetworkStream], *args: Any, **options: Any
    ) -> httpcore.NetworkStream:
        stream: httpcore.NetworkStream | None = None
        try:
            # An attempt is not interrupted: its time limit is short.
            with cancellation.interruptible(lambda: None):
                stream = connect(*args, **options)
        except cancellation.Cancelled:
            if stream is not None:
                stream.close()
            raise
        return _InterruptibleStream(stream)

    def sleep(self, seconds: float) -> None:
        self._network.sleep(seconds)


class _InterruptibleStream(httpcore.NetworkStream):
    def __init__(self, stream: httpcore.NetworkStream) -> None:
        self._stream = stream

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        with cancellation.interruptible(self._shut_down):
            return self._stream.read(max_bytes, timeout)

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        with cancellation.interruptible(self._shut_down):
            self._stream.write(buffer, timeout)

    def close(self) -> None:
        self._stream.close()

    def start_tls(self, *args: Any, **options: Any) -> httpcore.NetworkStream:
        return _InterruptibleStream(self._stream.start_tls(*args, **options))

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)

    def _shut_down(self) -> None:
        """Wake a thread that blocks in this socket; closing it would not."""
        sock = self._stream.get_extra_info("socket")
        # If the engine has closed it already, the reader is awake too. The plain socket's method:
        # an SSLSocket's own would unwrap it under the reader.
        with suppress(OSError):
            socket.socket.shutdown(sock, socket.SHUT_RDWR)
