"""``v1/responses…``: OpenAI's Responses API with all that is stateful in it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, Literal
from uuid import UUID

from django.http import HttpResponse
from django.http.response import HttpResponseBase
from django.utils.timezone import now
from pydantic import Field
from typing_extensions import TypedDict

from ...._gateway.admission import CHARACTERS_PER_TOKEN
from ...._gateway.flow import Flow
from ...._ids import parse_public_id, public_id, uuid7
from ...._translation.response_object import response_usage
from ...._translation.responses_request import chat_request
from ...._translation.spelling import Speller
from ...._wire.case import Case, camel_keys
from ...._wire.delta import Delta, Usage, fold
from ...._wire.response_models.responses import Response as ResponseAnswer
from ...._wire.response_models.responses import ResponseEvent, ResponseUsage
from ...._wire.responses import (
    CompactionItem,
    InputImagePart,
    InputItem,
    ItemReference,
    ResponsesRequest,
)
from ...._wire.sse import encode_json, named_frame
from ....endpoints import (
    Admission,
    Endpoint,
    Reply,
    admit_response,
    admit_without_engine,
    fetch_remote_images,
    response_writer,
    run_chat,
)
from ....exceptions import GatewayError, InvalidRequest, NotFound, UpstreamError
from ..._lists import Deleted, unknown_cursor
from .._answers import live
from .._answers.context import TruncatingStage
from .._answers.responses import ResponseRecorder, StoredResponseWriter
from .._answers.streams import follow
from .._store.compaction import readable, seal
from .._store.drafts import Draft, new_draft
from .._store.files import Media, load, stored
from .._store.history import read_items
from .._store.items import as_openai, inlined, item_key
from .._store.retention import delete_response
from .._store.runs import (
    LAST_EVENT,
    ConversationLocked,
    begin_response,
    end_expired,
    end_now,
    existing_leaf,
    lock_row,
    request_stop,
)
from .._store.tree import path_to
from ..models import Conversation, Item, Response, Run, Status, parse_hex
from .answers import in_store
from .callers import SCOPE, Owner, locate
from .conversations import find, find_item
from .items import (
    ItemAnswer,
    ItemQuery,
    ItemsAnswer,
    RetrieveQuery,
    item_list,
    present,
    with_files,
)

__all__ = [
    "cancellation",
    "compaction",
    "input_items",
    "input_tokens",
    "response",
    "responses",
]

TAGS: Final = {"Responses": "OpenAI's Responses API"}
RUNNING: Final = (Status.QUEUED, Status.IN_PROGRESS)


# The whole input of a request


@dataclass(slots=True)
class Question:
    """A request with what it continues. ``items`` are those of the client, and ``references`` has,
    for each place of the input, the key of the item that it refers to, or ``None`` for the next of
    ``items``."""

    body: ResponsesRequest
    conversation: Conversation | None = None
    previous: Response | None = None
    leaf_id: UUID | None = None
    items: list[dict[str, Any]] = field(default_factory=list)
    references: list[UUID | None] = field(default_factory=list)
    #: The items of the whole input.
    given: list[dict[str, Any]] = field(default_factory=list)
    response_id: UUID = field(default_factory=uuid7)

    @property
    def instructions(self) -> str | None:
        """Return the instructions of the conversation."""
        return None if self.conversation is None else self.conversation.instructions or None


def find_response(owner: Owner | None, public: str) -> Response | None:
    """Return the response of ``owner`` with the id ``public``, or ``None``. It has ended if the
    process that wrote it was killed, or if its conversation was deleted, and the run with it."""
    pk = parse_public_id(Response.prefix, public)
    if pk is None or owner is None:
        return None
    rows = Response.objects.select_related("conversation", "leaf")
    found = rows.filter(pk=pk, conversation__owner=owner.text).first()
    # One that is not to be kept is there until it ends.
    return None if found is None or found.body.get("store") is False else _refreshed(found)


def _refreshed(row: Response) -> Response | None:
    """Return ``row`` as :func:`find_response` does; ``None`` if it was deleted meanwhile."""
    if row.status not in RUNNING:
        return row
    run = _run_of(row)
    if run is None:
        rows = Response.objects.filter(pk=row.pk, status__in=RUNNING, run=None)
        rows.update(status=Status.INCOMPLETE)
    elif not end_expired(run):
        return row
    return Response.objects.select_related("conversation", "leaf").filter(pk=row.pk).first()


def _question(admission: Admission[ResponsesRequest], owner: Owner | None) -> Question:
    """Return the request of ``admission`` with its whole input.

    Raises:
        GatewayError: Something that it refers to does not exist for ``owner``, or is in use.
    """
    body = admission.body
    question = Question(body)
    leaf = None
    if body.previous_response_id is not None:
        question.previous = _previous(owner, body.previous_response_id)
        leaf = existing_leaf(question.previous)
    elif (conversation_id := body.conversation_id) is not None:
        question.conversation = _conversation(owner, conversation_id)
        leaf = question.conversation.leaf
        question.leaf_id = question.conversation.leaf_id
    text = "" if owner is None else owner.text
    places = dict(body.item_references)
    own = with_files(body.input_items, text, "input")
    given: list[dict[str, Any]] = []
    for number, item in enumerate(own):
        notation = f"input[{number}]"
        if notation in places:
            found = _referenced(owner, places[notation], notation)
            question.references.append(found.pk)
            given.append(as_openai(found, inlined(load([found]))))
        else:
            question.references.append(None)
            question.items.append(item)
            given.append(item)
    instructions = body.instructions or question.instructions or ""
    characters = len(instructions) + sum(map(_characters, given))
    rows = read_items(
        path_to(leaf),
        max(0, admission.settings.MAX_PROMPT_CHARACTERS - characters),
        cuts=body.truncation == "auto",
    )
    attachments = load(rows)
    question.given = [*(as_openai(row, inlined(attachments)) for row in rows), *given]
    question.body = body.with_input([readable(item, text) for item in question.given])
    return question


def _characters(item: dict[str, Any]) -> int:
    """Return the number of characters of the text of ``item``."""
    texts: list[Any] = [item.get(name) for name in ("arguments", "input")]
    for name in ("content", "output"):
        found = item.get(name)
        texts += [part.get("text") for part in found] if isinstance(found, list) else [found]
    return sum(len(text) for text in texts if isinstance(text, str))


def _previous(owner: Owner | None, public: str) -> Response:
    found = find_response(owner, public)
    if found is None:
        raise InvalidRequest(
            f"Previous response with id '{public[:100]}' not found.",
            param="previous_response_id",
            code="previous_response_not_found",
        )
    if found.status in RUNNING:
        raise InvalidRequest(
            f"The response '{public[:100]}' is still in progress.", param="previous_response_id"
        )
    return found


def _conversation(owner: Owner | None, public: str) -> Conversation:
    try:
        if owner is None:
            raise NotFound(f"Conversation with id '{public[:100]}' not found.")
        found = find(owner, public, writes=True)
    except GatewayError as error:
        error.param = "conversation"
        raise
    run = Run.objects.filter(locks=found).first()
    if run is not None:
        if not end_expired(run):
            raise ConversationLocked("conversation")
        found = find(owner, public, writes=True)
    return found


def _referenced(owner: Owner | None, public: str, notation: str) -> Item:
    try:
        if owner is None:
            raise NotFound(f"Item with id '{public[:100]}' not found.")
        return find_item(owner, public)
    except NotFound as error:
        error.param = notation
        raise


def _owner(admission: Admission[Any]) -> Owner | None:
    return None if admission.caller.owner is None else Owner.of(admission.caller)


# Making a response

responses = Endpoint(tags=TAGS)


@responses.post(
    scope="chat",
    name="responses",
    body=ResponsesRequest,
    response=ResponseAnswer,
    event=ResponseEvent,
    makes_chat=True,
    errors=(NotFound,),
    description="`background` is only for a response that is stored.",
)
def create_response(admission: Admission[ResponsesRequest]) -> Flow[Any]:
    """Create a response."""
    owner, body = _owner(admission), admission.body
    is_kept = owner is not None and body.store is not False
    is_background = bool(body.background)
    if is_background and not is_kept:
        raise InvalidRequest(
            "'background' is only for responses that are stored: do not set 'store' to false, and "
            "authenticate.",
            param="background",
        )
    if _stands_alone(body):
        items = body.input_items
        question = Question(body, items=items, references=[None] * len(items), given=items)
    else:
        question = yield from in_store(_question, admission, owner)
    is_stream = bool(body.stream)
    if is_background:
        live.check_capacity()
    if owner is None or not (is_kept or question.conversation is not None):
        admission = yield from admit_response(
            admission, question.body, stateful=True, instructions=question.instructions
        )
        writer = response_writer(admission, stored=False)
        return (yield from run_chat(admission, stages=_stages(body), writer=writer))
    # The engine always sends pieces, so that there is something to keep if the answer breaks off.
    streamed = question.body.model_copy(update={"stream": True})
    admission = yield from admit_response(
        admission, streamed, stateful=True, instructions=question.instructions
    )
    # Before anything is stored: they may be refused.
    yield from fetch_remote_images(admission)
    conversation = question.conversation
    inner = response_writer(
        admission,
        response_id=public_id(Response.prefix, question.response_id),
        stored=is_kept,
        background=is_background,
        conversation=None if conversation is None else conversation.public_id,
        is_stream=is_stream or is_background,
    )
    recorder = ResponseRecorder(StoredResponseWriter(inner), is_kept=is_kept)
    draft = None
    if not (is_background or conversation or question.previous):
        draft = _draft(owner, question, inner.response)
    if draft is not None:
        recorder.start(draft.run, is_stored=False, draft=draft)
    else:
        try:
            yield from in_store(_begin, owner, question, recorder)
        except BaseException:
            # A thread may begin the answer after its request was cancelled.
            recorder.abandon()
            raise
    reply: Reply = yield from run_chat(
        admission,
        stages=_stages(body),
        recorder=recorder,
        writer=recorder.writer,
        is_stream=is_stream,
        stopper=recorder.answer.stopper,
        is_detached=is_background,
    )
    if not is_background:
        return reply
    if reply.ignored_parameters:
        admission.headers["x-ignored-parameters"] = ", ".join(reply.ignored_parameters)
    if is_stream:
        return (yield from _follow(admission, recorder.answer.run, -1))
    return inner.response


def _stages(body: ResponsesRequest) -> list[Any]:
    if body.truncation != "auto":
        return []
    return [lambda request: TruncatingStage(request, lambda dropped: None)]


def _stands_alone(body: ResponsesRequest) -> bool:
    """Return whether ``body`` refers to nothing that is stored."""
    if body.previous_response_id is not None or body.conversation_id is not None:
        return False
    return not any(
        isinstance(item, (CompactionItem, ItemReference)) or _has_image(item)
        for item in (body.input if isinstance(body.input, list) else ())
    )


def _has_image(item: InputItem) -> bool:
    """Return whether ``item`` has an image, which may be the address of a stored file."""
    parts = getattr(item, "content", None) or getattr(item, "output", None)
    return isinstance(parts, list) and any(isinstance(part, InputImagePart) for part in parts)


def _draft(owner: Owner, question: Question, body: dict[str, Any]) -> Draft | None:
    """Return the response to store later; ``None`` if it has files, which are stored first."""
    media = Media()
    draft = new_draft(
        owner=owner.text,
        user_id=owner.user_id,
        response_id=question.response_id,
        body=body,
        items=question.items,
        references=question.references,
        media=media,
    )
    return None if media.found else draft


def _begin(owner: Owner, question: Question, recorder: ResponseRecorder) -> None:
    """Store the input and the beginning of the response.

    Raises:
        ConversationLocked: Another answer is running in the conversation, or was added meanwhile.
        Overloaded: The process writes too many answers in the background.
    """
    media, conversation = Media(), question.conversation
    is_background = bool(question.body.background)
    with live.reserved(is_background=is_background):
        with stored(media):
            if conversation is not None:
                conversation = lock_row(conversation.pk, owner.text)
                if conversation.leaf_id != question.leaf_id:
                    raise ConversationLocked("conversation")
            _, run = begin_response(
                owner=owner.text,
                user_id=owner.user_id,
                response_id=question.response_id,
                body=recorder.writer.inner.response,
                items=question.items,
                references=question.references,
                conversation=conversation,
                previous=question.previous,
                is_background=is_background,
                media=media,
            )
        recorder.start(run, is_stored=is_background)


def _follow(
    admission: Admission[Any],
    run: Run | None,
    after: int,
    otherwise: Callable[[], bytes] | None = None,
) -> Flow[HttpResponseBase]:
    return (
        yield from follow(
            None if run is None else run.pk,
            after,
            admission.settings.STREAM_KEEPALIVE_SECONDS,
            otherwise=otherwise,
            is_disconnected=admission.incoming.is_disconnected,
        )
    )


# Stored responses


def _found(admission: Admission[Any]) -> Response:
    """Return the response of the path.

    Raises:
        NotFound: It does not exist for the caller.
    """
    public = admission.captured["response_id"]
    found = find_response(Owner.of(admission.caller), public)
    if found is None:
        raise NotFound(f"Response with id '{public[:100]}' not found.")
    return found


def _run_of(row: Response) -> Run | None:
    return Run.objects.filter(response=row).first() if row.status in RUNNING else None


def present_response(row: Response, admission: Admission[Any]) -> dict[str, Any]:
    """Return OpenAI's object for ``row``; of a running one with the output that is stored."""
    run, status = _run_of(row), row.status
    if run is not None:
        output = run.output
        status = Status.IN_PROGRESS if output else status
    else:
        found = Item.objects.in_bulk(parse_hex(row.output_ids))
        rows = [found[key] for key in parse_hex(row.output_ids) if key in found]
        output = [present(each, locate(admission)) for each in rows]
    return {**row.body, "status": str(status), "output": output}


