"""Answer in a session: from the request to the stored answer, for new messages and
regenerations."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Final
from uuid import UUID

from django.db import transaction
from django.http.response import HttpResponseBase

from ...._gateway.admission import CHARACTERS_PER_TOKEN, NameFields
from ...._gateway.flow import Flow, call
from ...._gateway.routing import resolve_model
from ...._ids import public_id, uuid7
from ...._threads import in_separate_thread
from ...._wire.case import to_camel, to_snake
from ...._wire.chat import ChatCompletionRequest, ImagePart
from ...._wire.sse import DONE
from ....endpoints import (
    Admission,
    ChatCompletionStream,
    Reply,
    WholeChatCompletion,
    admit_chat,
    fetch_remote_images,
    run_chat,
)
from ....exceptions import GatewayError, InvalidRequest
from ..._group_writer import GroupWriter
from .._answers import live
from .._answers.context import TruncatingStage
from .._answers.recorder import MessageRecorder, MessageWriter
from .._answers.streams import follow
from .._store.files import Media, stored
from .._store.history import characters_of, read_history
from .._store.messages import head_of, stored_message
from .._store.runs import (
    ConversationLocked,
    HasChanged,
    Start,
    begin_message,
    begin_next,
    check_not_answering,
)
from .._store.tree import path_to
from ..models import Conversation, Item
from .callers import lock_session, rename_field

__all__ = ["Question", "answer", "completion_id", "in_store"]

HEADER: Final = "x-truncated-messages"


def in_store(function: Any, *args: Any, **kwargs: Any) -> Flow[Any]:
    """Call ``function``, which uses the database, in a thread that keeps its connection."""

    def call_here() -> Any:
        return function(*args, **kwargs)

    async def call_there() -> Any:
        return await in_separate_thread(call_here)

    return (yield from call(call_here, call_there))


@dataclass(slots=True)
class Question:
    """The messages that an answer follows: the new ones, ``rows``, after the message ``after``.

    ``is_leaf`` says that ``after`` is the end of the current branch, so that nobody may have added
    to it meanwhile. ``fields`` are those of the request for a chat completion.
    """

    conversation: Conversation
    after: Item | None
    rows: list[Item] = field(default_factory=list)
    media: Media = field(default_factory=Media)
    #: The new message as requests have it.
    messages: list[dict[str, Any]] = field(default_factory=list)
    fields: dict[str, Any] = field(default_factory=dict)
    is_leaf: bool = False
    is_stream: bool = False
    is_background: bool = False
    left_out: int = 0
    answer_id: UUID = field(default_factory=uuid7)

    @property
    def user_message_id(self) -> str | None:
        """Return the public id of the message that is answered."""
        head = next((row for row in reversed(self.rows) if row.head_id is None), self.after)
        return None if head is None else public_id("msg", head.pk)

    @property
    def end(self) -> int | None:
        """Return the sequence number of the last item of the session, if that is ``after``, whose
        message has no other items."""
        row, after = self.conversation, self.after
        if not self.is_leaf:
            return None
        is_last = row.sequence == 0 if after is None else after.sequence == row.sequence
        is_own = after is None or after.conversation_id == row.pk
        return row.sequence if is_last and is_own else None

    def keep_images(self, request: ChatCompletionRequest) -> None:
        """Store the images of the new message that ``request`` has fetched, so that later answers
        do not depend on their addresses."""
        if not self.messages or not isinstance(sent := request.messages[-1].content, list):
            return
        row = head_of(self.rows)
        name = "content" if "content" in row.data else "output"
        for number, (part, stored_part) in enumerate(zip(sent, row.data[name], strict=True)):
            if isinstance(part, ImagePart) and "file" not in stored_part and part.image_url.data:
                url = f"data:image/png;base64,{b64encode(part.image_url.data).decode()}"
                taken = self.media.take_image(url, f"content[{number}].image_url.url", item=row)
                row.data[name][number] = {**stored_part, **taken}
                del row.data[name][number]["image_url"]

    @property
    def is_next(self) -> bool:
        """Return whether the answer may begin as most do: see :func:`~.._store.runs.begin_next`."""
        return self.end is not None and not self.media.found and not self.is_background

    def existing(self) -> Item | None:
        """Return the message ``after``, as it is now: the session is locked.

        Raises:
            InvalidRequest: It was deleted meanwhile.
        """
        if self.after is None:
            return None
        found = Item.objects.filter(pk=self.after.pk).first()
        if found is None:
            raise InvalidRequest("The message to answer was deleted.")
        return found


def answer(
    admission: Admission[Any],
    find: Callable[[], Question],
    show: Callable[[Question], Flow[HttpResponseBase]],
) -> Flow[Any]:
    """Answer the question that ``find`` reads from the database, and return the reply; in the
    background, the stream or what ``show`` returns.

    Raises:
        GatewayError: The request is refused. Nothing is stored then.
    """
    prepared = yield from in_store(_prepared, admission, find)
    question, admission, request, name_fields = prepared
    if question.is_background:
        live.check_capacity()
    admission = yield from admit_chat(admission, request, name_fields=name_fields)
    # Before anything is stored: they may be refused.
    yield from fetch_remote_images(admission)
    question.keep_images(request)
    route = admission.engine_route
    ids = {
        "session_id": question.conversation.public_id,
        "message_id": public_id("msg", question.answer_id),
        "user_message_id": question.user_message_id,
    }
    inner: ChatCompletionStream | WholeChatCompletion
    case = admission.mount.case
    if question.is_stream or question.is_background:
        inner = ChatCompletionStream(
            route.name,
            case,
            include_usage=request.include_usage,
            id=completion_id(question.answer_id),
            first=ids,
            is_early=True,
            is_numbered=True,
        )
        further = inner.last
    else:
        inner = WholeChatCompletion(route.name, case, further=ids)
        further = inner.further
    writer = MessageWriter(inner, question.answer_id)
    recorder = MessageRecorder(writer)
    before = question.left_out

    def note(dropped: int) -> None:
        recorder.truncated = further["truncated_messages"] = before + dropped
        if not question.is_stream:
            admission.headers[HEADER] = str(before + dropped)

    if before:
        note(0)
    try:
        yield from _begin(question, route.name, recorder)
    except BaseException:
        # A thread may begin the answer after its request was cancelled.
        recorder.abandon()
        raise
    reply: Reply = yield from run_chat(
        admission,
        stages=[lambda request: TruncatingStage(request, note)],
        recorder=recorder,
        writer=writer,
        is_stream=question.is_stream,
        stopper=recorder.answer.stopper,
        is_detached=question.is_background,
    )
    if question.is_background and question.is_stream:
        keepalive = admission.settings.STREAM_KEEPALIVE_SECONDS
        disconnected = admission.incoming.is_disconnected
        response: HttpResponseBase = yield from follow(
            recorder.answer.run.pk, -1, keepalive, closing=DONE, is_disconnected=disconnected
        )
        return response
    if question.is_background:
        return (yield from show(question))
    return reply


def _prepared(
    admission: Admission[Any], find: Callable[[], Question]
) -> tuple[Question, Admission[Any], ChatCompletionRequest, NameFields]:
    question = find()
    return question, *_chat_request(admission, question)


def _chat_request(
    admission: Admission[Any], question: Question
) -> tuple[Admission[Any], ChatCompletionRequest, NameFields]:
    """Return the admission with the route, the request for the engine: the instructions, then the
    path; and the function that lets errors name the fields of the client's request.

    Raises:
        InvalidRequest: A field is invalid; the error names it as the client does.
        ModelNotFound: The caller may not use the model.
        ConversationLocked: Another answer is running.
    """
    session, settings = question.conversation, admission.settings
    check_not_answering(session)
    parameters, fields = _other(session.parameters, question.fields), question.fields
    body = {**parameters, **fields, "stream": True}
    if session.tools and "tools" not in fields:
        body["tools"] = session.tools
    body["model"] = body.get("model") or session.model or None
    name_fields = partial(_name_fields, list(parameters), None)
    try:
        # The messages are added below: those of the session have been validated before.
        request = ChatCompletionRequest.from_dict({**body, "messages": question.messages or _NONE})
    except InvalidRequest as error:
        partial(_name_fields, list(parameters), 0)(error)
        raise
    route = resolve_model(request.model, admission.mount, settings, admission.caller)
    given = None if request.options is None else request.options.num_ctx
    num_ctx = given or route.options.get("num_ctx")
    limit = settings.MAX_PROMPT_CHARACTERS
    if isinstance(num_ctx, int) and num_ctx > 0:
        limit = min(limit, num_ctx * CHARACTERS_PER_TOKEN)
    path = path_to(question.after, question.end)
    own = len(session.instructions) + characters_of(question.rows)
    total = session.message_count if question.is_leaf else None
    try:
        history, question.left_out = read_history(path, max(0, limit - own), total)
    except InvalidRequest as error:
        name_fields(error)
        raise
    if session.instructions:
        instructions = {"role": "system", "content": session.instructions}
        history.insert(0, stored_message(instructions))
    new = request.messages if question.messages else []
    if not history and not new:
        raise InvalidRequest("This session has no message to answer.")
    request.messages = [*history, *new]
    if new:
        name_fields = partial(_name_fields, list(parameters), len(history))
    return replace(admission, route=route), request, name_fields


def completion_id(answer_id: UUID) -> str:
    """Return the id of the completion that the message ``answer_id`` was streamed as."""
    return f"chatcmpl-{answer_id.hex}"


_NONE: Final = [{"role": "user", "content": ""}]


def _other(parameters: dict[str, Any], fields: dict[str, Any]) -> dict[str, Any]:
    """Return those of ``parameters`` that are not among ``fields``, in either spelling."""
    given = set(map(to_camel, fields))
    return {name: value for name, value in parameters.items() if to_camel(name) not in given}


def _name_fields(parameters: list[str], number: int | None, error: GatewayError) -> None:
    """Let ``error`` name a field of the client's request: of the message, which is that with
    ``number`` of all messages, or of the session's ``parameters``."""
    if number is not None:
        rename_field(error, f"messages[{number}]", "")
    if error.param == "messages":
        rename_field(error, "messages", "" if number is None else "content")
    elif error.param is not None and error.param.startswith("messages["):
        # A message of the history, which is in no field of the request.
        error.param = None
    for name in parameters:
        for spelling in (name, to_snake(name)):
            rename_field(error, spelling, f"parameters.{name}")


