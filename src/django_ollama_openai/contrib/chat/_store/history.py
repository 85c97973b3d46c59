"""The messages of a path that go to an engine: the newest that may fit."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import takewhile
from typing import Any, Final, TypeVar

from ...._wire.chat import Message
from ..models import Item, Status
from .files import load
from .items import inlined
from .known import Known, recall, remember
from .messages import chat_message, copy_of, group, stored_message
from .tree import Line, Path

__all__ = ["INSTRUCTING", "characters_of", "read_history", "read_items"]

R = TypeVar("R", Item, Line)

#: The roles of messages that are instructions. At the beginning of a path they are kept.
INSTRUCTING: Final = frozenset({"developer", "system"})
MAX_INSTRUCTING: Final = 5
#: The items that are read first, and at least.
FIRST_READ: Final = 64
MAX_MESSAGES: Final = 9_000


def read_history(
    path: Path, max_characters: int, total: int | None = None
) -> tuple[list[Message], int]:
    """Return the messages of ``path``, the oldest first, and the number of those that are left out;
    ``total`` is the number of all, which are counted otherwise.

    At most ``max_characters`` of text, and ``MAX_MESSAGES``, are returned: the instructions at the
    beginning, then whole turns, each from a user's message on. The last turn is returned whatever
    its size.

    Raises:
        InvalidRequest: Something in a message is not for chat completions.
    """
    known = _known(path, max_characters)
    if known is not None:
        return list(map(copy_of, known.messages)), 0
    rows: list[Line] = []
    characters, below, limit = 0, None, FIRST_READ
    has_turn = is_whole = False
    while not has_turn or (characters <= max_characters and len(rows) <= MAX_MESSAGES):
        found = path.lines(limit, below=below)
        rows += found
        characters += characters_of(found)
        has_turn = has_turn or any(row.role == "user" for row in found)
        if len(found) < limit:
            is_whole = True
            break
        # As many as the rest of the text has, if they are as long as those before.
        left = (max_characters - characters) * len(rows) // max(1, characters)
        below, limit = found[-1].sequence, min(max(FIRST_READ, left), 2 * len(rows))
    rows.reverse()
    groups = group(rows)
    left_out = 0
    if not is_whole or characters > max_characters or len(groups) > MAX_MESSAGES:
        beginning = path.lines(MAX_INSTRUCTING, oldest=True)
        leading = group(list(takewhile(lambda row: row.role in INSTRUCTING, beginning)))
        first = _first(groups, max_characters - sum(map(characters_of, leading)))
        recent = groups[first:]
        if leading and leading[-1][0].sequence < recent[0][0].sequence:
            recent = leading + recent
        groups = recent
        left_out = (path.count(head=None) if total is None else total) - len(groups)
    messages, has_files = _messages(groups)
    if not left_out and len(rows) >= FIRST_READ and not has_files and _have_ended(rows):
        kept = list(map(copy_of, messages))
        remember(Known(path, len(rows), len(groups), characters, kept))
    return messages, left_out


def _known(path: Path, max_characters: int) -> Known | None:
    """Return the messages of the whole ``path`` if those of its beginning are known and all of them
    may be sent."""
    known = recall(path, max_characters)
    if known is None:
        return None
    rows = path.lines(FIRST_READ, above=known.path.ranges[0][1], oldest=True)
    groups = group(rows)
    characters = known.characters + characters_of(rows)
    heads = known.heads + len(groups)
    if len(rows) == FIRST_READ or characters > max_characters or heads > MAX_MESSAGES:
        return None
    messages, has_files = _messages(groups)
    found = Known(path, known.count + len(rows), heads, characters, known.messages + messages)
    if rows and not has_files and _have_ended(rows):
        remember(found)
    return found


def _have_ended(rows: Sequence[Line]) -> bool:
    return all(row.status != Status.IN_PROGRESS for row in rows)


def _messages(groups: Sequence[Sequence[Line]]) -> tuple[list[Message], bool]:
    """Return the messages of ``groups`` and whether they have files."""
    lines: list[Any] = [row for rows in groups for row in rows]
    attachments = load(lines)
    found = [chat_message(rows, inlined(attachments)) for rows in groups]
    messages = [stored_message(message) for message in found if message is not None]
    return messages, bool(attachments)


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


def characters_of(rows: Iterable[Item | Line]) -> int:
    """Return the characters of ``rows`` that count for a request: also those of reasoning and of
    the arguments of calls."""
    return sum(len(row.text) + (0 if row.type == "message" else _hidden(row.data)) for row in rows)


def _hidden(data: dict[str, Any]) -> int:
    texts = [data.get("arguments"), data.get("input")]
    for part in data.get("content") or data.get("summary") or ():
        if isinstance(part, dict):
            texts.append(part.get("text"))
    return sum(len(text) for text in texts if isinstance(text, str))


def _first(groups: Sequence[Sequence[R]], max_characters: int) -> int:
    """Return the index of the first message to keep: a user's, or the first of all."""
    characters, first = 0, None
    for index in range(len(groups) - 1, -1, -1):
        characters += characters_of(groups[index])
        is_full = characters > max_characters or len(groups) - index > MAX_MESSAGES
        if is_full and first is not None:
            break
        if any(row.role == "user" for row in groups[index]):
            first = index
    return first or 0
