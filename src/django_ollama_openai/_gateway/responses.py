"""``POST v1/responses``. The gates before it stand in :func:`~.exchange.admit`."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from .. import _conf
from .._translation.response_events import ResponseStream, WholeResponse
from .._translation.responses_request import (
    chat_request,
    in_the_words_of,
    left_out,
    original_param,
)
from .._wire.responses import ResponsesRequest
from ..auth import Caller
from ..exceptions import GatewayError, InvalidRequest, UnsupportedParameter
from ..response_store import BaseResponseStore, response_store
from .chat import fetch_remote_images
from .completion import Completion, chat_sources
from .exchange import Exchange, Reply, admit, check_prompt, settle_parameters
from .flow import Flow, call

__all__ = ["respond"]

MAX_QUOTED = 64

logger = logging.getLogger("django_ollama_openai")


def respond(exchange: Exchange) -> Flow[Reply]:
    """Answer a request of the Responses API; raises as :meth:`Exchange.reply` does."""
    admitted = yield from admit(exchange, ResponsesRequest, "chat")
    caller, body, route = admitted.caller, admitted.body, admitted.route
    _check_demand(body)
    body, ignored = settle_parameters(body, body.unsupported_parameters(), route)
    store = response_store()
    body = yield from _continued(body, store, caller)
    chat = chat_request(body)
    with _in_the_words_of(body):
        # Of a response that goes on, the whole conversation.
        check_prompt(chat)
        route.backend.check_support(chat)
        # The verbosity is a hint, which some clients always send.
        unsupported = [
            name for name in route.backend.unsupported_parameters(chat) if name != "verbosity"
        ]
        chat, dropped = settle_parameters(chat, unsupported, route)
        yield from fetch_remote_images(chat)
    is_stored = store is not None and body.store is not False
    kind = ResponseStream if body.stream else WholeResponse
    response = _Response(
        body=body,
        caller=caller,
        store=store if is_stored else None,
        route=route,
        request=chat,
        sources=chat_sources(chat),
        account=exchange.account(caller, route, endpoint="responses", body=body, choices=1),
        writer=kind(body, route.name, admitted.mount.case, stored=is_stored),
        is_stream=bool(body.stream),
    )
    ignored += left_out(body) + tuple(original_param(body, name) for name in dropped)
    return (yield from exchange.reply(response, ignored))


def _check_demand(body: ResponsesRequest) -> None:
    """Check that ``tool_choice`` does not demand a hosted tool.

    Raises:
        UnsupportedParameter: It does, and ``UNSUPPORTED_PARAMETERS`` is ``"reject"``.
    """
    tool = body.demanded_tool
    if tool is not None and _conf.get().UNSUPPORTED_PARAMETERS == "reject":
        raise UnsupportedParameter(
            f"'tool_choice' demands the tool {tool[:MAX_QUOTED]!r}, which is not supported. "
            "Choose a function, or omit 'tool_choice'.",
            param="tool_choice",
        )


def _continued(
    body: ResponsesRequest, store: BaseResponseStore | None, caller: Caller
) -> Flow[ResponsesRequest]:
    """Return ``body`` with the conversation of its ``previous_response_id`` before its input.

    Raises:
        InvalidRequest: There is no store, or it does not have the response for this caller.
    """
    response_id = body.previous_response_id
    if response_id is None:
        return body
    if store is None:
        raise InvalidRequest(
            "'previous_response_id' is not supported: responses are not stored. Send the "
            "whole conversation as 'input'.",
            param="previous_response_id",
            code="unsupported_parameter",
        )
    items = yield from call(store.load, store.aload, response_id, caller)
    if items is None:
        raise InvalidRequest(
            f"Previous response with id {response_id!r} not found.",
            param="previous_response_id",
            code="previous_response_not_found",
        )
    return body.after(items)


@contextmanager
def _in_the_words_of(body: ResponsesRequest) -> Iterator[None]:
    """Errors name the fields of the client's request, not those of what it was made into."""
    try:
        yield
    except GatewayError as error:
        in_the_words_of(body, error)
        raise


@contextmanager
def _storing() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        logger.error("The response store failed", exc_info=error)
        raise GatewayError("The response could not be stored.") from error


class _Response(Completion):
    """A completion that is told, and kept, as a response."""

    def __init__(
        self,
        *,
        body: ResponsesRequest,
        caller: Caller,
        store: BaseResponseStore | None,
        writer: ResponseStream | WholeResponse,
        **options: Any,
    ) -> None:
        super().__init__(writer=writer, **options)
        self._body = body
        self._caller = caller
        self._store = store
        self._response_writer = writer

    def save(self) -> None:
        if self._store is not None:
            with _storing():
                self._store.save(*self._conversation())

    async def asave(self) -> None:
        if self._store is not None:
            with _storing():
                await self._store.asave(*self._conversation())

    def _conversation(self) -> tuple[dict[str, Any], list[dict[str, Any]], Caller]:
        return self._response_writer.response, self._body.input_items, self._caller

    def _told(self, error: Exception) -> GatewayError:
        told = super()._told(error)
        in_the_words_of(self._body, told)
        return told