class ResponseQuery(RetrieveQuery):
    """The query parameters of a response. ``include_obfuscation`` has no effect."""

    stream: bool = False
    starting_after: int | None = Field(None, ge=0)
    include_obfuscation: bool = False


response = Endpoint(tags=TAGS)


@response.get(
    scope=SCOPE,
    owner=True,
    query=ResponseQuery,
    response=ResponseAnswer,
    event=ResponseEvent,
    errors=(NotFound,),
    description="`stream` is only for responses in the background.",
)
def retrieve_response(admission: Admission[None]) -> Flow[Any]:
    """Retrieve a response, or its events."""
    query = admission.query
    row = yield from in_store(_found, admission)
    if not query.stream:
        return (yield from in_store(present_response, row, admission))
    if not row.background:
        raise InvalidRequest(
            "Invalid value for 'stream': the response was not created in the background.",
            param="stream",
        )
    if admission.request.method == "HEAD":
        return HttpResponse(content_type="text/event-stream; charset=utf-8")
    after = -1 if query.starting_after is None else query.starting_after
    run = yield from in_store(Run.objects.filter(response=row).first)
    return (yield from _follow(admission, run, after, partial(_last_event, admission, after + 1)))


_speller: Final = Speller(ResponseAnswer)


def _last_event(admission: Admission[Any], number: int) -> bytes:
    """Return the last event of a response alone: the others are not kept any more."""
    try:
        shown = present_response(_found(admission), admission)
    except NotFound:
        # Deleted meanwhile.
        return b""
    case = admission.mount.case
    name = f"response.{shown['status']}"
    if shown["status"] not in ("completed", "failed"):
        name = LAST_EVENT
    numbered = {"sequence_number": number}
    event = {"type": name, "response": _speller.spell(shown, case)}
    return named_frame(name, event | (camel_keys(numbered) if case == "camel" else numbered))


