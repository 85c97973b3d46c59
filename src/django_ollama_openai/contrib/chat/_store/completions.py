"""Stored chat completions: their rows, and what clients see of them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final
from uuid import UUID

from django.db import connections
from django.db.models import BooleanField, F, Func, QuerySet, Value

from ...._wire.base import dump_sent
from ...._wire.chat import ChatCompletionRequest
from ..._inserts import insert
from ..models import Completion
from .files import Media, of_completion, stored
from .items import MISSING_FILE, Locate, inlined
from .text import storable

__all__ = [
    "add_completion",
    "add_completions",
    "complete",
    "completion_key",
    "message_rows",
    "messages_of",
    "present",
    "repeated_fields",
    "with_metadata",
]

_ID: Final = re.compile(r"chatcmpl-([0-9a-f]{32})")

#: The fields of messages beside their content.
_MESSAGE_FIELDS: Final = (
    "role",
    "name",
    "refusal",
    "reasoning_content",
    "reasoning",
    "tool_calls",
    "function_call",
    "tool_call_id",
)
#: Parameters of a request that its stored completion repeats.
_REPEATED: Final = (
    "response_format",
    "seed",
    "temperature",
    "top_p",
    "presence_penalty",
    "frequency_penalty",
)

#: Stored as text: MariaDB's JSON may have 32 levels only.
_WITH_SCHEMAS: Final = ("tools", "response_format")


def completion_key(completion_id: str) -> UUID | None:
    """Return the key of the row with the public id ``completion_id``; ``None`` if it is no such
    id."""
    match = _ID.fullmatch(completion_id)
    return None if match is None else UUID(match[1])


def message_rows(
    request: ChatCompletionRequest, row: Completion, media: Media
) -> list[dict[str, Any]]:
    """Return the messages of ``request`` as ``row`` has them; ``media`` receives the images and
    audio.

    Raises:
        InvalidRequest: An image is no PNG, JPEG, GIF or WebP image.
    """
    messages = []
    for number, message in enumerate(request.messages):
        sent = message.dump_sent()
        content = sent.get("content")
        parts = None
        if isinstance(content, list):
            place = f"messages[{number}].content"
            parts = [
                _stored_part(part, row, media, f"{place}[{index}]")
                for index, part in enumerate(content)
            ]
            content = None
        fields = {name: sent[name] for name in _MESSAGE_FIELDS if name in sent}
        messages.append(fields | {"content": content, "content_parts": parts})
    return messages


def _stored_part(part: dict[str, Any], row: Completion, media: Media, param: str) -> dict[str, Any]:
    kind = part["type"]
    if kind == "image_url":
        image = part["image_url"]
        detail: dict[str, str] = {"detail": image["detail"]} if image.get("detail") else {}
        taken = media.take_image(image["url"], f"{param}.image_url.url", completion=row)
        return {"type": kind, **taken, **detail}
    if kind == "input_audio":
        audio = part["input_audio"]
        return {"type": kind, **media.take_audio(audio["data"], audio["format"], completion=row)}
    return {"type": kind, kind: part[kind]}


def repeated_fields(request: ChatCompletionRequest, request_id: str) -> dict[str, Any]:
    """Return the fields of ``request`` that its stored completion repeats."""
    further = request.model_extra or {}
    # Deprecated functions have been turned into tools.
    tools = () if request.functions else ("tools", "tool_choice")
    return {
        "request_id": request_id,
        **dict.fromkeys(("tools", "tool_choice")),
        **{name: dump_sent(getattr(request, name)) for name in (*tools, *_REPEATED)},
        "input_user": further.get("user"),
        "service_tier": further.get("service_tier"),
    }


def complete(row: Completion, completion: dict[str, Any]) -> None:
    """Set the answer of ``row``, which is not inserted yet, to the whole ``completion``."""
    body = {**completion, **row.body}
    row.body = {**body, **{name: json.dumps(body[name]) for name in _WITH_SCHEMAS}}


def add_completion(row: Completion, media: Media) -> None:
    """Insert ``row`` with its files."""
    with stored(media):
        row.save(force_insert=True)


def add_completions(rows: Sequence[Completion]) -> None:
    """Insert ``rows``, which have no files."""
    insert(rows)


def with_metadata(rows: QuerySet[Completion], pairs: Mapping[str, str]) -> QuerySet[Completion]:
    """Return those of ``rows`` whose metadata has all ``pairs``.

    Django's lookups of keys take ``"0"`` for an index, and some databases' paths know no quotes.
    """
    wanted = storable(dict(pairs))
    if not wanted:
        return rows
    if connections[rows.db].features.supports_json_field_contains:
        return rows.filter(metadata__contains=wanted)
    return rows.filter(_ContainsPairs(Value(json.dumps(wanted)), F("metadata")))


class _ContainsPairs(Func):
    """The condition, in SQLite, that the second JSON object has all pairs of the first one."""

    template = "NOT EXISTS (SELECT key, value FROM json_each(%(expressions)s))"
    arg_joiner = ") EXCEPT SELECT key, value FROM json_each("
    output_field = BooleanField()


def present(row: Completion) -> dict[str, Any]:
    """Return OpenAI's object for ``row``."""
    schemas = {name: json.loads(row.body[name]) for name in _WITH_SCHEMAS}
    return {**row.body, **schemas, "metadata": row.metadata}


def messages_of(row: Completion, numbers: Iterable[int]) -> list[dict[str, Any]]:
    """Return OpenAI's objects for the messages of ``row`` with these ``numbers``, from 0. Images
    and audio are inside, as requests have them: what clients send on needs no key then."""
    locate = inlined(of_completion(row))
    return [
        {"id": f"{row.public_id}-{number}", **_sent_message(row.messages[number], locate)}
        for number in numbers
    ]


def _sent_message(message: dict[str, Any], locate: Locate) -> dict[str, Any]:
    parts = message["content_parts"]
    sent = None if parts is None else [_sent_part(part, locate) for part in parts]
    return {"name": None, **message, "content_parts": sent}


def _sent_part(part: dict[str, Any], locate: Locate) -> dict[str, Any]:
    if part["type"] not in ("image_url", "input_audio"):
        return part
    found = locate(part["file"]) if "file" in part else part["image_url"]
    if found is None:
        return {"type": "text", "text": MISSING_FILE}
    if part["type"] == "image_url":
        detail = {"detail": part["detail"]} if "detail" in part else {}
        return {"type": "image_url", "image_url": {"url": found, **detail}}
    data = found.partition(",")[2]
    return {"type": "input_audio", "input_audio": {"data": data, "format": part["format"]}}
