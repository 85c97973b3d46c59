"""Clients for an engine that speaks OpenAI's API.

Not OpenAI's own: it would validate responses against its models, require fields that other engines
do not send, and retry by itself.
"""

from __future__ import annotations

from typing import Any

import httpx

from .._translation.openai_errors import openai_error
from .._wire.event_stream import Events
from ._http_client import AsyncHTTPClient, HTTPClient, RequestFactory

__all__ = ["AsyncOpenAIClient", "OpenAIClient"]


class OpenAIClient(HTTPClient):
    """The synchronous client; ``options`` are those of :class:`httpx.Client`."""

    reader = Events
    failure = staticmethod(openai_error)

    def __init__(self, base_url: str, **options: Any) -> None:
        self._client = httpx.Client(base_url=base_url, **options)
        self._requests = RequestFactory(self._client)


class AsyncOpenAIClient(AsyncHTTPClient):
    """The asynchronous client; ``options`` are those of :class:`httpx.AsyncClient`."""

    reader = Events
    failure = staticmethod(openai_error)

    def __init__(self, base_url: str, **options: Any) -> None:
        self._client = httpx.AsyncClient(base_url=base_url, **options)
        self._requests = RequestFactory(self._client)
