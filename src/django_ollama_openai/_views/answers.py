"""The endpoints that a backend answers, streamed or not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.http import HttpRequest
from django.http.response import HttpResponseBase

from .._gateway.chat import complete_chat
from .._gateway.embeddings import embed
from .._gateway.exchange import Exchange, Reply
from .._gateway.flow import Flow
from .._gateway.responses import respond
from .._gateway.text_completions import complete_text
from .endpoint import Endpoint, endpoint
from .requests import hung_up, read_body
from .responses import EventStream, json_bytes

__all__ = ["chat_completions", "completions", "embeddings", "responses"]


def _answered_by(use_case: Callable[[Exchange], Flow[Reply]]) -> Endpoint:
    @endpoint("POST")
    def view(
        request: HttpRequest, *, request_id: str, captured: dict[str, Any]
    ) -> Flow[HttpResponseBase]:
        exchange = Exchange(
            request,
            request_id,
            read_body=lambda: read_body(request),
            hung_up=lambda: hung_up(request),
        )
        reply = yield from use_case(exchange)
        response: HttpResponseBase
        if isinstance(reply.content, bytes):
            response = json_bytes(reply.content)
        else:
            response = EventStream(reply.content)
        if reply.ignored_parameters:
            response.headers["x-ignored-parameters"] = ", ".join(reply.ignored_parameters)
        return response

    return view


chat_completions = _answered_by(complete_chat)
completions = _answered_by(complete_text)
embeddings = _answered_by(embed)
responses = _answered_by(respond)
