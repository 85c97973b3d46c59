"""Exports of conversations, and conversations made from them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, Final
from uuid import UUID

from ...._ids import uuid7
from ....exceptions import InvalidRequest
from ..models import Branch, Conversation, Item, Response
from .files import Media, load
from .items import Locate, as_openai, inlined, new_rows
from .messages import chat_message, content_of, message_rows, reasoning_of, tool_calls_of
from .tree import groups_of, path_to

__all__ = [
    "all_messages",
    "items_of",
    "markdown",
    "plant",
    "portions",
    "response_items",
    "rows_of_items",
]

#: Messages that are read at once, and the bytes of their files, which are in memory.
PAGE: Final = 100
FILES_AT_ONCE: Final = 8 * 2**20
BATCH: Final = 500
_ROLES: Final = frozenset({"", "assistant", "developer", "system", "user"})
_NOT_ITEMS: Final = frozenset({"id", "status"})


def all_messages(conversation: Conversation) -> Iterator[list[list[Item]]]:
    """Yield the messages of all branches of ``conversation`` in the order they were added, in
    pages. Each is a list of its rows, in order."""
    last = 0
    # No condition on the head: its index has too many rows without one.
    rows = Item.objects.filter(conversation=conversation).order_by("sequence")
    while page := list(rows.filter(sequence__gt=last)[:PAGE]):
        last = page[-1].sequence
        yield groups_of([row for row in page if row.head_id is None])


def portions(groups: Sequence[list[Item]]) -> Iterator[tuple[list[list[Item]], Locate]]:
    """Yield ``groups``, the rows of messages, in portions whose files fit into memory, each with
    the function that returns the content of these."""
    attachments = load([row for rows in groups for row in rows])
    sizes: dict[UUID | None, int] = {}
    for each in attachments.values():
        sizes[each.item_id] = sizes.get(each.item_id, 0) + each.size
    portion: list[list[Item]] = []
    size = 0
    for rows in groups:
        own = sum(sizes.get(row.pk, 0) for row in rows)
        if portion and size + own > FILES_AT_ONCE:
            yield portion, inlined(attachments)
            portion, size = [], 0
        portion.append(rows)
        size += own
    if portion:
        yield portion, inlined(attachments)


class _Unchanged(Media):
    """Leaves files where they are."""

    def take_image(self, url: str, param: str, **of: Any) -> dict[str, Any]:
        return {"image_url": url}

    def take_audio(self, data: str, format: str, param: str = "", **of: Any) -> dict[str, Any]:
        return {"input_audio": {"data": data, "format": format}}


def _placeholder(digits: str) -> str:
    """Return the address of a file whose content is not needed."""
    return f"file:{digits}"


def items_of(rows: Sequence[Item], locate: Locate) -> list[dict[str, Any]] | None:
    """Return OpenAI's items of a message without their ids, if the message in the form of chat
    completions does not say all that they do; otherwise ``None``."""
    message = chat_message(rows, _placeholder) or {"role": "assistant", "content": None}
    try:
        again = message_rows(message, _Unchanged())
    except (InvalidRequest, KeyError, TypeError):
        again = []
    if list(map(_essence, again)) == list(map(_essence, rows)):
        return None
    return [
        {name: value for name, value in as_openai(row, locate).items() if name != "id"}
        for row in rows
    ]


def _essence(row: Item) -> dict[str, Any]:
    return {
        name: value
        for name, value in as_openai(row, _placeholder).items()
        if name not in _NOT_ITEMS
    }


def rows_of_items(items: list[dict[str, Any]], media: Media, param: str) -> list[Item]:
    """Return new rows for the ``items`` of one exported message.

    Raises:
        InvalidRequest: They are not items of one message.
    """
    refused = InvalidRequest(
        f"Invalid value for '{param}': these are not the items of one message.", param=param
    )
    try:
        rows = new_rows(items, media, param=param)
        heads = [row for row in rows if row.head_id is None]
        content = content_of(heads[0], _placeholder)
        texts = [heads[0].data.get("call_id", "")]
        for value in (value for part in _parts(content) for value in part.values()):
            texts += value.values() if isinstance(value, dict) else [value]
        is_known = isinstance(content, (str, list)) and {row.role for row in rows} <= _ROLES
        reasoning_of(rows)
        calls = tool_calls_of(rows) or []
        texts += [text for call in calls for text in call[call["type"]].values()]
    except (AttributeError, IndexError, KeyError, TypeError):
        raise refused from None
    if not is_known or len(heads) != 1 or not all(isinstance(text, str) for text in texts):
        raise refused
    return rows


def _parts(content: Any) -> list[dict[str, Any]]:
    return [{"text": content}] if isinstance(content, str) else content


def plant(conversation: Conversation, messages: Sequence[tuple[Item | None, list[Item]]]) -> None:
    """Insert the rows of ``messages`` into ``conversation``, which is empty. Each is the head of an
    earlier message, or ``None``, and the rows of the message that follows it."""
    #: For each branch the sequence number of its last item, and for each head its last item's.
    branch_ends: dict[UUID, int] = {}
    ends: dict[UUID, int] = {}
    branches: list[Branch] = []
    rows: list[Item] = []
    for parent, message in messages:
        branch, fork = conversation.id, 0
        if parent is not None:
            branch, fork = parent.branch, ends[parent.pk]
        if branch_ends.get(branch, 0) != fork:
            made = Branch(id=uuid7(), conversation=conversation, parent=branch, fork=fork)
            branches.append(made)
            branch = made.id
        for row in message:
            conversation.sequence += 1
            row.conversation, row.branch = conversation, branch
            row.sequence = conversation.sequence
            if row.head_id is None:
                row.parent = parent
            rows.append(row)
        (head,) = [row for row in message if row.head_id is None]
        ends[head.pk] = branch_ends[branch] = conversation.sequence
    Branch.objects.bulk_create(branches, BATCH)
    Item.objects.bulk_create(rows, BATCH)


def response_items(response: Response, owner: str) -> tuple[list[Any], list[Any]]:
    """Return OpenAI's items of the input and of the output of ``response``, with the content of
    their files."""
    wanted = [UUID(digits) for digits in (*response.input_ids, *response.output_ids)]
    found = Item.objects.filter(conversation__owner=owner).in_bulk(wanted)
    locate = inlined(load(found.values()))
    shown = {row.pk.hex: as_openai(row, locate) for row in found.values()}
    return (
        [shown[digits] for digits in response.input_ids if digits in shown],
        [shown[digits] for digits in response.output_ids if digits in shown],
    )


# Markdown


def markdown(conversation: Conversation) -> Iterator[str]:
    """Yield the current branch of ``conversation`` as Markdown, for people."""
    title = " ".join(conversation.title.split())
    yield f"# {title or 'Conversation'}\n"
    path, last = path_to(conversation.leaf), 0
    while heads := path.oldest(PAGE, above=last, head=None):
        last = heads[-1].sequence
        for rows in groups_of(heads):
            yield _section(rows)


def _section(rows: list[Item]) -> str:
    message = chat_message(rows, _placeholder)
    if message is None:
        return ""
    blocks = [f"\n## {message['role'].capitalize()}\n"]
    if message.get("reasoning_content"):
        blocks.append("".join(f"> {line}\n" for line in message["reasoning_content"].splitlines()))
    content = message.get("content")
    if message["role"] == "tool" and isinstance(content, str):
        blocks.append(_fenced(content))
    else:
        blocks += [f"{_written(part)}\n" for part in _parts(content or "")]
    for call in message.get("tool_calls") or ():
        named = call[call["type"]]
        text = named.get("arguments", named.get("input", ""))
        blocks.append(f"Call of `{named['name']}`:\n\n{_fenced(text)}")
    return "\n".join(blocks)


def _written(part: dict[str, Any]) -> str:
    match part.get("type", "text"):
        case "text":
            return str(part["text"])
        case "refusal":
            return str(part["refusal"])
        case "image_url":
            url = str(part["image_url"]["url"])
            return "*[image]*" if url.startswith(_placeholder("")) else f"*[image: {url}]*"
    return "*[audio]*"


def _fenced(text: str) -> str:
    """Return ``text`` as a block of code, whatever is in it."""
    longest = max(map(len, re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}\n{text}\n{fence}\n"
