"""Items as OpenAI's API has them, and their rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final
from uuid import UUID

from ...._ids import parse_public_id, uuid7
from ...._wire.media import is_data_uri
from ....exceptions import InvalidRequest
from ..models import ITEM_PREFIXES, Attachment, Item, Status
from .files import FILE_KEYS, Media, data_uri

__all__ = [
    "MISSING_FILE",
    "Locate",
    "as_openai",
    "inlined",
    "item_key",
    "join_messages",
    "new_rows",
    "text_of",
]

#: The types of items that belong to a message of the model in a session.
ASSISTANT_PARTS: Final = frozenset({"reasoning", "function_call", "custom_tool_call"})
#: The types whose objects always have a status.
WITH_STATUS: Final = ASSISTANT_PARTS | {
    "custom_tool_call_output",
    "function_call_output",
    "message",
}
GENERATED_IMAGE: Final = "image_generation_call"
MAX_TYPE: Final = 40
#: The text that a model gets in place of a file that the storage has lost.
MISSING_FILE: Final = "[The file no longer exists.]"

#: Return the address, or the content as a data URI, of a file by its hexadecimal id; ``None`` if it
#: is lost.
Locate = Callable[[str], str | None]


def item_key(item_id: str) -> UUID | None:
    """Return the key of the row with the public id ``item_id``; ``None`` if it is no such id."""
    prefix = item_id.partition("_")[0]
    known = {*ITEM_PREFIXES.values(), "item"}
    return parse_public_id(prefix, item_id) if prefix in known else None


def new_rows(
    items: Iterable[dict[str, Any]], media: Media, *, param: str = "items", keep_ids: bool = False
) -> list[Item]:
    """Return rows, not inserted yet, for OpenAI's ``items``, which are validated.

    Strings as content become parts. ``media`` receives the images, audio and files. ``keep_ids`` is
    for items that the gateway has made, whose ids clients know already; others get new ids.

    Raises:
        InvalidRequest: An image is none, or the type of an item is too long.
    """
    rows = []
    for number, item in enumerate(items):
        place = f"{param}[{number}]"
        type_ = item.get("type") or "message"
        if len(type_) > MAX_TYPE:
            raise InvalidRequest(
                f"Invalid value for '{place}.type': it may have up to {MAX_TYPE} characters.",
                param=f"{place}.type",
            )
        key = item_key(str(item.get("id", ""))) if keep_ids else None
        row = Item(id=key or uuid7(), type=type_)
        own = {"id", "type"}
        if type_ == "message":
            row.role = item.get("role") or ""
            own.add("role")
        status = item.get("status")
        if status in Status.values:
            row.status = status
        if type_ in WITH_STATUS:
            own.add("status")
        row.data = {name: value for name, value in item.items() if name not in own}
        if type_ == "message" and isinstance(row.data.get("content"), str):
            kind = "output_text" if row.role == "assistant" else "input_text"
            row.data["content"] = [_text_part(kind, row.data["content"])]
        _take_files(row, media, place)
        row.text = text_of(row)
        rows.append(row)
    join_messages(rows)
    return rows


def _take_files(row: Item, media: Media, place: str) -> None:
    """Replace the files in the data of ``row`` by their ids."""
    for name in ("content", "output", "outputs"):
        value = row.data.get(name)
        if isinstance(value, list):
            row.data[name] = [
                _stored_part(part, media, row, f"{place}.{name}[{number}]")
                for number, part in enumerate(value)
            ]
        elif isinstance(value, dict):
            row.data[name] = _stored_part(value, media, row, f"{place}.{name}")
    if row.type == GENERATED_IMAGE:
        result = row.data.get("result")
        if isinstance(result, str):
            taken = media.take_file(result, f"{place}.result", item=row)
            row.data["result"] = {"type": "input_file", **taken}
        elif result is not None:
            row.data["result"] = None


def _text_part(kind: str, text: str) -> dict[str, Any]:
    if kind == "output_text":
        return {"type": kind, "text": text, "annotations": [], "logprobs": []}
    return {"type": kind, "text": text}


def _stored_part(part: Any, media: Media, row: Item, param: str) -> Any:
    key = FILE_KEYS.get(str(part.get("type"))) if isinstance(part, dict) else None
    if key is None:
        return part
    # A client cannot refer to a file by its id.
    rest = {name: value for name, value in part.items() if name not in (key, "file", "prefix")}
    value = part.get(key)
    if key == "input_audio" and isinstance(value, dict) and isinstance(value.get("data"), str):
        format = str(value.get("format"))
        return {**rest, **media.take_audio(value["data"], format, f"{param}.{key}.data", item=row)}
    if key == "file_data" and isinstance(value, str):
        return {**rest, **media.take_file(value, f"{param}.{key}", item=row)}
    if isinstance(value, str) and is_data_uri(value):
        return {**rest, **media.take_image(value, f"{param}.{key}", item=row)}
    if isinstance(value, str) and not value.lower().startswith(("http://", "https://")):
        # Members of a workspace may read it, in pages that show it.
        raise InvalidRequest(
            f"Invalid value for '{param}.{key}': input should be a data URI or an http(s) URL.",
            param=f"{param}.{key}",
        )
    return rest if key not in part else {**rest, key: value}


def join_messages(rows: Sequence[Item]) -> None:
    """Make the reasoning and the tool calls among ``rows`` parts of the message of the model that
    they belong to in a session: the message between them, or else the first of them."""
    group: list[Item] = []
    for row in [*rows, None]:
        is_message = row is not None and row.type == "message" and row.role == "assistant"
        is_part = row is not None and (row.type in ASSISTANT_PARTS or is_message)
        begins = row is not None and (is_message or row.type == "reasoning")
        if not is_part or (begins and any(each.type != "reasoning" for each in group)):
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
    if row.type in WITH_STATUS:
        item["status"] = row.status
    for name, value in row.data.items():
        if isinstance(value, list):
            item[name] = [_sent_part(part, locate) for part in value]
        elif name == "result" and row.type == GENERATED_IMAGE and isinstance(value, dict):
            item[name] = _sent_part(value, locate).get("file_data")
        else:
            item[name] = _sent_part(value, locate)
    return item


def _sent_part(part: Any, locate: Locate) -> Any:
    if not isinstance(part, dict):
        return part
    key = FILE_KEYS.get(str(part.get("type")))
    if key is None or not isinstance(part.get("file"), str):
        return part
    rest = {name: value for name, value in part.items() if name not in ("file", "prefix", "format")}
    found = locate(part["file"])
    if found is None:
        return {"type": "input_text", "text": MISSING_FILE}
    data = found.partition(",")[2] if is_data_uri(found) else found
    if key == "input_audio":
        return {**rest, key: {"data": data, "format": part["format"]}}
    if key == "file_data" and is_data_uri(found):
        return {**rest, key: f"{part['prefix']},{data}" if part.get("prefix") else data}
    return {**rest, key: found}


def inlined(attachments: dict[str, Attachment]) -> Locate:
    """Return the function that reads the files of ``attachments``, as data URIs; ``None`` stands
    for one that is no longer in the storage."""

    def locate(digits: str) -> str | None:
        try:
            return data_uri(attachments[digits])
        except (KeyError, FileNotFoundError):
            return None

    return locate
