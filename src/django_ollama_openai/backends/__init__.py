"""Backends, which get answers from engines. ``backends["default"]`` is the one with that alias.

To add one, subclass the one that comes closest, override what differs, and name the class in
``BACKENDS``.
"""

from __future__ import annotations

from .._cancellation import Cancelled, interruptible
from .._wire.delta import fold
from ._base import BaseBackend
from ._dummy import DummyBackend
from ._handler import BackendHandler, InvalidBackendError, backends
from ._http_backend import HTTPBackend
from ._http_client import AsyncHTTPClient, HTTPClient
from ._interruptible import InterruptibleTransport
from ._llamacpp import LlamaCppBackend
from ._ollama import OllamaBackend
from ._ollama_client import AsyncOllamaClient, OllamaClient
from ._openai import OpenAIBackend
from ._openai_client import AsyncOpenAIClient, OpenAIClient
from ._pool import PoolBackend

__all__ = [
    "AsyncHTTPClient",
    "AsyncOllamaClient",
    "AsyncOpenAIClient",
    "BackendHandler",
    "BaseBackend",
    "Cancelled",
    "DummyBackend",
    "HTTPBackend",
    "HTTPClient",
    "InterruptibleTransport",
    "InvalidBackendError",
    "LlamaCppBackend",
    "OllamaBackend",
    "OllamaClient",
    "OpenAIBackend",
    "OpenAIClient",
    "PoolBackend",
    "backends",
    "fold",
    "interruptible",
]
