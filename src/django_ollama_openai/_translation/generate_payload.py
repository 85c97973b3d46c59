"""A completion request as the body of Ollama's ``POST /api/generate``.

Source: Ollama's ``api/types.go`` (``GenerateRequest``).
"""

from __future__ import annotations

from typing import Any

from .._wire.completions import CompletionRequest
from .._wire.text_input import tokens_unsupported
from .options import ollama_options, sampling_options

__all__ = ["generate_payload"]


def generate_payload(request: CompletionRequest, *, stream: bool) -> dict[str, Any]:
    """The body for ``request``, which has one prompt and the engine's own name of the model.

    Raises:
        UnsupportedParameter: the prompt is in tokens.
    """
    if not isinstance(request.prompt, str):
        raise tokens_unsupported("prompt")
    payload: dict[str, Any] = {
        "model": request.model,
        "prompt": request.prompt,
        "stream": stream,
        **ollama_options(request, {**sampling_options(request), "think": request.think}),
    }
    if request.suffix:
        # Only the model's own template knows how to ask for what stands between two texts.
        payload["suffix"] = request.suffix
    else:
        # The text goes on; a template would make it a message that is answered.
        payload["raw"] = True
    if request.logprobs is not None:
        payload["logprobs"] = True
        payload["top_logprobs"] = request.logprobs
    return payload
