"""``api/chat/sessions/{id}/title/``: the title of a session, given by the client or the model."""

from __future__ import annotations

from typing import Any, Final

from django.db import transaction
from django.utils.timezone import now

from ...._gateway.flow import Flow
from ...._wire.chat import ChatCompletionRequest
from ....endpoints import (
    Admission,
    Endpoint,
    RequestBody,
    WholeChatCompletion,
    admit_chat,
    admit_without_engine,
    run_chat,
)
from ....exceptions import GatewayError, InvalidRequest, NotFound, UpstreamError
from .._store.messages import role_of
from .._store.tree import path_to
from ..models import MAX_TITLE, Conversation
from .answers import in_store
from .callers import SCOPE, Owner, find_conversation, lock_session
from .sessions import TAGS, SessionAnswer, Title, present

__all__ = ["title"]

INSTRUCTIONS: Final = (
    "Write a title for the following conversation: at most six words, in its language, without "
    "quotation marks. Answer with the title alone."
)
#: The most messages and characters that the model gets, from the beginning of the conversation.
MAX_MESSAGES, MAX_CHARACTERS = 10, 4_000
#: The text that a title is taken from.
MAX_ANSWER: Final = 10_000

title = Endpoint(tags=TAGS)


class NewTitle(RequestBody):
    """The title of a session; without one the model gives it."""

    title: Title | None = None


@title.post(
    scope=SCOPE,
    owner=True,
    body=NewTitle,
    response=SessionAnswer,
    makes_chat=True,
    errors=(NotFound,),
)
def name_session(admission: Admission[NewTitle]) -> Flow[Any]:
    """Set the title of a session, or let its model write one."""
    owner = Owner.of(admission.caller)
    row = yield from in_store(
        find_conversation, owner, admission.captured["session_id"], writes=True
    )
    chosen = admission.body.title
    if chosen is None:
        chosen = yield from _written(admission, row)
    else:
        yield from admit_without_engine(admission)
    return (yield from in_store(_save, row, chosen))


def _written(admission: Admission[NewTitle], row: Conversation) -> Flow[str]:
    """Return the title that the model writes.

    Raises:
        InvalidRequest: The session has no message.
        UpstreamError: The model has written none.
    """
    request = yield from in_store(_request, row)
    admitted = yield from admit_chat(
        admission, request, hints=("reasoning_effort",), name_fields=_name_fields
    )
    writer = WholeChatCompletion(admitted.engine_route.name, "snake")
    yield from run_chat(admitted, writer=writer)
    text = writer.completion("snake")["choices"][0]["message"]["content"] or ""
    lines = (" ".join(line.split()).strip("\"'*#` ") for line in text[:MAX_ANSWER].splitlines())
    found: str = next(filter(None, lines), "")
    if not found:
        raise UpstreamError("The model wrote no title.")
    return found[:MAX_TITLE].rstrip()


def _request(row: Conversation) -> ChatCompletionRequest:
    first = path_to(row.leaf).oldest(MAX_MESSAGES, head=None)
    texts = [f"{role_of(item)}: {item.text}" for item in first if item.text]
    if not texts:
        raise InvalidRequest("This session has no message to name it by.")
    # With other options, such as the size of the context, an engine may load the model again.
    options = {name: row.parameters[name] for name in ("options",) if name in row.parameters}
    return ChatCompletionRequest.from_dict(
        {
            **options,
            "model": row.model or None,
            "reasoning_effort": "none",
            "messages": [
                {"role": "system", "content": INSTRUCTIONS},
                {"role": "user", "content": "\n\n".join(texts)[:MAX_CHARACTERS]},
            ],
        }
    )


def _name_fields(error: GatewayError) -> None:
    """Let ``error`` name no field: all of them are the session's."""
    error.param = None


def _save(found: Conversation, chosen: str) -> dict[str, Any]:
    with transaction.atomic():
        row = lock_session(found)
        row.title, row.updated_at = chosen, now()
        row.save(update_fields=["title", "updated_at"])
    return present(row)
