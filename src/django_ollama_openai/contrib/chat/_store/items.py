"""Items as OpenAI's API has them, and their rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final
from uuid import UUID

from ...._ids import parse_public_id, uuid7
from ..models import ITEM_PREFIXES, Attachment, Item, Status
from .files import Media, data_uri

__all__ = ["Locate", "as_openai", "inlined", "item_key", "join_messages", "new_rows", "text_of"]

#: The types of items that belong to a message of the model in a session.
ASSISTANT_PARTS: Final = frozenset({"reasoning", "function_call", "custom_tool_call"})
_OWN_FIELDS: Final = frozenset({"id", "type", "role", "status"})

#: Return the address, or the content as a data URI, of a file by its hexadecimal id.
Locate = Callable[[str], str]


def item_key(item_id: str) -> UUID | None:
    """Return the key of the row with the public id ``item_id``; ``None`` if it is no such id."""
    prefix = item_id.partition("_")[0]
    known = {*ITEM_PREFIXES.values(), "item"}
    return parse_public_id(prefix, item_id) if prefix in known else None


def new_rows(
    items: Iterable[dict[str, Any]], media: Media, *, param: str = "items", keep_ids: bool = False
) -> list[Item]:
    """Return rows, not inserted yet, for OpenAI's ``items``, which are validated.

    Strings as content become parts. ``media`` receives the images and audio. ``keep_ids`` is for
    items that the gateway has made, whose ids clients know already; others get new ids.
    """
    rows = []
    for number, item in enumerate(items):
        type_ = item.get("type") or "message"
        key = item_key(str(item.get("id", ""))) if keep_ids else None
        row = Item(id=key or uuid7(), type=type_, role=item.get("role") or "")
        status = item.get("status")
        row.status = status if status in Status.values else Status.COMPLETED
        data = {name: value for name, value in item.items() if name not in _OWN_FIELDS}
        kind = "output_text" if row.role == "assistant" else "input_text"
        for name in ("content", "output") if type_ != "reasoning" else ():
            if name == "content" and isinstance(data.get(name), str):
                data[name] = [_text_part(kind, data[name])]
            if isinstance(data.get(name), list):
                data[name] = [
                    _stored_part(part, media, row, f"{param}[{number}].{name}[{place}]")
                    for place, part in enumerate(data[name])
                ]
        row.data = data
        row.text = text_of(row)
        rows.append(row)
    join_messages(rows)
    return rows


def _text_part(kind: str, text: str) -> dict[str, Any]:
    if kind == "output_text":
        return {"type": kind, "text": text, "annotations": [], "logprobs": []}
    return {"type": kind, "text": text}


def _stored_part(part: Any, media: Media, row: Item, param: str) -> Any:
    if not isinstance(part, dict):
        return part
    if part.get("type") == "input_image" and isinstance(part.get("image_url"), str):
        rest = {name: value for name, value in part.items() if name != "image_url"}
        return {**rest, **media.take_image(part["image_url"], f"{param}.image_url", item=row)}
    if part.get("type") == "input_audio" and isinstance(part.get("input_audio"), dict):
        audio = part["input_audio"]
        return {"type": "input_audio", **media.take_audio(audio["data"], audio["format"], item=row)}
    return part


def join_messages(rows: Sequence[Item]) -> None:
    """Make the reasoning and the tool calls among ``rows`` parts of the message of the model that
    they belong to in a session: the message between them, or else the first of them."""
    group: list[Item] = []
    for row in [*rows, None]:
        is_message = row is not None and row.type == "message" and row.role == "assistant"
        is_part = row is not None and (row.type in ASSISTANT_PARTS or is_message)
        if not is_part or (is_message and any(each.type != "reasoning" for each in group)):
            _set_head(group)
            group = []
        if is_part and row is not None:
            group.append(row)


def _set_head(group: list[Item]) -> None:
    if not group:
        return
    head = next((row for row in group if row.type == "message"), group[0])
    for row in group:
        row.head = None if row is head else head


def text_of(row: Item) -> str:
    """Return the text of an item for search: that of its content or output."""
    found = row.data.get("content", row.data.get("output"))
    if row.type == "reasoning":
        return ""
    if isinstance(found, str):
        return found
    texts = []
    for part in found if isinstance(found, list) else ():
        if isinstance(part, dict):
            texts += [part[key] for key in ("text", "refusal") if isinstance(part.get(key), str)]
    return "\n".join(texts)


def as_openai(row: Item, locate: Locate) -> dict[str, Any]:
    """Return OpenAI's object for ``row``. ``locate`` says where its files are."""
    item: dict[str, Any] = {"id": row.public_id, "type": row.type}
    if row.role:
        item["role"] = row.role
    item["status"] = row.status
    for name, value in row.data.items():
        is_parts = name in ("content", "output") and isinstance(value, list)
        item[name] = [_sent_part(part, locate) for part in value] if is_parts else value
    return item


def _sent_part(part: Any, locate: Locate) -> Any:
    if not isinstance(part, dict) or "file" not in part:
        return part
    rest = {name: value for name, value in part.items() if name != "file"}
    found = locate(part["file"])
    if part["type"] == "input_audio":
        data = found.partition(",")[2] if found.startswith("data:") else found
        return {"type": "input_audio", "input_audio": {"data": data, "format": part["format"]}}
    return {**rest, "image_url": found}


def inlined(attachments: dict[str, Attachment]) -> Locate:
    """Return the function that reads the files of ``attachments``, as data URIs."""
    return lambda digits: data_uri(attachments[digits])