def _begin(question: Question, model: str, recorder: MessageRecorder) -> Flow[None]:
    """Store the new messages and the beginning of the answer, and begin to record it.

    Raises:
        ConversationLocked: Another answer is running, or was added meanwhile.
        NotFound: The session was deleted meanwhile.
        InvalidRequest: The message that is answered was deleted meanwhile.
        Overloaded: The process writes too many answers in the background.
    """
    truncated = recorder.truncated
    answer = {"model": model, **({"truncated_messages": truncated} if truncated else {})}
    if question.is_next:
        beginning = _Beginning(question, answer, recorder)
        yield from call(_begin_one, _beginnings.write, beginning)
        if beginning.has_begun:
            return
    yield from in_store(_begin_anywhere, question, answer, recorder)


def _begin_anywhere(question: Question, answer: dict[str, Any], recorder: MessageRecorder) -> None:
    with live.reserved(is_background=question.is_background):
        with stored(question.media):
            row = lock_session(question.conversation)
            after = question.existing()
            if question.is_leaf and row.leaf_id != (None if after is None else after.pk):
                raise ConversationLocked
            run = begin_message(
                row,
                question.rows,
                after,
                answer_id=question.answer_id,
                is_background=question.is_background,
                answer=answer,
            )
        recorder.start(run, is_stored=question.is_stream or question.is_background)


@dataclass(slots=True)
class _Beginning:
    """An answer that begins with the fewest statements, as most can: after the last message."""

    question: Question
    answer: dict[str, Any]
    recorder: MessageRecorder
    has_begun: bool = False


def _begin_group(beginnings: list[_Beginning]) -> None:
    starts = [
        Start(each.question.conversation, each.question.rows, each.question.answer_id, each.answer)
        for each in beginnings
    ]
    with transaction.atomic():
        runs = begin_next(starts)
    for each, run in zip(beginnings, runs, strict=True):
        if run is not None:
            # Here, so that it is recorded even if its request was cancelled meanwhile.
            each.recorder.start(run, is_stored=each.question.is_stream)
            each.has_begun = True


def _begin_one(beginning: _Beginning) -> None:
    with suppress(HasChanged):
        _begin_group([beginning])


_beginnings: Final = GroupWriter("messages", _begin_group, _begin_one)
