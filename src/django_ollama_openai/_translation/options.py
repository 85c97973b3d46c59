"""Ollama's options, as every endpoint of its takes them.

Source: Ollama's ``api/types.go`` (``Options``, and the fields beside it in each request).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from .._wire.chat import ChatCompletionRequest
from .._wire.completions import CompletionRequest
from .._wire.engine import EngineRequest
from .._wire.generation import SAMPLING_FIELDS

__all__ = ["TOP_LEVEL_OPTIONS", "ollama_options", "sampling_options"]

TOP_LEVEL_OPTIONS: Final = frozenset({"keep_alive", "shift", "think", "truncate"})
"""Engine options that stand beside ``options`` in the body, not in it."""


def sampling_options(request: ChatCompletionRequest | CompletionRequest) -> dict[str, Any]:
    """What OpenAI's own fields say, by Ollama's names; ``None`` leaves it to the Modelfile."""
    return {
        **{name: getattr(request, name) for name in SAMPLING_FIELDS},
        "num_predict": request.output_limit,
        "shift": request.shift,
    }


def ollama_options(request: EngineRequest, fields: Mapping[str, Any]) -> dict[str, Any]:
    """The part of the body that has the options: ``options`` itself, and those beside it.

    The site's options, from ``MODELS``, come first. The client's ``options`` win over them, and
    ``fields`` over both: what the request says in OpenAI's way, by Ollama's names.
    """
    said = {**fields, "keep_alive": request.keep_alive, "truncate": request.truncate}
    options = {
        # Ollama would cut off what does not fit, and answer as if nothing had happened.
        "truncate": False,
        **request.engine_options,
        **(request.options.declared() if request.options is not None else {}),
        **{name: value for name, value in said.items() if value is not None},
    }
    if "shift" in fields and not options["truncate"]:
        # With a full context Ollama would drop the oldest tokens during the answer without notice.
        options.setdefault("shift", False)
    if isinstance(options.get("stop"), str):
        options["stop"] = [options["stop"]]
    body = {name: options.pop(name) for name in TOP_LEVEL_OPTIONS & options.keys()}
    return {**body, "options": options} if options else body
