"""``POST v1/responses``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

from .. import _conf
from .._translation.response_events import ResponseStream, WholeResponse
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

__all__ = ["respond"]

MAX_QUOTED = 64


def respond(admission: Admission[ResponsesRequest]) -> Flow[Reply]:
    """Answer a request of the Responses API that :func:`~.admission.admit_chat` has not admitted
    yet; raises as :func:`~.chat.run_chat` does."""
    body, route, settings = admission.body, admission.engine_route, admission.settings
    _check_demand(body, settings)
    body, ignored = apply_unsupported_policy(body, body.unsupported_parameters(), route, settings)
    store = response_store()
    body = yield from _continued(body, store, admission.caller)
    chat = chat_request(body)
    # The verbosity is a hint, which some clients always send.
    admission = yield from admit_chat(
        replace(admission, body=body),
        chat,
        hints=["verbosity"],
        name_fields=partial(to_responses_error, body),
    )
    dropped = [to_responses_param(body, name) for name in admission.ignored_parameters]
    is_stored = store is not None and body.store is not False
    writer = (ResponseStream if body.stream else WholeResponse)(
        body, route.name, admission.mount.case, stored=is_stored
    )
    return (
        yield from run_chat(
            replace(admission, ignored_parameters=(*ignored, *ignored_parts(body), *dropped)),
            recorder=_Storing(store, body, admission.caller, writer)
            if store is not None and is_stored
            else None,
            writer=writer,
        )
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
        writer: ResponseStream | WholeResponse,
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
