"""Items in the answers of OpenAI's stateful API, and in its requests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field
from typing_extensions import TypedDict

from ....endpoints import QueryParameters
from ..._lists import page
from .._store.files import inline
from .._store.items import Locate, as_openai
from ..models import Item, Status

__all__ = [
    "ItemAnswer",
    "ItemQuery",
    "ItemsAnswer",
    "RetrieveQuery",
    "item_list",
    "present",
    "with_files",
]


class InputAudioAnswer(TypedDict):
    data: str
    format: str


class PartAnswer(TypedDict, total=False):
    """A part of the content of an item."""

    type: str
    text: str
    refusal: str
    image_url: str
    detail: str | None
    input_audio: InputAudioAnswer
    annotations: list[Any]
    logprobs: list[Any]


class ItemAnswer(TypedDict, total=False):
    """An item of a conversation; each type has fields of its own."""

    id: str
    type: str
    status: Literal["in_progress", "completed", "incomplete"]
    role: str
    content: list[PartAnswer]
    phase: str
    summary: list[PartAnswer]
    encrypted_content: str
    call_id: str
    name: str
    namespace: str
    arguments: str
    input: str
    output: str | list[PartAnswer]


class ItemsAnswer(TypedDict):
    """A page of items."""

    object: Literal["list"]
    data: list[ItemAnswer]
    first_id: str | None
    last_id: str | None
    has_more: bool


class RetrieveQuery(QueryParameters):
    """The query parameters of one item, or of new ones. ``include`` has no effect: all that can be
    included is in the answer anyway."""

    include: Annotated[list[str], Field(max_length=100)] = Field(default_factory=list)


class ItemQuery(RetrieveQuery):
    """The query parameters of a list of items."""

    limit: int = Field(20, ge=1, le=100)
    order: Literal["asc", "desc"] = "desc"
    after: str | None = None


def present(row: Item, locate: Locate) -> dict[str, Any]:
    """Return OpenAI's object for ``row``, with one of OpenAI's states."""
    item = as_openai(row, locate)
    if item.get("status") == Status.FAILED:
        item["status"] = Status.INCOMPLETE
    return item


def item_list(rows: Sequence[Item], locate: Locate, *, has_more: bool = False) -> dict[str, Any]:
    """Return the page of a list with ``rows``."""
    return page([present(row, locate) for row in rows], has_more=has_more)


def with_files(items: list[dict[str, Any]], owner: str, param: str) -> list[dict[str, Any]]:
    """Return ``items`` of a request with data URIs in place of the addresses of the owner's files.

    Raises:
        InvalidRequest: There is no such file.
    """
    return [
        {
            name: inline(value, owner, f"{param}[{number}].{name}")
            if name in ("content", "output")
            else value
            for name, value in item.items()
        }
        for number, item in enumerate(items)
    ]
