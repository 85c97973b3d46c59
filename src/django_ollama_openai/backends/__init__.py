"""Where answers come from. ``backends["default"]`` is the backend with that alias.

Subclass the one that comes closest, override what differs, and name it in ``BACKENDS``.
"""

from __future__ import annotations

from ._base import BaseBackend
from ._dummy import DummyBackend
from ._handler import BackendHandler, InvalidBackendError, backends
from ._llamacpp import LlamaCppBackend
from ._ollama import OllamaBackend
from ._openai import OpenAIBackend
from ._pool import PoolBackend

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
