"""``POST v1/responses``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

from .. import _conf
from .._translation.response_events import ResponseStream, ResponseWriter, WholeResponse
from .._translation.responses_request import (
    chat_request,
    ignored_parts,
    to_responses_error,
    to_responses_param,
)
from .._wire.responses import ResponsesRequest
from ..auth import Caller
from ..exceptions import GatewayError, InvalidRequest, UnsupportedParameter
from ..response_store import BaseResponseStore, response_store
from .admission import Admission, admit_chat, apply_unsupported_policy
from .chat import run_chat
from .delivery import Reply
from .flow import Flow, call
from .outcome import CANCELLED, Record
from .recorder import BaseRecorder

__all__ = ["admit_response", "respond", "response_writer"]

MAX_QUOTED = 64


def respond(admission: Admission[ResponsesRequest]) -> Flow[Reply]:
    """Answer a request of the Responses API that :func:`~.admission.admit_chat` has not admitted
    yet; raises as :func:`~.chat.run_chat` does."""
    store = response_store()
    body = yield from _continued(admission.body, store, admission.caller)
    admission = yield from admit_response(admission, body, stateful=False)
    body = admission.body
    is_stored = store is not None and body.store is not False
    writer = response_writer(admission, stored=is_stored)
    recorder = None
    if store is not None and is_stored:
        recorder = _Storing(store, body, admission.caller, writer)
    return (yield from run_chat(admission, recorder=recorder, writer=writer))


def admit_response(
    admission: Admission[ResponsesRequest],
    body: ResponsesRequest,
    *,
    stateful: bool,
    instructions: str | None = None,
) -> Flow[Admission[ResponsesRequest]]:
    """Pass the gates that need the request for the engine, and return the admission, whose body is
    ``body``.

    ``body`` is the client's request with its whole input: with the items of the conversation that
    it continues, and with items in place of references. ``stateful`` responses may be in the
    background or in a conversation. ``instructions`` are for the model, but not repeated in the
    response; those of the request replace them.

    Raises:
        GatewayError: The request is refused.
    """
    _check_demand(body, admission.settings)
    _check_items(body)
    body, ignored = apply_unsupported_policy(
        body,
        body.unsupported_parameters(stateful=stateful),
        admission.engine_route,
        admission.settings,
    )
    if not body.input:
        raise InvalidRequest("Missing required parameter: 'input'.", param="input")
    sent = body
    if body.instructions is None and instructions is not None:
        sent = body.model_copy(update={"instructions": instructions})
    # The verbosity is a hint, which some clients always send.
    admission = yield from admit_chat(
        replace(admission, body=body),
        chat_request(sent),
        hints=["verbosity"],
        name_fields=partial(to_responses_error, sent),
    )
    dropped = [to_responses_param(sent, name) for name in admission.ignored_parameters]
    return replace(admission, ignored_parameters=(*ignored, *ignored_parts(sent), *dropped))


def response_writer(
    admission: Admission[ResponsesRequest],
    *,
    response_id: str | None = None,
    stored: bool,
    background: bool = False,
    conversation: str | None = None,
    is_early: bool = False,
    is_stream: bool | None = None,
) -> ResponseWriter:
    """Return the writer of the response to a request that :func:`admit_response` has admitted.

    ``stored``, ``background`` and ``conversation``, an id, are fields of the response. A stream
    that is early begins before the engine has answered. ``is_stream`` is whether the response is
    written as a stream, by default as the request says.
    """
    body = admission.body
    kind = ResponseStream if (body.stream if is_stream is None else is_stream) else WholeResponse
    return kind(
        body,
        admission.engine_route.name,
        admission.mount.case,
        response_id=response_id,
        stored=stored,
        background=background,
        conversation=conversation,
        is_early=is_early,
    )


def _check_demand(body: ResponsesRequest, settings: _conf.Settings) -> None:
    """Check that ``tool_choice`` does not require a hosted tool.

    Raises:
        UnsupportedParameter: It does, and ``UNSUPPORTED_PARAMETERS`` is ``"reject"``.
    """
    tool = body.required_hosted_tool
    if tool is not None and settings.UNSUPPORTED_PARAMETERS == "reject":
        raise UnsupportedParameter(
            f"'tool_choice' demands the tool {tool[:MAX_QUOTED]!r}, which is not supported. "
            "Choose a function, or omit 'tool_choice'.",
            param="tool_choice",
        )


def _check_items(body: ResponsesRequest) -> None:
    """Check that ``body`` has no references to items.

    Raises:
        InvalidRequest: It does, and no app that stores items has replaced them.
    """
    for notation, _ in body.item_references:
        raise InvalidRequest(
            f"Invalid value for '{notation}': references to items are not supported, since items "
            "are not stored; send the item itself (many clients do with 'store': false).",
            param=notation,
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


class _Storing(BaseRecorder):
    """Stores a response that is finished."""

    def __init__(
        self,
        store: BaseResponseStore,
        body: ResponsesRequest,
        caller: Caller,
        writer: ResponseWriter,
    ) -> None:
        self._store = store
        self._body = body
        self._caller = caller
        self._writer = writer

    def record(self, record: Record) -> None:
        if _is_finished(record):
            with _storage_errors():
                self._store.save(self._writer.response, self._body.input_items, self._caller)

    async def arecord(self, record: Record) -> None:
        if _is_finished(record):
            with _storage_errors():
                await self._store.asave(self._writer.response, self._body.input_items, self._caller)


def _is_finished(record: Record) -> bool:
    return record.error is None and record.finish_reason != CANCELLED


@contextmanager
def _storage_errors() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        raise GatewayError("The response could not be stored.") from error
