"""Ollama's official Python client, without its losses.

The client's typed ``chat()`` drops the ids of tool calls, nested JSON schemas and the bytes of
log probabilities, and takes a string image for the path of a file to send. Its line reader breaks
at U+0085 within a text. So the body goes out as it was translated and the lines come back as
Ollama sent them, through the client's own ``httpx`` client: its host, headers and credentials.

``Client._client`` is private: ``pyproject.toml`` pins the range of versions, and
``tests/site/test_ollama_client.py`` fails when the client changes.
"""

from __future__ import annotations

from typing import Any

import httpx
import ollama

from .._translation.ollama_errors import ollama_error
from .._wire.ndjson import Lines
from ._http_client import AsyncHTTPClient, HTTPClient, Requests, adds_nothing

__all__ = ["AsyncOllamaClient", "OllamaClient"]


class OllamaClient(HTTPClient, ollama.Client):
    """The synchronous client. A read that waits for Ollama can be cancelled."""

    reader = Lines
    failure = staticmethod(ollama_error)

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._requests = Requests(self._client)


class AsyncOllamaClient(AsyncHTTPClient, ollama.AsyncClient):
    """The asynchronous client: the same methods."""

    reader = Lines
    failure = staticmethod(ollama_error)

    def __init__(
        self,
        host: str | None = None,
        *,
        transport: httpx.AsyncBaseTransport | None = None,
        **options: Any,
    ) -> None:
        super().__init__(host, transport=transport, **options)
        self._requests = Requests(self._client)
        self._direct = transport if adds_nothing(options) else None