@response.delete(scope=SCOPE, owner=True, response=Deleted, errors=(NotFound,))
def remove_response(admission: Admission[None]) -> dict[str, Any]:
    """Delete a response."""
    row = _found(admission)
    delete_response(row)
    return Deleted(id=row.public_id, object="response").model_dump()


cancellation = Endpoint(tags=TAGS)


@cancellation.post(scope=SCOPE, owner=True, response=ResponseAnswer, errors=(NotFound,))
def cancel_response(admission: Admission[None]) -> dict[str, Any]:
    """Cancel a response in the background."""
    row = _found(admission)
    if not row.background:
        raise InvalidRequest("Only a response that was created in the background can be cancelled.")
    run = _run_of(row)
    if run is not None and request_stop(run):
        writing = live.find(run.pk)
        if writing is not None:
            writing.stopper.stop()
        _wait_for_end(run)
    return present_response(_found(admission), admission)


#: A process looks each second whether an answer is to stop, which then takes half a second.
STOP_SECONDS: Final = 5.0
STOP_POLL_SECONDS: Final = 0.05


def _wait_for_end(run: Run) -> None:
    until = time.monotonic() + STOP_SECONDS
    while Run.objects.filter(pk=run.pk, ended_at=None).exists():
        if time.monotonic() >= until:
            # Its process has no time for it.
            rows = Run.objects.filter(pk=run.pk, ended_at=None)
            rows.update(lease_until=now())
            for unended in rows:
                end_now(unended)
            return
        time.sleep(STOP_POLL_SECONDS)


