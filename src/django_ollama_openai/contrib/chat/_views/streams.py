"""``…/messages/{id}/stream/`` reads the stream of an answer again; ``…/stop/`` ends an answer."""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from typing import Any

from django.http import HttpResponse
from django.http.response import HttpResponseBase
from django.utils.timezone import now
from pydantic import BaseModel, Field

from ...._gateway.flow import Flow
from ...._translation.chat_completion import ChatCompletionStream
from ...._wire.delta import Delta, ToolCallDelta, Usage
from ...._wire.query import QueryParameters
from ...._wire.sse import DONE, frame
from ....endpoints import Admission, Endpoint
from ....exceptions import InvalidRequest, NotFound
from .._answers import live
from .._answers.streams import follow
from .._store.runs import end_expired, request_stop
from ..conf import chat_settings
from ..models import Conversation, Item, Run
from .answers import completion_id, in_store
from .callers import SCOPE, Owner, find_conversation, find_message
from .messages import SessionChunk, present_one
from .sessions import TAGS

__all__ = ["stop", "stream"]


class StreamQuery(QueryParameters):
    """The query parameters of a stream."""

    after: int | None = Field(None, ge=0)


stream = Endpoint(tags=TAGS)


@stream.get(
    scope=SCOPE,
    owner=True,
    query=StreamQuery,
    event=SessionChunk,
    errors=(NotFound, InvalidRequest),
)
def stream_message(admission: Admission[None]) -> Flow[HttpResponseBase]:
    """Read the stream of an answer again: the chunks with greater numbers than ``after``, or all,
    then those that are still to come. An answer without a stream, or one whose stream is no longer
    kept, is one chunk with the number 0."""
    conversation, head, run = yield from in_store(_find, admission)
    if admission.request.method == "HEAD":
        return HttpResponse(content_type="text/event-stream; charset=utf-8")
    as_one = partial(_in_one, admission, conversation, head)
    after = admission.query.after
    return (
        yield from follow(
            None if run is None else run.pk,
            -1 if after is None else after,
            admission.settings.STREAM_KEEPALIVE_SECONDS,
            closing=DONE,
            otherwise=as_one,
            is_disconnected=admission.incoming.is_disconnected,
        )
    )


def _find(admission: Admission[None]) -> tuple[Conversation, Item, Run | None]:
    """Return the session, the answer, and its run, if its stream is kept.

    Raises:
        NotFound: One of the first two does not exist for the caller.
        InvalidRequest: The message is not the model's.
    """
    row = find_conversation(Owner.of(admission.caller), admission.captured["session_id"])
    head = find_message(row, admission.captured["message_id"])
    if head.role != "assistant" and head.type not in ("function_call", "custom_tool_call"):
        raise InvalidRequest(
            f"The message '{head.message_id}' has no stream: it is not an answer of the model."
        )
    kept = now() - timedelta(seconds=chat_settings().STREAM_RETENTION_SECONDS)
    run = Run.objects.filter(item=head).defer("output").first()
    if run is not None and run.ended_at is not None and run.ended_at <= kept:
        run = None
    return row, head, run


def _in_one(admission: Admission[None], conversation: Conversation, head: Item) -> bytes:
    """Return the stream of a whole answer as one chunk."""
    found = Item.objects.filter(pk=head.pk).first()
    if found is None:
        # Deleted meanwhile.
        return DONE
    shown = present_one(admission, conversation, found)
    writer = ChatCompletionStream(
        shown["model"] or "",
        admission.mount.case,
        include_usage=False,
        id=completion_id(head.pk),
        created=int(head.created_at.timestamp()),
        first={
            "session_id": shown["session_id"],
            "message_id": shown["id"],
            "user_message_id": shown["parent_id"],
            **{key: shown[key] for key in ("truncated_messages",) if key in shown},
        },
        is_numbered=True,
    )
    error = shown["error"]
    return writer.in_one(_delta(shown)) + (frame({"error": error}) if error else b"") + DONE


def _delta(shown: dict[str, Any]) -> Delta:
    content, usage = shown["content"], shown["usage"]
    if isinstance(content, list):
        content = "".join(part.get("text") or part.get("refusal") or "" for part in content)
    calls = []
    for index, call in enumerate(shown["tool_calls"] or ()):
        is_custom = call["type"] == "custom"
        called = call[call["type"]]
        arguments = called["input" if is_custom else "arguments"]
        calls.append(ToolCallDelta(index, call["id"], called["name"], arguments, is_custom))
    return Delta(
        content or "",
        shown["reasoning_content"] or "",
        calls,
        finish_reason=shown["finish_reason"],
        usage=None if usage is None else _usage(usage),
    )


def _usage(usage: dict[str, Any]) -> Usage:
    prompt = usage.get("prompt_tokens_details") or {}
    completion = usage.get("completion_tokens_details") or {}
    return Usage(
        usage["prompt_tokens"],
        usage["completion_tokens"],
        prompt.get("cached_tokens") or 0,
        completion.get("reasoning_tokens") or 0,
    )


stop = Endpoint(tags=TAGS)


class StopAnswer(BaseModel):
    """The result of a request to stop: ``stopped`` is false if no answer was running."""

    stopped: bool


@stop.post(scope=SCOPE, owner=True, response=StopAnswer, errors=(NotFound,))
def stop_session(admission: Admission[None]) -> dict[str, Any]:
    """Stop the running answer of a session."""
    owner = Owner.of(admission.caller)
    row = find_conversation(owner, admission.captured["session_id"], writes=True)
    run = Run.objects.filter(locks=row).first()
    if run is None or end_expired(run) or not request_stop(run):
        return {"stopped": False}
    answer = live.find(run.pk)
    if answer is not None:
        # The thread that finds the request in the database comes by once a second.
        answer.stopper.stop()
    return {"stopped": True}
