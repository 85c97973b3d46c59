"""The caller of a request, and the rows that exist for the caller."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Any, Final

from django.db.models import QuerySet

from ...._ids import parse_public_id
from ....auth import Caller
from ....endpoints import Admission
from ....exceptions import GatewayError, NotFound, PermissionDenied
from .._store.files import address
from .._store.items import Locate
from .._store.runs import lock_row
from ..models import MAX_OWNER, Conversation, Item, Kind, Visibility

__all__ = [
    "SCOPE",
    "Owner",
    "find_conversation",
    "find_message",
    "locate",
    "lock_session",
    "message_of",
    "mount_url",
    "rename_field",
]

SCOPE: Final = "sessions"
#: The part of a path below the mount.
_BELOW: Final = re.compile(r".*?(?=(?:api/chat|v1/(?:conversations|responses|chat))(?:/|$))")
#: Texts that are equal on every database only if they are the same.
_UNMISTAKABLE: Final = re.compile(r"[a-z0-9:._-]*")


@dataclass(frozen=True, slots=True)
class Owner:
    """The owner of what a caller stores: its text, its user, if it is one, and its workspace."""

    text: str
    user_id: Any
    workspace: str

    @classmethod
    def of(cls, caller: Caller) -> Owner:
        """Return the owner for ``caller``, who has one."""
        text = caller.owner or ""
        if len(text) > MAX_OWNER or not _UNMISTAKABLE.fullmatch(text):
            # A static key may have any name, and MariaDB compares without regard to case, accents
            # and spaces at the end.
            text = f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"
        user_id = None if caller.user is None else caller.user.pk
        return cls(text, user_id, "" if caller.workspace is None else caller.workspace.id)

    def conversations(self) -> QuerySet[Conversation]:
        """Return the owner's conversations."""
        return Conversation.objects.filter(owner=self.text, kind=Kind.CONVERSATION)

    def shared(self) -> QuerySet[Conversation]:
        """Return the conversations that are shared with the workspace."""
        rows = Conversation.objects.filter(kind=Kind.CONVERSATION, visibility=Visibility.WORKSPACE)
        return rows.filter(workspace=self.workspace) if self.workspace else rows.none()

    def may_read(self, row: Conversation) -> bool:
        """Return whether ``row`` is one of :meth:`readable`."""
        is_shared = row.visibility == Visibility.WORKSPACE and bool(self.workspace)
        return row.kind == Kind.CONVERSATION and (
            row.owner == self.text or (is_shared and row.workspace == self.workspace)
        )

    def readable(self) -> QuerySet[Conversation]:
        """Return the owner's conversations, and those that others share with the workspace."""
        return self.conversations() | self.shared()


def find_conversation(
    owner: Owner, public: str, *, writes: bool = False, label: str = "Session"
) -> Conversation:
    """Return the conversation with the id ``public``, which ``owner`` may read, or change if it
    ``writes``.

    Raises:
        NotFound: It does not exist for ``owner``.
        PermissionDenied: ``owner`` may only read it.
    """
    pk = parse_public_id(Conversation.prefix, public)
    # With the conditions of readable() the query would take longer to make than to answer.
    rows = Conversation.objects.select_related("leaf", *(["run"] if writes else []))
    found = None if pk is None else next(iter(rows.filter(pk=pk)), None)
    if found is None or not owner.may_read(found):
        raise NotFound(f"{label} with id '{public[:100]}' not found.")
    if writes and found.owner != owner.text:
        raise PermissionDenied("Only the owner of this session may change it.")
    return found


def find_message(conversation: Conversation, public: str) -> Item:
    """Return the message with the id ``public`` of ``conversation``.

    Raises:
        NotFound: It does not exist there.
    """
    found = message_of(conversation, public)
    if found is None:
        raise NotFound(f"Message with id '{public[:100]}' not found.")
    return found


def message_of(conversation: Conversation, public: str) -> Item | None:
    """Return the message with the id ``public`` of ``conversation``, if it is one of it."""
    pk = parse_public_id("msg", public)
    rows = Item.objects.filter(conversation=conversation, head=None)
    return None if pk is None else rows.filter(pk=pk).first()


def lock_session(found: Conversation) -> Conversation:
    """Return the session ``found``, whose row is locked until the end of the transaction.

    Raises:
        NotFound: It was deleted meanwhile.
    """
    message = f"Session with id '{found.public_id}' not found."
    return lock_row(found.pk, found.owner, message=message)


def rename_field(error: GatewayError, old: str, new: str) -> None:
    """Let ``error``, if it names the field ``old`` of a request or one below it, name ``new``
    instead; if that is empty, what is below it, or nothing."""
    param = error.param
    if param is None or not re.match(rf"{re.escape(old)}(?![^.\[])", param):
        return
    renamed = f"{new}{param.removeprefix(old)}".lstrip(".")
    error.message = error.message.replace(f"'{param}'", f"'{renamed}'" if renamed else "this")
    error.param = renamed or None


def mount_url(admission: Admission[Any]) -> str:
    """Return the absolute URL of the mount, with a slash at its end."""
    match = _BELOW.match(admission.request.path)
    return admission.request.build_absolute_uri(match[0] if match else "/")


def locate(admission: Admission[Any]) -> Locate:
    """Return the function that says at which URL clients find a file."""
    base = mount_url(admission)
    return lambda digits: address(base, digits)
