"""An embeddings request as the body of Ollama's ``POST /api/embed``.

Source: Ollama's ``api/types.go`` (``EmbedRequest``).
"""

from __future__ import annotations

from typing import Any

from .._wire.embeddings import EmbeddingsRequest
from .._wire.text_input import tokens_unsupported
from .options import ollama_options

__all__ = ["embed_payload"]


def embed_payload(request: EmbeddingsRequest) -> dict[str, Any]:
    """The body for ``request``, whose model is already the engine's own name for it.

    Raises:
        UnsupportedParameter: the input is in tokens.
    """
    if request.token_input:
        raise tokens_unsupported("input")
    payload = {
        "model": request.model,
        "input": request.inputs(),
        **ollama_options(request, {}),
    }
    if request.dimensions is not None:
        payload["dimensions"] = request.dimensions
    return payload
