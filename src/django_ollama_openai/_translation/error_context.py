"""The model and the request fields that error messages about an engine's failure may name."""

from __future__ import annotations

from typing import TypedDict

from .._wire.chat import AudioPart, ChatCompletionRequest, ImagePart
from .tool_choice import CallFormat

__all__ = ["ErrorContext", "chat_error_context"]


class ErrorContext(TypedDict, total=False):
    """The model's name, and names of fields of the client's request.

    ``param`` is the field with the prompt or input, which may be too long. The others are present
    if the request has them: ``schema_param`` is the field with a JSON schema, ``think_param`` the
    one that turns reasoning on or off, ``media_param`` the first part with an image or audio.
    """

    model: str
    param: str
    schema_param: str
    think_param: str
    media_param: str


def chat_error_context(request: ChatCompletionRequest, model: str) -> ErrorContext:
    """Return the context for errors about ``request``; ``model`` is the engine's model name."""
    context = ErrorContext(model=model, param="messages")
    if isinstance(request.response_format, CallFormat):
        # The gateway made the format from the client's tools.
        context["schema_param"] = request.response_format.origin
    elif request.response_format is not None:
        context["schema_param"] = "response_format"
    elif request.tools:
        context["schema_param"] = request.client_param("tools")
    if request.think is not None:
        context["think_param"] = "think"
    elif request.reasoning_effort is not None:
        context["think_param"] = "reasoning_effort"
    if media := _first_media(request):
        context["media_param"] = media
    return context


def _first_media(request: ChatCompletionRequest) -> str | None:
    return next(
        (
            f"messages[{number}].content[{place}]"
            for number, message in enumerate(request.messages)
            if isinstance(message.content, list)
            for place, part in enumerate(message.content)
            if isinstance(part, (ImagePart, AudioPart))
        ),
        None,
    )
