"""Ollama's official Python client, used for its connection only.

The client's typed ``chat()`` drops the ids of tool calls, nested JSON schemas and the bytes of
log probabilities, and takes a string image for the path of a file to send. Its line reader breaks
at U+0085 within a text. So bodies go out as they were translated and lines come back as Ollama
sent them, through the client's own ``httpx`` client: its host, headers and credentials.

``Client._client`` is private, and used nowhere else: ``pyproject.toml`` caps the version.
"""

from __future__ import annotations

from typing import Any

import ollama

from .._translation.ollama_errors import ollama_error
from .._wire.ndjson import Lines
from ._http_client import AsyncHTTPClient, HTTPClient, RequestFactory

__all__ = ["AsyncOllamaClient", "OllamaClient"]


class OllamaClient(HTTPClient, ollama.Client):
    """The synchronous client; takes the arguments of :class:`ollama.Client`."""

    reader = Lines
    failure = staticmethod(ollama_error)

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._requests = RequestFactory(self._client)


class AsyncOllamaClient(AsyncHTTPClient, ollama.AsyncClient):
    """The asynchronous client; takes the arguments of :class:`ollama.AsyncClient`."""

    reader = Lines
    failure = staticmethod(ollama_error)

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._requests = RequestFactory(self._client)
