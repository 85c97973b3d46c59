"""The fields of a chat completion request that an error of the engine may name."""

from __future__ import annotations

from .._wire.chat import AudioPart, ChatCompletionRequest, ImagePart
from .blame import Blame
from .tool_choice import CallFormat

__all__ = ["chat_blame"]


def chat_blame(request: ChatCompletionRequest, model: str) -> Blame:
    """Return the names for errors about ``request``; ``model`` is the engine's model name."""
    blame = Blame(model=model, param="messages")
    if isinstance(request.response_format, CallFormat):
        # The gateway made the format from the client's tools.
        blame["schema_param"] = request.response_format.origin
    elif request.response_format is not None:
        blame["schema_param"] = "response_format"
    elif request.tools:
        blame["schema_param"] = request.own_name("tools")
    if request.think is not None:
        blame["think_param"] = "think"
    elif request.reasoning_effort is not None:
        blame["think_param"] = "reasoning_effort"
    if media := _first_media(request):
        blame["media_param"] = media
    return blame


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
