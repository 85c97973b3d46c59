"""The messages of a path that go to an engine: the newest that may fit."""

from __future__ import annotations

from typing import Any, Final

from ..models import Item
from .files import load
from .items import inlined
from .messages import chat_message, group
from .tree import Path

__all__ = ["read_history", "read_items"]

#: The items that are read at once; the number doubles each time.
FIRST_READ: Final = 64
MAX_MESSAGES: Final = 9_000


def read_history(path: Path, max_characters: int) -> tuple[list[dict[str, Any]], int]:
    """Return the messages of ``path`` as requests for chat completions have them, the oldest first,
    and the number of older ones that are left out.

    At most ``max_characters`` of text, and ``MAX_MESSAGES``, are returned, in whole turns: the
    first message is a user's, or the first of the path. The last turn is returned whatever its
    size.
    """
    rows: list[Item] = []
    characters, below, limit, is_whole = 0, None, FIRST_READ, False
    while characters <= max_characters and len(rows) <= MAX_MESSAGES:
        found = path.newest(limit, below=below)
        rows += found
        characters += sum(len(row.text) for row in found)
        if len(found) < limit:
            is_whole = True
            break
        below, limit = found[-1].sequence, 2 * limit
    rows.reverse()
    groups = group(rows)
    first = 0 if is_whole and characters <= max_characters else _first(groups, max_characters)
    kept = groups[first:]
    attachments = load([row for rows in kept for row in rows])
    messages = [chat_message(each, inlined(attachments)) for each in kept]
    left_out = 0
    if first or not is_whole:
        left_out = path.count(head=None) - len(kept)
    return [message for message in messages if message is not None], left_out


def read_items(path: Path, max_characters: int, *, cuts: bool) -> list[Item]:
    """Return the items of ``path`` up to a little more than ``max_characters`` of text, the oldest
    first. If it ``cuts``, at most so many are returned, beginning with a user's message."""
    rows: list[Item] = []
    characters, below, limit = 0, None, FIRST_READ
    while characters <= max_characters:
        found = path.newest(limit, below=below)
        rows += found
        characters += sum(len(row.text) for row in found)
        if len(found) < limit:
            break
        below, limit = found[-1].sequence, 2 * limit
    rows.reverse()
    if cuts and characters > max_characters:
        groups = group(rows)
        return [row for each in groups[_first(groups, max_characters) :] for row in each]
    return rows


def _first(groups: list[list[Item]], max_characters: int) -> int:
    """Return the index of the first message to keep: a user's."""
    characters, first = 0, None
    for index in range(len(groups) - 1, -1, -1):
        characters += sum(len(row.text) for row in groups[index])
        if first is not None and (
            characters > max_characters or len(groups) - index > MAX_MESSAGES
        ):
            break
        if any(row.role == "user" for row in groups[index]):
            first = index
    return first or 0
