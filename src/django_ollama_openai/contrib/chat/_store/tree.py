"""Paths through the tree of a conversation: reading them, and adding items to their end.

The path to an item is read as one range of sequence numbers for each of its branches, so that the
end of a long path is as cheap as that of a short one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import starmap
from typing import Any, Final, NamedTuple
from uuid import UUID

from django.db.models import Max, Q, QuerySet
from django.utils.timezone import now

from ...._ids import uuid7
from ..models import Branch, Conversation, Item

__all__ = [
    "Line",
    "Path",
    "append",
    "branch_for",
    "delete_item",
    "delete_message",
    "group_of",
    "groups_of",
    "path_to",
    "place",
    "root_of",
    "set_leaf",
    "siblings",
]

#: Ranges of one query. SQLite limits the depth of an expression to 1,000.
RANGES: Final = 100


class Line(NamedTuple):
    """The columns of an item that engines get."""

    pk: UUID
    head_id: UUID | None
    type: str
    role: str
    status: str
    sequence: int
    data: Any
    text: str


COLUMNS: Final = ("pk", "head_id", "type", "role", "status", "sequence", "data", "text")


@dataclass(slots=True, frozen=True)
class Path:
    """The path to an item: for each branch, the last first, its id and the sequence number up to
    which its items belong to the path."""

    ranges: tuple[tuple[UUID, int], ...] = ()

    def newest(
        self, limit: int | None = None, *, below: int | None = None, **filters: Any
    ) -> list[Item]:
        """Return the last ``limit`` items, the last first; of those with a sequence number less
        than ``below``, if there is one."""
        if below is not None:
            filters["sequence__lt"] = below
        return self._read(self.ranges, "-sequence", limit, filters)

    def lines(
        self,
        limit: int,
        *,
        below: int | None = None,
        above: int | None = None,
        oldest: bool = False,
    ) -> list[Line]:
        """Return the last ``limit`` items, or the ``oldest``, as :meth:`newest` and :meth:`oldest`
        do, with no more columns than engines get."""
        found: list[Line] = []
        for rows in _querysets(self.ranges[::-1] if oldest else self.ranges):
            if below is not None:
                rows = rows.filter(sequence__lt=below)
            if above is not None:
                rows = rows.filter(sequence__gt=above)
            lines = rows.order_by("sequence" if oldest else "-sequence").values_list(*COLUMNS)
            found += starmap(Line, lines[: limit - len(found)])
            if len(found) == limit:
                break
        return found

    def oldest(
        self, limit: int | None = None, *, above: int | None = None, **filters: Any
    ) -> list[Item]:
        """Return the first ``limit`` items, the first first; of those with a sequence number
        greater than ``above``, if there is one."""
        if above is not None:
            filters["sequence__gt"] = above
        return self._read(self.ranges[::-1], "sequence", limit, filters)

    def count(self, **filters: Any) -> int:
        """Return the number of items."""
        return sum(rows.filter(**filters).count() for rows in _querysets(self.ranges))

    def has(self, item: Item) -> bool:
        """Return whether ``item`` is on the path."""
        return any(item.branch == branch and item.sequence <= last for branch, last in self.ranges)

    def _read(
        self,
        ranges: tuple[tuple[UUID, int], ...],
        order: str,
        limit: int | None,
        filters: dict[str, Any],
    ) -> list[Item]:
        found: list[Item] = []
        for rows in _querysets(ranges):
            left = None if limit is None else limit - len(found)
            if left == 0:
                break
            found += rows.filter(**filters).order_by(order)[:left]
        return found


def _querysets(ranges: Sequence[tuple[UUID, int]]) -> Iterator[QuerySet[Item]]:
    for start in range(0, len(ranges), RANGES):
        condition = Q()
        for branch, last in ranges[start : start + RANGES]:
            condition |= Q(branch=branch, sequence__lte=last)
        yield Item.objects.filter(condition)


def path_to(head: Item | None, last: int | None = None) -> Path:
    """Return the path to the end of the message ``head``, an empty one for ``None``. ``last`` is
    the sequence number of its last item, which is looked up otherwise."""
    if head is None:
        return Path()
    ranges = []
    known: dict[UUID, Branch] = {}
    branch, last = head.branch, _end_of(head) if last is None else last
    while True:
        ranges.append((branch, last))
        if branch not in known:
            # All branches of a conversation at once.
            of = Branch.objects.filter(pk=branch).values("conversation")
            known = {row.id: row for row in Branch.objects.filter(conversation__in=of)}
        row = known.get(branch)
        if row is None:
            return Path(tuple(ranges))
        branch, last = row.parent, row.fork


def group_of(head: Item) -> list[Item]:
    """Return ``head`` and the parts of its message, in order."""
    rows = Item.objects.filter(Q(pk=head.pk) | Q(head=head.pk))
    return list(rows.order_by("sequence"))


def groups_of(heads: Sequence[Item]) -> list[list[Item]]:
    """Return, for each of ``heads``, it and the parts of its message, in order."""
    groups: dict[UUID | None, list[Item]] = {head.pk: [head] for head in heads}
    for part in Item.objects.filter(head__in=list(groups)):
        groups[part.head_id].append(part)
    return [sorted(group, key=lambda row: row.sequence) for group in groups.values()]


def root_of(conversation: Conversation, after: Item | None) -> None:
    """Let ``conversation``, which is new and empty, continue another one after the message
    ``after``."""
    if after is None:
        return
    conversation.sequence = end = _end_of(after)
    Branch.objects.create(
        id=conversation.id, conversation=conversation, parent=after.branch, fork=end
    )


def append(conversation: Conversation, items: Sequence[Item], after: Item | None) -> None:
    """Place the new ``items`` after the message ``after``, or at the beginning, and insert them.

    The caller has locked the row of ``conversation``, and saves its ``sequence`` afterwards. Of the
    first of several messages ``after`` is the parent, and each is that of the next.
    """
    branch = branch_for(conversation, after)
    place(conversation, items, branch, None if after is None else after.pk)
    Item.objects.bulk_create(items)


def place(
    conversation: Conversation, items: Sequence[Item], branch: UUID, parent_id: UUID | None
) -> None:
    """Place the new ``items`` as :func:`append` does, at the end of ``branch``, but do not insert
    them."""
    for number, item in enumerate(items, conversation.sequence + 1):
        item.conversation = conversation
        item.branch, item.sequence = branch, number
        if item.head_id is None:
            # Objects that refer to each other in a row of thousands cannot be freed.
            item.parent_id, parent_id = parent_id, item.pk
    conversation.sequence += len(items)


def set_leaf(conversation: Conversation, head: Item | None, *, count: int | None = None) -> None:
    """Make ``head`` the last message of the current branch. ``count`` is the number of messages on
    its path, which is counted otherwise. The caller saves the conversation."""
    if count is None:
        count = path_to(head).count(head=None)
    conversation.leaf, conversation.message_count = head, count
    conversation.active_at = now()


def siblings(heads: Sequence[Item]) -> dict[UUID, list[UUID]]:
    """Return, for each of ``heads``, the ids of all messages after the same message, its own among
    them, the oldest first."""
    parents = {head.parent_id for head in heads if head.parent_id is not None}
    roots = {head.conversation_id for head in heads if head.parent_id is None}
    queries = []
    if parents:
        # Only heads have a parent. With a condition on the head, SQLite would read all heads.
        queries.append(Item.objects.filter(parent__in=parents))
    if roots:
        queries.append(Item.objects.filter(conversation__in=roots, parent=None, head=None))
    by_parent: dict[tuple[UUID, UUID | None], list[UUID]] = {}
    for rows in queries:
        keys = rows.order_by("sequence").values_list("pk", "conversation", "parent")
        for pk, conversation, parent in keys:
            by_parent.setdefault((conversation, parent), []).append(pk)
    return {head.pk: by_parent[head.conversation_id, head.parent_id] for head in heads}


def delete_message(conversation: Conversation, head: Item) -> None:
    """Delete the message ``head`` with its parts. The messages after it move up to its parent.

    The caller has locked the row of ``conversation``, and saves it afterwards.
    """
    Item.objects.filter(parent=head.pk).update(parent=head.parent_id)
    is_on_path = path_to(conversation.leaf).has(head)
    leaf = head.parent if conversation.leaf_id == head.pk else conversation.leaf
    Item.objects.filter(head=head.pk).delete()
    head.delete()
    if is_on_path:
        conversation.leaf = leaf
        conversation.message_count -= 1
    conversation.active_at = now()


def delete_item(conversation: Conversation, item: Item) -> None:
    """Delete one item; the others of its message stay. The caller has locked the row of
    ``conversation``, and saves it afterwards."""
    parts = [] if item.head_id is not None else group_of(item)
    others = [part for part in parts if part.pk != item.pk]
    if item.head_id is None and not others:
        delete_message(conversation, item)
        return
    if others:
        head = others[0]
        head.head, head.parent = None, item.parent
        head.save(update_fields=["head", "parent"])
        Item.objects.filter(head=item.pk).update(head=head)
        Item.objects.filter(parent=item.pk).update(parent=head)
        if conversation.leaf_id == item.pk:
            conversation.leaf = head
    item.delete()
    conversation.active_at = now()


def _end_of(head: Item) -> int:
    """Return the sequence number of the last item of the message ``head``."""
    end: int | None = Item.objects.filter(head=head.pk).aggregate(end=Max("sequence"))["end"]
    return max(end or 0, head.sequence)


def branch_for(conversation: Conversation, after: Item | None) -> UUID:
    """Return the branch for items after the message ``after``: its own, unless others follow
    there. The row of ``conversation`` is locked."""
    if after is None:
        branch, end = conversation.id, 0
    else:
        branch, end = after.branch, _end_of(after)
        if after.conversation_id != conversation.id:
            # root_of() has made it.
            return conversation.id
    if not Item.objects.filter(branch=branch, sequence__gt=end).exists():
        return branch
    row = Branch.objects.create(id=uuid7(), conversation=conversation, parent=branch, fork=end)
    return row.id
