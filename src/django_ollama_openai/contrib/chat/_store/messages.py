"""Messages of sessions, in the form of chat completions, and their rows.

A message of the model is a group of rows: its reasoning, its text, its tool calls.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final, TypeVar

from ...._ids import uuid7
from ...._wire.chat import (
    AssistantMessage,
    ChatCompletionRequest,
    DeveloperMessage,
    Message,
    SystemMessage,
    ToolMessage,
    UserMessage,
)
from ....exceptions import InvalidRequest
from ..models import Item, Status
from .files import Media
from .items import MISSING_FILE, Locate, join_messages, text_of
from .tree import Line

__all__ = [
    "answer_rows",
    "chat_message",
    "content_of",
    "copy_of",
    "group",
    "head_of",
    "message_rows",
    "reasoning_of",
    "role_of",
    "stored_message",
    "tool_calls_of",
]

#: A row, or what engines get of it.
R = TypeVar("R", Item, Line)


def message_rows(message: dict[str, Any], media: Media, *, param: str = "") -> list[Item]:
    """Return rows, not inserted yet, for ``message``, which is validated.

    ``param`` is the field of the request that it stands in, empty for the request itself.

    Raises:
        InvalidRequest: It has the deprecated role ``function``, or a file that is no image.
    """
    role = message["role"]
    if role == "function" or message.get("function_call"):
        raise InvalidRequest(
            "Sessions have 'tool_calls' and messages with the role 'tool' in place of "
            "'function_call'.",
            param=f"{param}.function_call".lstrip("."),
        )
    if role == "assistant":
        return _assistant_rows(message)
    if role == "tool":
        row = Item(id=uuid7(), type="function_call_output")
        content = message["content"]
        row.data = {
            "call_id": message["tool_call_id"],
            "output": content
            if isinstance(content, str)
            else _stored_parts(content, media, row, param),
        }
    else:
        row = Item(id=uuid7(), type="message", role=role)
        row.data = {"content": _stored_parts(message["content"], media, row, param)}
    row.text = text_of(row)
    return [row]


def _stored_parts(content: Any, media: Media, row: Item, param: str) -> list[dict[str, Any]]:
    if isinstance(content, str):
        return [{"type": "input_text", "text": content}]
    parts: list[dict[str, Any]] = []
    for number, part in enumerate(content):
        place = f"{param}.content[{number}]".lstrip(".")
        if part["type"] == "image_url":
            image = part["image_url"]
            detail = {} if image.get("detail") is None else {"detail": image["detail"]}
            taken = media.take_image(image["url"], f"{place}.image_url.url", item=row)
            parts.append({"type": "input_image", **taken, **detail})
        elif part["type"] == "input_audio":
            audio = part["input_audio"]
            place = f"{place}.input_audio.data"
            taken = media.take_audio(audio["data"], audio["format"], place, item=row)
            parts.append({"type": "input_audio", **taken})
        else:
            parts.append({"type": "input_text", "text": part["text"]})
    return parts


def _assistant_rows(message: dict[str, Any]) -> list[Item]:
    content = message.get("content")
    parts = [{"type": "output_text", "text": content}] if isinstance(content, str) else content
    texts = [_output_text(part["text"]) if "text" in part else part for part in parts or ()]
    if message.get("refusal"):
        texts.append({"type": "refusal", "refusal": message["refusal"]})
    calls = []
    for call in message.get("tool_calls") or ():
        if call.get("type") == "custom":
            fields = {"name": call["custom"]["name"], "input": call["custom"]["input"]}
            calls.append(("custom_tool_call", {"call_id": call["id"], **fields}))
        else:
            function = call["function"]
            fields = {"name": function["name"], "arguments": function["arguments"]}
            calls.append(("function_call", {"call_id": call["id"], **fields}))
    reasoning = message.get("reasoning_content") or message.get("reasoning") or ""
    return answer_rows(reasoning, texts, calls, head=Item(id=uuid7()))


def answer_rows(
    reasoning: str,
    texts: list[dict[str, Any]],
    calls: list[tuple[str, dict[str, Any]]],
    *,
    head: Item,
) -> list[Item]:
    """Return the rows of a message of the model, whose own row is ``head``."""
    head.type, head.role = "message", "assistant"
    head.data = {"content": texts}
    head.text = text_of(head)
    rows = [head]
    if reasoning:
        content = [{"type": "reasoning_text", "text": reasoning}]
        rows.insert(0, Item(id=uuid7(), type="reasoning", data={"summary": [], "content": content}))
    rows += [Item(id=uuid7(), type=type_, data=data) for type_, data in calls]
    join_messages(rows)
    return rows


def _output_text(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def group(rows: Sequence[R]) -> list[list[R]]:
    """Return ``rows``, which are in order, by message."""
    groups: list[list[R]] = []
    last = None
    for row in rows:
        key = row.head_id or row.pk
        if key != last:
            groups.append([])
            last = key
        groups[-1].append(row)
    return groups


def chat_message(rows: Sequence[R], locate: Locate) -> dict[str, Any] | None:
    """Return the message that ``rows`` are, as a request for a chat completion has it; ``None`` if
    there is nothing in it for an engine, such as an answer that failed before its first token."""
    head = head_of(rows)
    role = role_of(head)
    if role == "tool":
        return {
            "role": "tool",
            "tool_call_id": head.data.get("call_id"),
            "content": content_of(head, locate),
        }
    if role != "assistant":
        return {"role": role, "content": content_of(head, locate)}
    message: dict[str, Any] = {"role": "assistant", "content": content_of(head, locate) or None}
    reasoning, calls = reasoning_of(rows), tool_calls_of(rows)
    if reasoning:
        message["reasoning_content"] = reasoning
    if calls:
        message["tool_calls"] = calls
    is_empty = message["content"] is None and not calls
    return None if is_empty and (not reasoning or head.status == Status.FAILED) else message


def head_of(rows: Iterable[R]) -> R:
    """Return the row that ``rows``, those of one message, belong to."""
    return next(row for row in rows if row.head_id is None)


def stored_message(message: dict[str, Any]) -> Message:
    """Return the model of ``message``, as :func:`chat_message` makes it. A text was validated
    before it was stored, and there may be thousands of them.

    Raises:
        InvalidRequest: Something in it is not for chat completions.
    """
    kind: Any = _MODELS.get(message["role"])
    content = message["content"]
    is_text = "tool_calls" not in message and (content is None or isinstance(content, str))
    if kind is not None and is_text:
        # Half the time of model_construct().
        text: Message = kind.model_copy(update=message)
        return text
    return ChatCompletionRequest.from_dict({"messages": [message]}).messages[0]


def copy_of(message: Message) -> Message:
    """Return a copy of a message of :func:`stored_message`, which may be changed; of a text in a
    sixth of the time of ``model_copy()``."""
    fields = message.__dict__
    if isinstance(fields["content"], list) or fields.get("tool_calls"):
        return message.model_copy(deep=True)
    made: Message = _new(message.__class__)
    # The slots of a model: a text has no fields but declared ones, and nothing private.
    _set(made, "__dict__", fields.copy())
    _set(made, "__pydantic_fields_set__", message.__pydantic_fields_set__.copy())
    _set(made, "__pydantic_extra__", {})
    _set(made, "__pydantic_private__", None)
    return made


_new, _set = object.__new__, object.__setattr__

_KINDS: Final[dict[str, Any]] = {
    "system": SystemMessage,
    "developer": DeveloperMessage,
    "user": UserMessage,
    "assistant": AssistantMessage,
    "tool": ToolMessage,
}
#: Messages without fields, by role.
_MODELS: Final = {role: kind.model_construct() for role, kind in _KINDS.items()}


def role_of(head: Item | Line) -> str:
    """Return the role of a message."""
    if head.type in ("function_call_output", "custom_tool_call_output"):
        return "tool"
    return head.role or "assistant"


def content_of(head: Item | Line, locate: Locate) -> Any:
    """Return the content of a message: a string if it is one text, else parts."""
    content = head.data.get("content", head.data.get("output"))
    if head.type not in ("message", "function_call_output", "custom_tool_call_output"):
        return ""
    if not isinstance(content, list):
        return content or ""
    if all(part.get("type") in ("input_text", "output_text", "text") for part in content):
        texts = [part["text"] for part in content]
        if len(texts) <= 1 or role_of(head) == "assistant":
            return "".join(texts)
    return [_chat_part(part, locate) for part in content]


def _chat_part(part: dict[str, Any], locate: Locate) -> dict[str, Any]:
    kind = part.get("type")
    if kind == "input_image":
        url = locate(part["file"]) if "file" in part else part.get("image_url")
        if url is None:
            return {"type": "text", "text": MISSING_FILE}
        detail = {"detail": part["detail"]} if part.get("detail") else {}
        return {"type": "image_url", "image_url": {"url": url, **detail}}
    if kind == "input_audio":
        found = locate(part["file"])
        if found is None:
            return {"type": "text", "text": MISSING_FILE}
        data = found.partition(",")[2] if found.startswith("data:") else found
        return {"type": "input_audio", "input_audio": {"data": data, "format": part["format"]}}
    if kind == "refusal":
        return {"type": "refusal", "refusal": part["refusal"]}
    return {"type": "text", "text": part.get("text", "")}


def reasoning_of(rows: Sequence[R]) -> str | None:
    """Return the reasoning of a message of the model, or else its summary."""
    texts = [
        part.get("text", "")
        for row in rows
        if row.type == "reasoning"
        for part in row.data.get("content") or row.data.get("summary") or ()
    ]
    return "\n".join(texts) or None


def tool_calls_of(rows: Sequence[R]) -> list[dict[str, Any]] | None:
    """Return the tool calls of a message of the model."""
    calls = []
    for row in rows:
        data = row.data
        if row.type == "function_call":
            function = {"name": data["name"], "arguments": data["arguments"]}
            calls.append({"id": data["call_id"], "type": "function", "function": function})
        elif row.type == "custom_tool_call":
            custom = {"name": data["name"], "input": data["input"]}
            calls.append({"id": data["call_id"], "type": "custom", "custom": custom})
    return calls or None
