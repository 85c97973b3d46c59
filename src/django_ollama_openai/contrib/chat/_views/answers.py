"""Answer in a session: from the request to the stored answer, for new messages and
regenerations."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID

from django.http.response import HttpResponseBase

from ...._gateway.flow import Flow, call
from ...._ids import public_id, uuid7
from ...._threads import in_separate_thread
from ...._wire.chat import ChatCompletionRequest
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
from ....exceptions import InvalidRequest
from .._answers import live
from .._answers.context import TruncatingStage
from .._answers.recorder import MessageRecorder, MessageWriter
from .._answers.streams import follow
from .._store.files import Media, stored
from .._store.history import read_history
from .._store.runs import ConversationLocked, begin_message, check_not_answering, lock_row
from .._store.tree import path_to
from ..models import Conversation, Item
from .callers import Owner

__all__ = ["Question", "answer", "completion_id", "in_store"]

#: No text has more characters for each token.
CHARACTERS_PER_TOKEN: Final = 8
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
    """What an answer follows: the new messages ``rows``, placed after the message ``after``.

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
    name_fields: Any = None

    @property
    def user_message_id(self) -> str | None:
        """Return the public id of the message that is answered."""
        head = next((row for row in reversed(self.rows) if row.head_id is None), self.after)
        return None if head is None else public_id("msg", head.pk)


def answer(admission: Admission[Any], owner: Owner, question: Question) -> Flow[Any]:
    """Answer ``question``, and return the reply, or the stream of an answer in the background.

    Raises:
        GatewayError: The request is refused. Nothing is stored then.
    """
    request = yield from in_store(_chat_request, admission, question)
    if question.is_background:
        live.check_capacity()
    admission = yield from admit_chat(admission, request, name_fields=question.name_fields)
    yield from fetch_remote_images(admission)
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
        yield from in_store(_begin, owner, question, route.name, recorder)
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
    return reply


def _chat_request(admission: Admission[Any], question: Question) -> ChatCompletionRequest:
    """Return the request for the engine: the instructions, then the path.

    Raises:
        InvalidRequest: A field is invalid; the error names it as the client does.
        ConversationLocked: Another answer is running.
    """
    session, fields = question.conversation, question.fields
    check_not_answering(session)
    settings = admission.settings
    options = fields.get("options")
    num_ctx = options.get("num_ctx") if isinstance(options, dict) else None
    limit = settings.MAX_PROMPT_CHARACTERS
    if isinstance(num_ctx, int) and num_ctx > 0:
        limit = min(limit, num_ctx * CHARACTERS_PER_TOKEN)
    own = len(session.instructions or "") + sum(len(row.text) for row in question.rows)
    history, question.left_out = read_history(path_to(question.after), max(0, limit - own))
    messages = [*history, *question.messages]
    if session.instructions:
        messages.insert(0, {"role": "system", "content": session.instructions})
    if not messages:
        raise InvalidRequest("This session has no message to answer.")
    tools = {"tools": session.tools} if session.tools and "tools" not in fields else {}
    body = {**session.parameters, **tools, **fields, "messages": messages, "stream": True}
    if not body.get("model") and session.model:
        body["model"] = session.model
    try:
        return ChatCompletionRequest.from_dict(body)
    except InvalidRequest as error:
        if question.name_fields is not None:
            question.name_fields(error)
        raise


def completion_id(answer_id: UUID) -> str:
    """Return the id of the completion that the message ``answer_id`` was streamed as."""
    return f"chatcmpl-{answer_id.hex}"


def _begin(owner: Owner, question: Question, model: str, recorder: MessageRecorder) -> None:
    """Store the new messages and the beginning of the answer, and begin to record it.

    Raises:
        ConversationLocked: Another answer is running, or was added meanwhile.
        NotFound: The session was deleted meanwhile.
        InvalidRequest: The message that is answered was deleted meanwhile.
        Overloaded: The process writes too many answers in the background.
    """
    after, truncated = question.after, recorder.truncated
    with live.reserved(is_background=question.is_background):
        with stored(question.media):
            row = lock_row(question.conversation.pk, owner.text)
            if question.is_leaf and row.leaf_id != (None if after is None else after.pk):
                raise ConversationLocked
            if after is not None and not Item.objects.filter(pk=after.pk).exists():
                raise InvalidRequest("The message to answer was deleted.", param="parent_id")
            _, run = begin_message(
                row,
                question.rows,
                after,
                model=model,
                answer_id=question.answer_id,
                is_background=question.is_background,
                answer={"truncated_messages": truncated} if truncated else {},
            )
        recorder.start(run, is_stored=question.is_stream or question.is_background)
