"""Where answers come from. ``backends["default"]`` is the backend with that alias.

Subclass the one that comes closest, override what differs, and name it in ``BACKENDS``.
"""

from __future__ import annotations

from .base import BaseBackend
from .dummy import DummyBackend
from .handler import BackendHandler, InvalidBackendError, backends
from .llamacpp import LlamaCppBackend
from .ollama import OllamaBackend
from .openai import OpenAIBackend
from .pool import PoolBackend

__all__ = [
    "BackendHandler",
    "BaseBackend",
    "DummyBackend",
    "InvalidBackendError",
    "LlamaCppBackend",
    "OllamaBackend",
    "OpenAIBackend",
    "PoolBackend",
    "backends",
]
