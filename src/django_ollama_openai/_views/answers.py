"""The endpoints that a backend answers, streamed or not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.http.response import HttpResponseBase

from .._gateway.admission import Admission, Incoming, admit, carry_out
from .._gateway.chat import run_chat
from .._gateway.delivery import Reply
from .._gateway.embeddings import embed
from .._gateway.flow import Flow
from .._gateway.responses import respond
from .._gateway.text_completions import complete_text
from .._wire.chat import ChatCompletionRequest
from .._wire.completions import CompletionRequest
from .._wire.embeddings import EmbeddingsRequest
from .._wire.engine import EngineRequest
from .._wire.responses import ResponsesRequest
from .endpoint import Endpoint, endpoint
from .responses import event_stream, json_bytes

__all__ = ["chat_completions", "completions", "embeddings", "responses"]


def _answered_by(
    use_case: Callable[[Admission[Any]], Flow[Reply]],
    name: str,
    body: type[EngineRequest],
    *,
    scope: str = "chat",
    is_chat_to_come: bool = False,
) -> Endpoint:
    @endpoint("POST")
    def view(incoming: Incoming) -> Flow[HttpResponseBase]:
        admission = yield from admit(
            incoming, endpoint=name, scope=scope, body=body, is_chat_to_come=is_chat_to_come
        )
        reply = yield from carry_out(admission, use_case(admission))
        response: HttpResponseBase
        if isinstance(reply.content, bytes):
            response = json_bytes(reply.content)
        else:
            response = event_stream(reply.content)
        if reply.ignored_parameters:
            response.headers["x-ignored-parameters"] = ", ".join(reply.ignored_parameters)
        return response

    return view


chat_completions = _answered_by(run_chat, "chat.completions", ChatCompletionRequest)
completions = _answered_by(complete_text, "completions", CompletionRequest)
embeddings = _answered_by(embed, "embeddings", EmbeddingsRequest, scope="embeddings")
responses = _answered_by(respond, "responses", ResponsesRequest, is_chat_to_come=True)
