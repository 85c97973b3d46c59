"""The caller of a request, and the rows that exist for the caller."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Any, Final

from django.db.models import Q, QuerySet

from ...._ids import parse_public_id
from ....auth import Caller
from ....endpoints import Admission
from ....exceptions import NotFound, PermissionDenied
from .._store.files import address
from .._store.items import Locate, item_key
from ..models import MAX_OWNER, Conversation, Item, Kind, Visibility

__all__ = ["Owner", "find_conversation", "find_message", "locate", "message_of", "mount_url"]

SCOPE: Final = "sessions"
#: The part of a path below the mount.
_BELOW: Final = re.compile(r".*?(?=(?:api/chat|v1/(?:conversations|responses|chat))(?:/|$))")


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
        if len(text) > MAX_OWNER:
            # A static key may have any name.
            text = f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"
        user_id = None if caller.user is None else caller.user.pk
        return cls(text, user_id, "" if caller.workspace is None else caller.workspace.id)

    def conversations(self) -> QuerySet[Conversation]:
        """Return the owner's conversations."""
        return Conversation.objects.filter(owner=self.text, kind=Kind.CONVERSATION)

    def readable(self) -> QuerySet[Conversation]:
        """Return the owner's conversations, and those that others share with the workspace."""
        own = Q(owner=self.text)
        if self.workspace:
            own |= Q(workspace=self.workspace, visibility=Visibility.WORKSPACE)
        return Conversation.objects.filter(own, kind=Kind.CONVERSATION)


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
    rows = owner.readable().select_related("leaf")
    found = None if pk is None else rows.filter(pk=pk).first()
    if found is None:
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
    pk = item_key(public)
    rows = Item.objects.filter(conversation=conversation, head=None)
    return None if pk is None else rows.filter(pk=pk).first()


def mount_url(admission: Admission[Any]) -> str:
    """Return the absolute URL of the mount, with a slash at its end."""
    match = _BELOW.match(admission.request.path)
    return admission.request.build_absolute_uri(match[0] if match else "/")


def locate(admission: Admission[Any]) -> Locate:
    """Return the function that says at which URL clients find a file."""
    base = mount_url(admission)
    return lambda digits: address(base, digits)
