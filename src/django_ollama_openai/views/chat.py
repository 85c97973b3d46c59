"""``POST v1/chat/completions``."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest
from django.http.response import HttpResponseBase

from ..gateway.chat import complete_chat
from ..gateway.flow import Flow
from .endpoint import endpoint
from .requests import hung_up, read_body
from .responses import event_stream, json_bytes

__all__ = ["chat_completions"]


@endpoint("POST")
def chat_completions(
    request: HttpRequest, *, request_id: str, captured: dict[str, Any]
) -> Flow[HttpResponseBase]:
    """Answer a chat completion request, streamed or not."""
    reply = yield from complete_chat(
        request,
        request_id=request_id,
        read_body=lambda: read_body(request),
        hung_up=lambda: hung_up(request),
    )
    response: HttpResponseBase
    if isinstance(reply.content, bytes):
        response = json_bytes(reply.content)
    else:
        response = event_stream(reply.content)
    if reply.ignored_parameters:
        response.headers["x-ignored-parameters"] = ", ".join(reply.ignored_parameters)
    return response
