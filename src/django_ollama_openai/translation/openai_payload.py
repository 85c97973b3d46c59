"""A request as the body for an engine that speaks OpenAI's API itself.

It leaves as it was validated, with what this engine is to be asked for and nothing else: neither
the fields of others (Ollama's), nor those that say what becomes of a request at OpenAI (``store``,
``metadata``, ``user``), which are the site's affair.
"""

from __future__ import annotations

import base64
from collections.abc import Collection
from typing import Any, Final

from ..wire.chat import ChatCompletionRequest, ImagePart, Message, content_media
from ..wire.completions import CompletionRequest
from ..wire.embeddings import EmbeddingsRequest
from ..wire.media import image_type

__all__ = ["openai_chat_payload", "openai_completion_payload", "openai_embeddings_payload"]

_SAMPLING: Final = frozenset(
    {"frequency_penalty", "presence_penalty", "seed", "stop", "temperature", "top_p"}
)
_CHAT: Final = _SAMPLING | {"max_completion_tokens", "max_tokens"}
_CHAT_OPTIONAL: Final = {
    "logit_bias": ("logit_bias",),
    "logprobs": ("logprobs", "top_logprobs"),
    "parallel_tool_calls": ("parallel_tool_calls",),
    "prediction": ("prediction",),
    "reasoning_effort": ("reasoning_effort",),
    "response_format": ("response_format",),
    "tool_choice": ("tool_choice",),
    "tools": ("tools",),
    "verbosity": ("verbosity",),
}
"""The fields of the optional parameters."""

_LIMITS: Final = ("max_completion_tokens", "max_tokens")


def openai_chat_payload(
    request: ChatCompletionRequest, parameters: Collection[str], *, stream: bool
) -> dict[str, Any]:
    """The body of ``POST chat/completions``; ``parameters`` are the optional ones that the engine
    knows."""
    fields = _CHAT.union(*(_CHAT_OPTIONAL.get(name, ()) for name in parameters))
    sent = request.declared(fields)
    if request.reasoning_effort is not None and "reasoning_effort" in fields:
        # It may have come by another name.
        sent["reasoning_effort"] = request.reasoning_effort
    options = request.engine_options
    if request.output_limit is not None:
        options = {name: value for name, value in options.items() if name not in _LIMITS}
    return {
        **options,
        "model": request.model,
        "messages": [_message(message) for message in request.messages],
        **sent,
        **_streamed(stream),
    }


def openai_completion_payload(
    request: CompletionRequest, parameters: Collection[str], *, stream: bool
) -> dict[str, Any]:
    """The body of ``POST completions``."""
    optional = {"logit_bias", "logprobs", "suffix"}.intersection(parameters)
    sent = request.declared(_SAMPLING | {"max_tokens"} | optional)
    if request.logprobs == 0 and "logprobs" in optional:
        # Some engines give none at all for 0; what was not asked for is left out of the answer.
        sent["logprobs"] = 1
    return {
        "max_tokens": request.output_limit,
        **request.engine_options,
        "model": request.model,
        "prompt": request.prompt,
        **sent,
        **_streamed(stream),
    }


def openai_embeddings_payload(
    request: EmbeddingsRequest, parameters: Collection[str]
) -> dict[str, Any]:
    """The body of ``POST embeddings``."""
    optional = {"dimensions"}.intersection(parameters)
    return {
        **request.engine_options,
        "model": request.model,
        "input": request.input,
        # Base64 would be shorter, but not every engine has it.
        "encoding_format": "float",
        **request.declared(optional),
    }


def _streamed(stream: bool) -> dict[str, Any]:
    # Of a stream there is no usage unless it is asked for.
    options = {"stream_options": {"include_usage": True}} if stream else {}
    return {"stream": stream, **options}


def _message(message: Message) -> dict[str, Any]:
    sent = message.declared()
    content = message.content
    if isinstance(content, list):
        for part, given in zip(sent["content"], content, strict=True):
            if isinstance(given, ImagePart):
                # Always the picture itself: no engine is sent to an address.
                part["image_url"]["url"] = _data_uri(given)
    return sent


def _data_uri(part: ImagePart) -> str:
    (data,) = content_media([part])
    return f"data:{image_type(data)};base64,{base64.b64encode(data).decode()}"
