"""Clients for an engine that speaks OpenAI's API.

Not OpenAI's own: it would read the answers into its models, count on fields that other engines do
not send, and ask again by itself.
"""

from __future__ import annotations

from typing import Any

import httpx

from .._translation.openai_errors import openai_error
from .._wire.event_stream import Events
from ._http_client import AsyncHTTPClient, HTTPClient, Requests, adds_nothing

__all__ = ["AsyncOpenAIClient", "OpenAIClient"]


class OpenAIClient(HTTPClient):
    """The synchronous client; ``options`` are those of :class:`httpx.Client`."""

    reader = Events
    failure = staticmethod(openai_error)

    def __init__(self, base_url: str, **options: Any) -> None:
        self._client = httpx.Client(base_url=base_url, **options)
        self._requests = Requests(self._client)


class AsyncOpenAIClient(AsyncHTTPClient):
    """The asynchronous client: the same methods."""

    reader = Events
    failure = staticmethod(openai_error)

    def __init__(
        self, base_url: str, *, transport: httpx.AsyncBaseTransport | None = None, **options: Any
    ) -> None:
        self._client = httpx.AsyncClient(base_url=base_url, transport=transport, **options)
        self._requests = Requests(self._client)
        self._direct = transport if adds_nothing(options) else None