input_items = Endpoint(tags=TAGS)


@input_items.get(scope=SCOPE, owner=True, query=ItemQuery, response=ItemsAnswer, errors=(NotFound,))
def list_input_items(admission: Admission[None]) -> dict[str, Any]:
    """List the items of the input of a response."""
    row, query = _found(admission), admission.query
    keys = parse_hex(row.input_ids)
    if query.order == "desc":
        keys.reverse()
    if query.after is not None:
        key = item_key(query.after)
        if key not in keys:
            raise unknown_cursor(query.after)
        keys = keys[keys.index(key) + 1 :]
    found = Item.objects.in_bulk(keys)
    rows = [found[key] for key in keys if key in found]
    return item_list(rows[: query.limit], locate(admission), has_more=len(rows) > query.limit)


# Counting and compaction


class InputTokens(TypedDict):
    """The number of tokens of an input."""

    object: Literal["response.input_tokens"]
    input_tokens: int


input_tokens = Endpoint(tags=TAGS)


@input_tokens.post(
    scope="chat",
    name="responses.input_tokens",
    body=ResponsesRequest,
    response=InputTokens,
    makes_chat=True,
    errors=(NotFound,),
)
def count_input_tokens(admission: Admission[ResponsesRequest]) -> Flow[Any]:
    """Estimate the number of tokens of an input."""
    question = yield from in_store(_question, admission, _owner(admission))
    body = question.body
    if body.instructions is None:
        body = body.model_copy(update={"instructions": question.instructions})
    chat = chat_request(body)
    yield from admit_without_engine(admission)
    tools = encode_json(chat.dump_known({"tools"})) if chat.tools else b""
    admission.headers["x-estimated"] = "true"
    tokens = -(-(chat.prompt_characters + len(tools)) // CHARACTERS_PER_TOKEN)
    return {"object": "response.input_tokens", "input_tokens": tokens}


class Compaction(TypedDict):
    """A compacted conversation: the user's messages, and one item with the rest of it."""

    id: str
    object: Literal["response.compaction"]
    created_at: int
    output: list[ItemAnswer]
    usage: ResponseUsage


compaction = Endpoint(tags=TAGS)
_ask_for_summary: Final = {
    "type": "message",
    "role": "user",
    "content": "Summarize the conversation so far, for yourself: you will continue it with this "
    "summary and the user's messages alone. Keep all facts, names, figures, decisions, open "
    "questions and results of tools. Write the summary only.",
}
#: Parameters of a response that do not hold for a summary.
_NOT_FOR_SUMMARIES: Final = (
    "tools",
    "tool_choice",
    "text",
    "stream",
    "stream_options",
    "background",
)


@compaction.post(
    scope="chat",
    name="responses.compact",
    body=ResponsesRequest,
    response=Compaction,
    makes_chat=True,
    errors=(NotFound,),
)
def compact_response(admission: Admission[ResponsesRequest]) -> Flow[Any]:
    """Compact a conversation."""
    owner = _owner(admission)
    question = yield from in_store(_question, admission, owner)
    body = question.body.with_input([*question.body.input_items, _ask_for_summary])
    body = body.model_copy(update=dict.fromkeys(_NOT_FOR_SUMMARIES))
    admission = yield from admit_response(
        admission, body, stateful=True, instructions=question.instructions
    )
    messages = [_user_message(item) for item in question.given if item.get("role") == "user"]
    writer = _CompactionWriter(messages, "" if owner is None else owner.text, admission.mount.case)
    return (yield from run_chat(admission, writer=writer))


def _user_message(item: dict[str, Any]) -> dict[str, Any]:
    content = item["content"]
    if isinstance(content, str):
        content = [{"type": "input_text", "text": content}]
    id = item.get("id") or public_id("msg", uuid7())
    own = {"id": id, "type": "message", "role": "user", "status": "completed"}
    return {**item, **own, "content": content}


class _CompactionWriter:
    """Writes the compaction of a conversation, with the model's summary."""

    def __init__(self, messages: list[dict[str, Any]], owner: str, case: Case) -> None:
        self._messages = messages
        self._owner = owner
        self._case = case
        self._deltas: list[Delta] = []

    def begin(self) -> bytes:
        return b""

    def feed(self, delta: Delta) -> bytes:
        self._deltas.append(delta)
        return b""

    def finish(self) -> bytes:
        summary = fold(self._deltas)
        if not summary.content.strip():
            raise UpstreamError("The model has written no summary.")
        item = {
            "id": public_id("cmp", uuid7()),
            "type": "compaction",
            "encrypted_content": seal(summary.content, self._owner),
        }
        answer = {
            "id": public_id(Response.prefix, uuid7()),
            "object": "response.compaction",
            "created_at": int(time.time()),
            "output": [*self._messages, item],
            "usage": response_usage(summary.usage or Usage()),
        }
        return encode_json(_compaction_speller.spell(answer, self._case))

    def fail(self, error: GatewayError) -> bytes:
        return encode_json(error.envelope())


_compaction_speller: Final = Speller(Compaction)
